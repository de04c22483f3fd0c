"""Constitutional AI, the preference model: a reward model that learns from AI labels (arXiv 2212.08073, section 4).

The model of the supervised phase (`sampler`) answers red-team prompts, a judge labels the answers (see
`alignlab.constitutional.ai_labels`), and a reward model learns the labels' probabilities and people's helpful pairs.
"""

from collections.abc import Iterator
from dataclasses import replace

from alignlab.config.ai_labels import AILabels
from alignlab.constitutional.ai_labels import VIEW as VIEW
from alignlab.constitutional.ai_labels import labelled_rows
from alignlab.constitutional.ai_labels import most_rows as most_rows
from alignlab.errors import Fault
from alignlab.methods import rm
from alignlab.runtime.stage_run import Run

NEEDS = {"sampler": "cai_sft", "judge_model": ""}
ROLES = ("policy",)
MAKES = "reward_model"


class Config(rm.Config, AILabels):
    """Settings of `conf/method/cai_rm.yaml`."""

    sampler: str

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        yield from AILabels.faults(self)


def train(run: Run[Config]) -> None:
    """Label the sampler's answers, then train a reward model on the labels and on people's helpful pairs."""
    rm.train(replace(run, rows=labelled_rows(run, run.inputs["sampler"])))
