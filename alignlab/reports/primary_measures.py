"""Names of primary measures (`evaluation.primary`) that no measure has.

A name that nothing can measure is a mistake before anything is trained. Some measures know their names only when they
have measured, such as those of lm-eval's tasks: a report then says which of the names were not among them.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from alignlab.config import extensions
from alignlab.config.schema import Config
from alignlab.config.suggestions import close_to
from alignlab.errors import Fault, Mistake
from alignlab.pipeline.run_folder import read_settings
from alignlab.reports.measure_names import BY_KIND, BY_ROUND, CLEAN, LABELS

if TYPE_CHECKING:
    from alignlab.reports.run_results import Stage  # imports NumPy, which a mistake must not wait for


def check_primary(config: Config) -> None:
    """Raise a `Mistake` where a primary measure has the name of none; loads the modules of unusual names alone."""
    wrong = [name for name in config.evaluation.primary if not may_be_measured(name, config)]
    if wrong:
        hint = "its names are in docs/evaluation.md and in result.json"
        raise Mistake(
            [Fault("evaluation.primary", f"no measure is called {name}", suggestion(name) or hint) for name in wrong]
        )


def may_be_measured(name: str, config: Config) -> bool:
    """Return whether a measure may have a name: a built-in one, or one whose names are known after measuring."""
    if is_built_in(name):
        return True
    own = [one for one in config.measure if not extensions.name_of("measures", one).startswith("alignlab.")]
    group = name.partition("/")[0]
    near = [group] if extensions.module_name("measures", group) else []
    return any(declares(extensions.load("measures", one), name.removesuffix(CLEAN)) for one in [*near, *own])


def is_built_in(name: str) -> bool:
    """Return whether a name is that of a built-in measure."""
    plain = name.removesuffix(CLEAN)
    start, slash, _ = plain.rpartition("/")
    return plain in LABELS or start + slash in BY_KIND or start + slash in BY_ROUND


def declares(module: ModuleType, name: str) -> bool:
    """Return whether a measurement's file may give a metric that name."""
    return callable(module.METRICS) or any(
        name == metric.name or (metric.by_kind and name.startswith(f"{metric.name}/")) for metric in module.METRICS
    )


def unmeasured(folder: Path, stages: "Sequence[Stage]") -> list[str]:
    """Return a sentence on the primary names that no measure of a run had; none where all are known."""
    primary = read_settings(folder).get("evaluation", {}).get("primary", [])
    measured = {name for stage in stages for name in stage.measurements}
    wrong = [name for name in primary if name not in measured and not is_built_in(name)]
    hints = "; ".join(filter(None, map(suggestion, wrong)))
    if not wrong or not measured:
        return []
    return [f"evaluation.primary names {', '.join(wrong)}, which was not measured{f' ({hints})' if hints else ''}"]


def suggestion(name: str) -> str:
    """Return the built-in name that a misspelt one may mean, as a question; empty where none is close."""
    return close_to(name, list(LABELS))
