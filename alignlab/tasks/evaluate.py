"""Measure one model without training: `task=evaluate task.model=<folder>`."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from alignlab.config.schema import Config
from alignlab.config.task import Evaluate
from alignlab.pipeline.measure_stage import write_evaluated
from alignlab.pipeline.prepare_inputs import locate_models, prepare_base, prepare_data
from alignlab.pipeline.provenance import record, repeatable
from alignlab.pipeline.run_folder import (
    CONFIG,
    PROVENANCE,
    REPORT,
    Result,
    point_latest,
    write_json,
    write_plan,
    write_result,
)
from alignlab.runtime.files import write_text

if TYPE_CHECKING:
    from alignlab.evaluation.replies import Subject
    from alignlab.evaluation.scores import Measurement
    from alignlab.models.references import Source

STAGE = "evaluate"  # the folder of the results


def run(config: Config, folder: Path) -> None:
    """Measure `task.model` beside the base model, or a server alone; the last line printed is the report's path."""
    from alignlab.evaluation.subjects import code_hash
    from alignlab.models import references
    from alignlab.reports.run_summary import summarise

    prepare_data(config)
    config = locate_models(config)
    write_text(folder / CONFIG, repeatable(config))
    started, place = time.monotonic(), folder / STAGE
    measured = find_models(config)
    named = config.evaluation.reward_model
    scorer = references.scorer_source(config, "evaluation.reward_model", named) if named else None
    place.mkdir(parents=True, exist_ok=True)
    rows = measure(config, measured.subjects, scorer and scorer.path, folder)
    seconds = round(time.monotonic() - started, 1)
    inputs = measured.sources | ({"reward_model": scorer} if scorer else {})
    facts = record(config, STAGE, measured.subjects[-1].fingerprint, inputs, code_hash(), seconds)
    write_json(place / PROVENANCE, facts)
    result: Result = {
        "stage": STAGE,
        "seed": config.seed,
        "measurements": rows,
        "seconds": seconds,
        "model": measured.name,
        "report": str(folder / REPORT),
    }
    write_result(result, place, folder)
    write_plan(folder, [{"stage": STAGE, "action": "ran"}])
    point_latest(folder)
    for line in summarise(folder):
        print(line)


def measure(
    config: Config, subjects: "Sequence[Subject]", reward_model: Path | None, folder: Path
) -> "list[Measurement]":
    """Return the measurements of the last subject beside the first, if there are two; write records and samples."""
    from alignlab.evaluation import evaluate, measurements
    from alignlab.evaluation.controls import add_controls
    from alignlab.evaluation.protocol import Context
    from alignlab.runtime.tracking import open_tracker

    track = open_tracker(config, STAGE, folder)
    try:
        contexts = [Context(config, subject, reward_model) for subject in subjects]
        evaluated = [evaluate(context) for context in contexts]
        before, now = evaluated[0], evaluated[-1]
        earlier = before.scores if evaluated[1:] else None
        rows = measurements(now.scores, earlier, earlier, config.evaluation)
        add_controls(rows, contexts[-1])
        write_evaluated(folder / STAGE, before, before, now, track, config.evaluation.samples)
        track.summary({row["name"]: row["value"] for row in rows})
    finally:
        track.close()
    return rows


class Measured(NamedTuple):
    """What is measured: the base model, if there is one, and the model; their sources, and the model's name."""

    subjects: "list[Subject]"
    sources: "dict[str, Source]"
    name: str


def find_models(config: Config) -> Measured:
    """Return the server of `task.server`, or the base model and the model of `task.model`."""
    from alignlab.evaluation.server_subject import ServerModel
    from alignlab.evaluation.subjects import LanguageModel
    from alignlab.models import references
    from alignlab.pipeline import plan as planning

    assert isinstance(config.task, Evaluate)
    server = config.task.server
    if server.url:
        return Measured([ServerModel(server)], {}, f"{server.url} {server.model}")
    model = references.model_source(config, "task.model", str(config.task.model))
    base = planning.base_model(config)
    prepare_base(config)
    subjects: list[Subject] = [LanguageModel(source.path, config.hardware) for source in (base, model)]
    return Measured(subjects, {"model": model, "base": base}, str(model.path))
