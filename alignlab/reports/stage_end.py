"""What trackers get at the end of a stage: its model, what it was made from, its gates and its pictures."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from alignlab.pipeline.run_folder import read_gates, read_provenance
from alignlab.runtime.tracking import InputModel, Pictures, StageEnd


def finished(folder: Path) -> StageEnd:
    """Return the end of the stage in a folder of a run; its weights are in `model` or `adapter`."""
    provenance = read_provenance(folder)
    inputs = {
        need: InputModel(source["name"], Path(source["path"]), source["fingerprint"])
        for need, source in provenance["inputs"].items()
    }
    models = [folder / name for name in ("adapter", "model") if (folder / name).exists()]
    data = str(provenance["data"])
    return StageEnd(next(iter(models), None), provenance["fingerprint"], inputs, data, read_gates(folder), draw(folder))


def stopped(partial: Path) -> StageEnd:
    """Return the end of a stage that an error stopped; `partial` holds the records of its training."""
    return StageEnd(None, "", {}, "", read_gates(partial), dict)


def draw(folder: Path) -> Callable[[], Pictures]:
    """Return a function that draws the stage's pictures once."""

    @cache
    def pictures() -> Pictures:
        from alignlab.reports.figures import figures

        return figures(folder)

    return pictures
