"""Measure one model without training: `task=evaluate task.model=<folder>`."""

import time
from pathlib import Path

from alignlab.config.schema import Config
from alignlab.errors import mistake
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

STAGE = "evaluate"  # the folder of the results


def run(config: Config, folder: Path) -> None:
    """Measure `task.model` beside the base model and report; the last line printed is the report's path."""
    from alignlab.evaluation import evaluate, measurements
    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.subjects import LanguageModel, code_hash
    from alignlab.models import references
    from alignlab.pipeline import plan as planning
    from alignlab.reports.run_report import table, write_report
    from alignlab.reports.written import try_to_write
    from alignlab.runtime.tracking import open_tracker

    if config.task.model is None:
        raise mistake("task.model", "no value was given", "add task.model=<folder>")
    prepare_data(config)
    config = locate_models(config)
    write_text(folder / CONFIG, repeatable(config))
    started, place = time.monotonic(), folder / STAGE
    model = references.model_source(config, "task.model", str(config.task.model))
    base = planning.base_model(config)
    named = config.evaluation.reward_model
    scorer = references.scorer_source(config, "evaluation.reward_model", named) if named else None
    prepare_base(config)
    place.mkdir(parents=True, exist_ok=True)
    track = open_tracker(config, STAGE, folder)
    try:
        subjects = [LanguageModel(source.path, config.hardware) for source in (base, model)]
        before, now = (evaluate(Context(config, subject, scorer and scorer.path)) for subject in subjects)
        rows = measurements(now.scores, before.scores, before.scores, config.evaluation)
        write_evaluated(place, before, before, now, track, config.evaluation.samples)
        track.summary({row["name"]: row["value"] for row in rows})
    finally:
        track.close()
    seconds = round(time.monotonic() - started, 1)
    inputs = {"model": model, "base": base} | ({"reward_model": scorer} if scorer else {})
    write_json(place / PROVENANCE, record(config, STAGE, subjects[1].fingerprint, inputs, code_hash(), seconds))
    result: Result = {
        "stage": STAGE,
        "seed": config.seed,
        "measurements": rows,
        "seconds": seconds,
        "model": str(model.path),
        "report": str(folder / REPORT),
    }
    write_result(result, place, folder)
    write_plan(folder, [{"stage": STAGE, "action": "ran"}])
    point_latest(folder)
    print(table(folder))
    for path in try_to_write("the report", lambda: write_report(folder)):
        print(path)
