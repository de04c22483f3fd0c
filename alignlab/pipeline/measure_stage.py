"""Measure each stage against the models that it came from, and write its result."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignlab.models import references
from alignlab.pipeline.plan import Plan, Stage
from alignlab.pipeline.run_folder import (
    BASE_RECORDS,
    RECORDS,
    REPORT,
    SAMPLES,
    CompletionRecord,
    RecordLine,
    Result,
    SampleRecord,
    read_precision,
    read_provenance,
    write_lines,
    write_result,
)

if TYPE_CHECKING:
    from alignlab.evaluation import Evaluated, Sample
    from alignlab.evaluation.scores import Measurement
    from alignlab.runtime.tracking import Tracker

MODELS: tuple[Literal["before", "previous", "after"], ...] = ("before", "previous", "after")


class StageMeasurements:
    """The measurements of a chain of stages; each model is measured once."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.evaluated: dict[tuple[Path, Path | None], Evaluated] = {}  # by the model and the reward model

    def measure(self, stage: Stage, track: "Tracker") -> Result:
        """Write a stage's result (and, for the last stage, the run's) and track its figures."""
        place = self.folder / stage.name
        rows = self.rows(stage, place, track) if self.plan.config.evaluation.enabled else []
        result: Result = {
            "stage": stage.name,
            "seed": self.plan.config.seed,
            "measurements": rows,
            "seconds": read_provenance(stage.folder)["seconds"],
            "model": str(place / "model"),
            "report": str(self.folder / REPORT),
        }
        if precision := read_precision(stage.folder):
            result["precision"] = precision
        track.summary({row["name"]: row["value"] for row in rows})
        write_result(result, place, *([self.folder] if stage == self.plan.stages[-1] else []))
        return result

    def rows(self, stage: Stage, place: Path, track: "Tracker") -> "list[Measurement]":
        """Measure a stage; a policy is compared with the model that it started from and with the chain's base."""
        from alignlab.evaluation import NOTHING, evaluate, measurements
        from alignlab.evaluation.controls import add_controls
        from alignlab.evaluation.protocol import Context, FinishedStage
        from alignlab.evaluation.subjects import LanguageModel, RewardModelSubject

        config, makes, model = self.plan.config, stage.method().makes, stage.folder / "model"
        reward_model = self.reward_model(stage)
        after = self.evaluate(model, reward_model) if makes == "policy" else None
        kind = LanguageModel if makes == "policy" else RewardModelSubject
        finished = FinishedStage(stage.settings, makes, stage.folder, place, stage.inputs)
        context = Context(config, kind(model, config.hardware), None, finished)
        now = (after or NOTHING).add(evaluate(context, "stage"))
        if after is None:
            write_lines(place / RECORDS, record_lines(now))
            return measurements(now.scores, None, None, config.evaluation)
        before, previous = (self.evaluate(path, reward_model) for path in (self.plan.base.path, stage.source.path))
        write_evaluated(place, before, previous, now, track, config.evaluation.samples)
        compared = measurements(now.scores, before.scores, previous.scores, config.evaluation)
        add_controls(compared, context)
        return compared

    def evaluate(self, model: Path, reward_model: Path | None) -> "Evaluated":
        """Measure one model, unless it was measured before with the same reward model."""
        from alignlab.evaluation import evaluate
        from alignlab.evaluation.protocol import Context
        from alignlab.evaluation.subjects import LanguageModel

        if (model, reward_model) not in self.evaluated:
            config = self.plan.config
            context = Context(config, LanguageModel(model, config.hardware), reward_model)
            self.evaluated[model, reward_model] = evaluate(context)
        return self.evaluated[model, reward_model]

    def reward_model(self, stage: Stage) -> Path | None:
        """Return the reward model to score a stage with: that of an earlier stage, else the one of the config.

        One of a later stage is not used, even if it is cached, since a repeated run has to measure the same.
        """
        earlier = self.plan.stages[: self.plan.stages.index(stage)]
        own = next((one.folder / "model" for one in earlier if one.method().makes == "reward_model"), None)
        named = self.plan.config.evaluation.reward_model
        if own or not named:
            return own
        return references.scorer_source(self.plan.config, "evaluation.reward_model", named).path


def write_evaluated(
    place: Path, before: "Evaluated", previous: "Evaluated", now: "Evaluated", track: "Tracker", shown: int
) -> None:
    """Write the records of a model and its completions beside those of two others; track `shown` of each kind."""
    from alignlab.evaluation import values_by_id

    samples = sample_records(before.samples, previous.samples, now.samples, values_by_id(now))
    write_lines(place / RECORDS, record_lines(now))
    write_lines(place / BASE_RECORDS, record_lines(before))
    write_lines(place / SAMPLES, samples)
    track.table("completions", *completions_table(samples, shown))


def record_lines(evaluated: "Evaluated") -> "Iterator[RecordLine]":
    """Yield the records of a model as `records.jsonl` holds them."""
    for measure, records in evaluated.records.items():
        for record in records:
            values = {name: float(value) for name, value in record.values.items()}
            name, cluster, kind, _, shown = record
            yield {"measure": measure, "id": name, "cluster": cluster, "kind": kind, "values": values, "shown": shown}


def sample_records(
    before: "Sequence[Sample]",
    previous: "Sequence[Sample]",
    after: "Sequence[Sample]",
    values: Mapping[str, dict[str, float]],
) -> list[SampleRecord]:
    """Put the completions of three models side by side, prompt by prompt; `values` are those of `after`, by id."""
    return [
        {
            "id": last.id,
            "kind": last.kind,
            "prompt": last.prompt,
            "before": completion_record(first),
            "previous": completion_record(second),
            "after": completion_record(last),
            "scores": values.get(last.id, {}),
        }
        for first, second, last in zip(before, previous, after, strict=True)
    ]


def completion_record(sample: "Sample") -> CompletionRecord:
    """Return a model's completion without its prompt."""
    return {"completion": sample.completion, "finished": sample.finished, "tokens": sample.tokens}


def completions_table(samples: Sequence[SampleRecord], count: int) -> tuple[list[str], list[list[Any]]]:
    """Return a table for people as columns and rows: `count` prompts of each kind, the completions, their scores."""
    taken: Counter[str] = Counter()
    kept = [sample for sample in samples if (taken.update([sample["kind"]]) or taken[sample["kind"]]) <= count]
    names = [name for name in dict.fromkeys(n for sample in kept for n in sample["scores"]) if name.count("/") == 1]
    rows = [
        [
            sample["id"],
            sample["kind"],
            sample["prompt"][-1]["content"],
            *(sample[model]["completion"] for model in MODELS),
            *map(sample["scores"].get, names),
        ]
        for sample in kept
    ]
    return ["id", "kind", "prompt", *MODELS, *names], rows
