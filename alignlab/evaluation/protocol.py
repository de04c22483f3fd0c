"""What a measurement is, and how the ones of a config are found.

A measurement is one file, `evaluation/measures/<name>.py` (a user's own: `measures/<name>.py`), and one YAML of its
settings, `conf/measure/<name>.yaml`. `measure=[gold,length]` chooses. The file declares `METRICS` and `score`, which
turns replies into records, and may declare what it asks (`items`; by default a completion of each held-out prompt).

With `OF = "policy"`, the default, every policy that is compared is asked the same items. With `OF = "stage"`, a
finished stage is measured once: what its model is, or what it was trained on. `VIEW` names the held-out rows that it
needs, `prompts` for a policy's; a measurement without rows is left out.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from alignlab.config import extensions
from alignlab.config.evaluation import MeasureSettings
from alignlab.config.schema import Config
from alignlab.data import view
from alignlab.data.view_sizes import view_size
from alignlab.errors import Mistake, mistake
from alignlab.evaluation.metrics import Metric, Record, Scores
from alignlab.evaluation.replies import Item, Reply, Subject, ask, prompt_hash
from alignlab.models.references import Source
from alignlab.runtime.progress import say

if TYPE_CHECKING:
    from alignlab.models.sampling import Sampling

Of = Literal["policy", "stage"]


class FinishedStage(NamedTuple):
    """A finished stage that is measured.

    `folder` is the stage's folder in the cache, with its model in `model/`; `output` is its folder in the run, where a
    measurement may write a file of its own. `inputs` are the models that it started from, by setting.
    """

    method: Any
    makes: str
    folder: Path
    output: Path
    inputs: Mapping[str, Source]


class Context:
    """What a measurement may read: the config, its own settings, and the model that is asked.

    `reward_model` scores completions, if there is one. `stage` is the finished stage of a measurement with
    `OF = "stage"`, else None.
    """

    def __init__(
        self,
        config: Config,
        subject: Subject,
        reward_model: Path | None = None,
        stage: FinishedStage | None = None,
        settings: MeasureSettings | None = None,
    ) -> None:
        self.config, self.subject, self.reward_model, self.stage = config, subject, reward_model, stage
        self.settings = settings or MeasureSettings()

    def of(self, settings: MeasureSettings) -> "Context":
        """Return the context of one measurement."""
        return Context(self.config, self.subject, self.reward_model, self.stage, settings)

    @cached_property
    def sampling(self) -> "Sampling":
        """Return how completions are sampled."""
        from alignlab.models.sampling import Sampling

        one = self.config.evaluation
        return Sampling(one.temperature, one.top_p, one.max_new_tokens, one.batch_size)

    def ask(self, items: Iterable[Item], subject: Subject | None = None) -> list[Reply]:
        """Return the replies of the subject, or of another one, to some items."""
        return ask(subject or self.subject, list(items), self.sampling, self.config.seed)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the held-out rows of a view that are measured: at most `evaluation.prompts` of each kind."""
        from alignlab.evaluation.items import select_per_kind

        evaluation = self.config.evaluation
        return select_per_kind(view(self.config.dataset, name, evaluation.split).to_list(), evaluation.prompts)

    def select(self, items: Iterable[Item]) -> list[Item]:
        """Return the items of a suite that are measured: at most `evaluation.prompts` of each kind."""
        from alignlab.evaluation.items import select_items

        return select_items(items, self.config.evaluation.prompts)

    def prompts(self) -> list[Item]:
        """Return an item for each held-out prompt that is measured."""
        return [
            Item(row["id"], row["prompt"], row["kind"], cluster=prompt_hash(row["prompt"]))
            for row in self.rows("prompts")
        ]


class MeasurementProtocol(Protocol):
    """The names that a measurement's file declares; all but `METRICS` and `score` may be left out.

    `CONTROLS` names the controls that are scored beside models (`alignlab.evaluation.controls`).
    """

    METRICS: Sequence[Metric] | Callable[[Sequence[Record]], Sequence[Metric]]
    VERSION: int = 1
    OF: Of = "policy"
    VIEW: str | None = "prompts"
    CONTROLS: Sequence[str] = ()

    def applies(self, config: Config) -> str:
        """Return why it does not go with a config, or an empty text where it does."""

    def scored_by(self, config: Config, metric: str) -> str:
        """Return the name of the scorer behind a metric, in a few words; empty where values are exact."""

    def items(self, context: Context) -> Iterable[Item]:
        """Return what is asked."""

    def score(self, replies: Sequence[Reply], context: Context) -> Iterable[Record]:
        """Return the records of the replies."""


class ChosenMeasurement(NamedTuple):
    """A measurement as it was looked up."""

    name: str
    of: str
    module: Any
    settings: MeasureSettings
    view: str | None

    @property
    def version(self) -> int:
        """Return the version of the measurement: the same replies get the same values in each."""
        return int(getattr(self.module, "VERSION", 1))

    def measure(self, context: Context) -> tuple[list[Reply], list[Record]]:
        """Ask the items and return the replies and their records."""
        own = context.of(self.settings)
        items = list(self.module.items(own) if hasattr(self.module, "items") else own.prompts())
        if not getattr(context.subject, "completes", True):  # a reward model
            items = [item for item in items if item.choices]
        if any(item.choices for item in items) and not context.subject.scores_choices:
            say(f"{self.name} is left out: a server gives no log-probabilities of given texts")
            return [], []
        replies = own.ask(items)
        return replies, list(self.module.score(replies, own))

    def label(self, scores: Scores, config: Config) -> Scores:
        """Return scores with the version of the measurement, and with the name of their scorer."""
        scored_by = getattr(self.module, "scored_by", None)
        return scores._replace(version=self.version, scorer=scored_by(config, scores.metric.name) if scored_by else "")

    def metrics(self, records: Sequence[Record]) -> Sequence[Metric]:
        """Return the metrics of some records."""
        declared = self.module.METRICS
        return list(declared(records) if callable(declared) else declared)


def measurements_of(config: Config, of: Of) -> list[ChosenMeasurement]:
    """Look up the measurements of a config that apply to it, of policies or of stages, in the order of `measure`."""
    return [
        ChosenMeasurement(name, of, module, settings, view_of(module))
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
        return view_size(config.dataset, name, config.evaluation.split).rows
    except Mistake:
        return 0


def looked_up(config: Config) -> list[tuple[str, MeasureSettings, Any]]:
    """Look up the measurements that apply to a config: name, settings and module."""
    modules = [(name, settings, extensions.load("measures", name)) for name, settings in config.measure.items()]
    for name, _, module in modules:
        for needed in ("METRICS", "score"):
            if not hasattr(module, needed):
                raise mistake("measure", f"{name}: {module.__name__} declares no {needed}", "see docs/extending.md")
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
