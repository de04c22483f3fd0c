"""Measure one model as it stands: `task=evaluate task.model=<folder>`."""

import json
from collections.abc import Mapping
from pathlib import Path

from alignlab.config import Config
from alignlab.errors import mistake
from alignlab.files import write_text
from alignlab.tasks.train import locate_models, point_latest, prepare_base, prepare_data


def run(config: Config, folder: Path, choices: Mapping[str, str]) -> None:
    """Measure `task.model` beside the base model and report; the last line printed is the report's path."""
    from alignlab import named
    from alignlab import plan as planning
    from alignlab.evaluation import evaluate, measurements
    from alignlab.evaluation.report import table, write_report

    if config.task.model is None:
        raise mistake("task.model", "no value was given", "add task.model=<folder>")
    prepare_data(config)
    config = locate_models(config)
    model = named.given_model(config, "task.model", str(config.task.model))
    base = planning.base_model(config)
    reward = config.evaluation.reward_model
    scorer = named.given_reward(config, "evaluation.reward_model", reward).path if reward else None
    prepare_base(config)
    before, now = (evaluate(path, config, scorer, config.seed) for path in (base.path, model.path))
    result = {
        "stage": "evaluate",
        "seed": config.seed,
        "measurements": measurements(now.scores, before.scores, before.scores, config.evaluation),
        "seconds": 0.0,
        "model": str(model.path),
        "report": str(folder / "report.html"),
    }
    for place in (folder, folder / "evaluate"):
        write_text(place / "result.json", json.dumps(result, indent=1))
    write_text(folder / "plan.json", json.dumps([{"stage": "evaluate", "action": "ran"}]))
    report = write_report(folder)
    point_latest(folder)
    print(table(folder))
    print(report)
