"""Constitutional AI, the preference phase: reinforcement learning from AI feedback (arXiv 2212.08073), by DPO.

The model of the supervised phase answers red-team prompts, a judge labels the answers (see
`alignlab.constitutional.ai_labels`), and DPO learns from the labels and from people's helpful pairs. `cai_ppo` goes
the paper's way, by a reward model and PPO.
"""

from collections.abc import Iterator
from dataclasses import replace

from alignlab.config.ai_labels import AILabels
from alignlab.constitutional.ai_labels import VIEW as VIEW
from alignlab.constitutional.ai_labels import labelled_rows
from alignlab.constitutional.ai_labels import most_rows as most_rows
from alignlab.errors import Fault
from alignlab.methods import dpo
from alignlab.runtime.stage_run import Run

NEEDS = {"policy": "cai_sft", "judge_model": ""}
ROLES = ("policy", "reference")


class Config(dpo.Config, AILabels):
    """Settings of `conf/method/cai.yaml`."""

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        yield from AILabels.faults(self)


def train(run: Run[Config]) -> None:
    """Label the policy's own answers, then optimise it on the labels and on people's helpful pairs."""
    dpo.train(replace(run, rows=labelled_rows(run, run.inputs["policy"])))
