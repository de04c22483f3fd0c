"""The result of a run for Python programs: a data frame of measurements, and the paths of models and report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.pipeline.run_folder import PLAN, is_finished, read_plan, read_result

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Result:
    """A finished run.

    `models` holds the folder of each stage's model, by the stage's name, in the order in which the stages ran; `report`
    is the page to read, None where the task writes none.
    """

    folder: Path
    models: dict[str, Path] = field(default_factory=dict)
    report: Path | None = None
    rows: tuple[dict[str, Any], ...] = ()

    @property
    def measurements(self) -> "DataFrame":
        """Return one row per measurement of a stage: stage, name, value, low, high (the 95% interval), n, better.

        `change`, `change_low` and `change_high` are the paired difference to the model that the stage started from, and
        `since_base`, `since_base_low` and `since_base_high` to the base model, where there is one.
        """
        from pandas import DataFrame

        return DataFrame(list(self.rows))


def result_of(folder: Path) -> Result:
    """Read the result of a task from a run's folder."""
    stages = [entry["stage"] for entry in read_plan(folder)] if (folder / PLAN).exists() else []
    results = {stage: read_result(folder / stage) for stage in stages if is_finished(folder / stage)}
    models = {stage: Path(result["model"]) for stage, result in results.items()}
    rows = [flat(stage, row) for stage, result in results.items() for row in result["measurements"]]
    report = Path(read_result(folder)["report"]) if is_finished(folder) else None
    return Result(folder, models, report, tuple(rows))


def flat(stage: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a measurement as one flat row."""
    differences = {"change": row["difference"].get("previous"), "since_base": row["difference"].get("before")}
    ends = {"": "value", "_low": "low", "_high": "high"}
    changes = {
        f"{name}{suffix}": difference[end]
        for name, difference in differences.items()
        if difference
        for suffix, end in ends.items()
    }
    return {"stage": stage, **{key: row.get(key) for key in ("name", "value", "low", "high", "n", "better")}, **changes}
