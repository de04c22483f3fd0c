"""What a measurement is, and how the ones of a config are found.

A measurement is one file, `evaluation/measures/<name>.py` (a user's own: `measures/<name>.py`), and one YAML of its
settings, `conf/measure/<name>.yaml`. `measure=[gold,length]` chooses. The file declares `measure`, and may declare `OF`
and `applies`. With `OF = "policy"`, the default, every policy that is compared is measured on the same held-out
prompts. With `OF = "stage"`, a finished stage is measured once: what its model is, or what it was trained on.
`VIEW` names the held-out rows that it needs, `prompts` for a policy's; a measurement without rows is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from alignlab.chat import Turn
from alignlab.config import extensions
from alignlab.config.evaluation import MeasureSettings
from alignlab.config.schema import Config
from alignlab.data import view
from alignlab.errors import Mistake, mistake
from alignlab.evaluation.scores import Measurement, Scores
from alignlab.models.references import Source

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Of = Literal["policy", "stage"]


class Sample(NamedTuple):
    """A held-out prompt and the completion that a policy gave it."""

    id: str
    kind: str
    prompt: list[Turn]
    completion: str
    finished: bool
    tokens: int


class Subject(NamedTuple):
    """A policy that is measured: the model, its completions, and the reward model to score them with, if there is one.

    `settings` are those of the measurement, from `conf/measure/<name>.yaml`.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    samples: list[Sample]
    config: Config
    reward_model: Path | None
    settings: MeasureSettings = MeasureSettings()


class FinishedStage(NamedTuple):
    """A finished stage that is measured.

    `folder` is the stage's folder in the cache, with its model in `model/`; `output` is its folder in the run, where a
    measurement may write a file of its own. `inputs` are the models that it started from, by setting.
    `samples` are the completions of its policy; a stage that makes a reward model has none.
    """

    config: Config
    method: Any
    makes: str
    folder: Path
    output: Path
    inputs: Mapping[str, Source]
    samples: Sequence[Sample]
    settings: MeasureSettings = MeasureSettings()


class MeasurementProtocol(Protocol):
    """The names that a measurement's file declares; `OF`, `VIEW` and `applies` may be left out."""

    OF: Of = "policy"
    VIEW: str | None = "prompts"

    def applies(self, config: Config) -> str:
        """Return why it does not go with a config, or an empty text where it does."""

    def measure(self, subject: Any) -> "Iterable[Scores | Sample | Measurement]":
        """Measure a `Subject`, one value per completion; or a `FinishedStage`, which may give finished rows.

        A measurement of a `Subject` that completes prompts of its own yields each of them as a `Sample` too, so
        that they stand among the run's samples.
        """


class ChosenMeasurement(NamedTuple):
    """A measurement as it was looked up."""

    name: str
    of: str
    measure: Any
    settings: MeasureSettings
    view: str | None


def measurements_of(config: Config, of: Of) -> list[ChosenMeasurement]:
    """Look up the measurements of a config that apply to it, of policies or of stages, in the order of `measure`."""
    return [
        ChosenMeasurement(name, of, module.measure, settings, view_of(module))
        for name, settings, module in looked_up(config)
        if of_module(module) == of
    ]


def measurements_with_rows(config: Config, of: Of) -> list[ChosenMeasurement]:
    """Return the measurements whose held-out rows there are."""
    chosen = measurements_of(config, of)
    rows = {name: count_rows(config, name) for name in {one.view for one in chosen} if name}
    return [one for one in chosen if one.view is None or rows[one.view]]


def count_rows(config: Config, name: str) -> int:
    """Return the number of held-out rows of a view; 0 where the data set does not have the view."""
    try:
        return len(view(config.dataset, name, config.evaluation.split))
    except Mistake:
        return 0


def looked_up(config: Config) -> list[tuple[str, MeasureSettings, Any]]:
    """Look up the measurements that apply to a config: name, settings and module."""
    modules = [(name, settings, extensions.load("measures", name)) for name, settings in config.measure.items()]
    for name, _, module in modules:
        if not hasattr(module, "measure"):
            raise mistake("measure", f"{name}: {module.__name__} declares no measure", "see docs/extending.md")
    return [entry for entry in modules if not getattr(entry[2], "applies", applies_always)(config)]


def of_module(module: Any) -> str:
    """Return what a measurement is of: `policy` or `stage`."""
    return str(getattr(module, "OF", "policy"))


def view_of(module: Any) -> str | None:
    """Return the view of held-out rows that a measurement needs; None if it needs none."""
    named: str | None = getattr(module, "VIEW", "prompts" if of_module(module) == "policy" else None)
    return named


def applies_always(config: Config) -> str:
    """Return an empty text: the measurement applies to every config."""
    return ""


def measure_stage(stage: FinishedStage) -> tuple[dict[str, Scores], list[Measurement]]:
    """Measure a finished stage; return the scores of its completions by name, and finished rows of `result.json`."""
    scores: dict[str, Scores] = {}
    rows: list[Measurement] = []
    for one in measurements_with_rows(stage.config, "stage"):
        for measured in one.measure(stage._replace(settings=one.settings)):
            if isinstance(measured, Scores):
                scores[measured.name] = measured
            else:
                rows.append(measured)
    return scores, rows
