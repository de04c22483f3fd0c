"""Judge a candidate model beside a baseline, and trace what it was made of.

`task=gate` and `task=promote` share this. What they decide is in `alignlab.evaluation.acceptance`.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.config.schema import Config
from alignlab.config.task import Judged
from alignlab.evaluation.acceptance import Decision, decide
from alignlab.pipeline.compared_models import ComparedModel, measure_models, short_names, write_comparison
from alignlab.pipeline.language_models import check_language_model
from alignlab.pipeline.prepare_inputs import locate_models
from alignlab.pipeline.provenance import repeatable
from alignlab.pipeline.registry import entry_of
from alignlab.pipeline.run_folder import (
    CONFIG,
    DECISION,
    DECISION_PAGE,
    PROVENANCE,
    Provenance,
    read_provenance,
    write_json,
)
from alignlab.runtime.files import write_text


class Outcome(NamedTuple):
    """A candidate and its baseline as they were measured, and the decision on it."""

    baseline: ComparedModel
    candidate: ComparedModel
    decision: Decision


class DecisionRecord(Decision):
    """A decision as `decision.json` holds it: of which task, on which model, and the version that it became.

    `stages` are those that the candidate was made by (`lineage`).
    """

    task: str
    candidate: str
    baseline: str
    version: int | None
    stages: list[dict[str, Any]]


def check(config: Config) -> Judged:
    """Return the task's settings; raises a `Mistake` where they name no language models."""
    settings = config.task
    assert isinstance(settings, Judged)
    check_language_model("task.model", settings.model)
    check_language_model("task.baseline", settings.baseline)
    return settings


def judge(config: Config, folder: Path, baseline: str, name: str | None = None) -> Outcome:
    """Measure a baseline and the candidate of `task.model`, write both into the run's folder, and decide.

    `name` is what the baseline is called, in place of the name of its folder.
    """
    settings, started = config.task, time.monotonic()
    assert isinstance(settings, Judged)
    config = locate_models(config)
    write_text(folder / CONFIG, repeatable(config))
    named = [("task.baseline", baseline), ("task.model", settings.model)]
    before, after = measure_models(config, named, short_names([name or baseline, settings.model]))
    write_comparison(config, [before, after], time.monotonic() - started, folder, DECISION_PAGE)
    scores = after.evaluated.scores, before.evaluated.scores
    return Outcome(before, after, decide(*scores, settings.objective, settings.bounds, config.evaluation))


def write_decision(outcome: Outcome, task: str, folder: Path, version: int | None = None) -> DecisionRecord:
    """Write the decision into the run's folder, and return it."""
    record: DecisionRecord = {
        **outcome.decision,
        "task": task,
        "candidate": outcome.candidate.name,
        "baseline": outcome.baseline.name,
        "version": version,
        "stages": lineage(outcome.candidate.source.path),
    }
    write_json(folder / DECISION, record)
    return record


def lineage(model: Path) -> list[dict[str, Any]]:
    """Return the stages that a model was made by, the first one first: fingerprint, data, seed, settings and inputs.

    A model of a registry was made by the stages of its entry. Empty where no provenance lies beside the model, as for
    one from the hub.
    """
    stages: dict[str, dict[str, Any]] = {}
    for stage in trace(model):
        stages.setdefault(stage["fingerprint"], stage)
    return list(stages.values())


def trace(model: Path) -> Iterator[dict[str, Any]]:
    """Yield the stages behind a model, inputs before what was made of them."""
    place = model.parent
    if entry := entry_of(model):
        yield from entry["facts"].get("stages", [])
        return
    if model.name != "model" or not (place / PROVENANCE).exists():
        return
    facts = read_provenance(place)
    for source in facts["inputs"].values():
        yield from trace(Path(source["path"]))
    inputs = {need: source["fingerprint"] for need, source in facts["inputs"].items()}
    kept = {name: facts[name] for name in ("stage", "fingerprint", "data", "seed", "alignlab", "git")}  # type: ignore[literal-required]
    yield {**kept, "inputs": inputs, "settings": settings_of(facts), "feedback_from": facts.get("feedback_from", "")}


def settings_of(facts: Provenance) -> dict[str, Any]:
    """Return the settings of a stage's method, from its provenance."""
    settings, stage = facts["config"], facts["stage"]
    return dict(settings["method"] if settings["method"]["name"] == stage else settings["stages"].get(stage, {}))
