"""Measure one model without training: `task=evaluate task.model=<folder>`."""

from pathlib import Path

from alignlab.config.schema import Config
from alignlab.errors import mistake
from alignlab.pipeline.prepare_inputs import locate_models, prepare_base, prepare_data
from alignlab.pipeline.run_folder import REPORT, Result, point_latest, write_plan, write_result


def run(config: Config, folder: Path) -> None:
    """Measure `task.model` beside the base model and report; the last line printed is the report's path."""
    from alignlab.evaluation import evaluate, measurements
    from alignlab.models import references
    from alignlab.pipeline import plan as planning
    from alignlab.reports.run_report import table, write_report
    from alignlab.reports.written import try_to_write

    if config.task.model is None:
        raise mistake("task.model", "no value was given", "add task.model=<folder>")
    prepare_data(config)
    config = locate_models(config)
    model = references.model_source(config, "task.model", str(config.task.model))
    base = planning.base_model(config)
    reward = config.evaluation.reward_model
    scorer = references.scorer_source(config, "evaluation.reward_model", reward).path if reward else None
    prepare_base(config)
    before, now = (evaluate(path, config, scorer, config.seed) for path in (base.path, model.path))
    result: Result = {
        "stage": "evaluate",
        "seed": config.seed,
        "measurements": measurements(now.scores, before.scores, before.scores, config.evaluation),
        "seconds": 0.0,
        "model": str(model.path),
        "report": str(folder / REPORT),
    }
    write_result(result, folder / "evaluate", folder)
    write_plan(folder, [{"stage": "evaluate", "action": "ran"}])
    point_latest(folder)
    print(table(folder))
    for path in try_to_write("the report", lambda: write_report(folder)):
        print(path)
