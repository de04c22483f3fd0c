"""What the page of one run shows: its measures, curves, gates and completions, as far as its files can be read."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from alignlab.dashboard.runs import MOST, RUN_FILES, Run, is_read, read_object, read_plan, size_of
from alignlab.errors import Explained
from alignlab.pipeline.run_folder import SAMPLES, Result, read_gates, read_samples
from alignlab.reports.headline import headline
from alignlab.reports.run_report import StageCharts, draw
from alignlab.reports.run_results import Stage, side_by_side
from alignlab.runtime.run_files import GATES, METRICS, RESULT

PAGE_SIZE = 12  # completions
NO_ROWS: Any = ()
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, Explained)

T = TypeVar("T")


class Shown(NamedTuple):
    """The completions that match a search, a page of them, and what can be chosen from."""

    rows: list[dict[str, Any]]
    matching: int
    page: int
    pages: int
    kinds: list[str]
    measures: list[str]


def readable(otherwise: T, read: Callable[..., T], *arguments: Any) -> T:
    """Return what is read; `otherwise` where a file is half-written, deleted or of another version."""
    try:
        return read(*arguments)
    except UNREADABLE:
        return otherwise


def overview(run: Run) -> dict[str, Any]:
    """Return the facts of a run's page."""
    stages = finished_stages(run)
    stopped = [entry for entry in read_plan(run.folder) if entry.get("action") == "stopped"]
    return {
        "headline": readable("", headline, stages) if stages else "",
        "tables": readable(NO_ROWS, side_by_side, stages),
        "stopped": stopped[0] if stopped else None,
        "gates": [
            gate for stage in stages_with(run, GATES) for gate in readable(NO_ROWS, read_gates, run.folder / stage)
        ],
        "charts": charts(run),
        "with_samples": with_samples(run),
        "too_large": too_large(run),
        "most": f"{MOST // 1_000_000} MB",
    }


def too_large(run: Run) -> list[str]:
    """Return the files of a run that are not read, since they have more than `MOST` bytes."""
    of_stages = (f"{stage}/{name}" for stage in run.stages for name in (METRICS, RESULT, SAMPLES, GATES))
    return [name for name in (*RUN_FILES, *of_stages) if (size_of(run.folder / name) or 0) > MOST]


def finished_stages(run: Run) -> list[Stage]:
    """Return the finished stages of a run, as far as they can be read."""
    actions = {entry["stage"]: str(entry.get("action", "")) for entry in read_plan(run.folder)}
    stages = []
    for name in run.stages:
        result: Any = read_object(run.folder / name / RESULT)
        if isinstance(result.get("measurements"), list):
            read: Result = result
            stages.append(Stage(name, actions.get(name, ""), read))
    return stages


def charts(run: Run) -> list[StageCharts]:
    """Return the curves of each stage, the latest stage first."""
    drawn = [readable(StageCharts(stage, [], []), draw, run.folder, stage) for stage in stages_with(run, METRICS)]
    return [stage for stage in reversed(drawn) if stage.first or stage.rest]


def with_samples(run: Run) -> list[str]:
    """Return the stages that have completions."""
    return stages_with(run, SAMPLES)


def stages_with(run: Run, name: str) -> list[str]:
    """Return the stages that have a file of a name that is read."""
    return [stage for stage in run.stages if is_read(run.folder / stage / name)]


def samples_of(run: Run, stage: str) -> list[dict[str, Any]]:
    """Return the completions of a stage; rows of another form are left out."""
    rows: Sequence[Any] = readable(NO_ROWS, read_samples, run.folder / stage) if stage in with_samples(run) else []
    return [row for row in rows if is_sample(row)]


def is_sample(row: Any) -> bool:
    """Return whether a row has the fields of a sample."""
    models = [row.get(name) for name in ("before", "previous", "after")]
    texts = [model.get("completion") for model in models if isinstance(model, dict)]
    prompt, scores = row.get("prompt"), row.get("scores")
    is_prompt = isinstance(prompt, list) and all(isinstance(turn, dict) and "content" in turn for turn in prompt)
    return is_prompt and isinstance(scores, dict) and len(texts) == 3 and all(isinstance(text, str) for text in texts)


def search(rows: list[dict[str, Any]], words: str, kind: str, measure: str, page: int) -> Shown:
    """Return a page of the completions that hold the words and are of a kind, the lowest value of a measure first."""
    kinds = list(dict.fromkeys(str(row.get("kind") or "") for row in rows))
    measures = list(dict.fromkeys(name for row in rows for name in row["scores"] if name.count("/") == 1))
    wanted = words.lower()
    matching = [row for row in rows if wanted in text_of(row) and kind in ("", row.get("kind"))]
    if measure:
        scored = [row for row in matching if isinstance(row["scores"].get(measure), int | float)]
        matching = sorted(scored, key=lambda row: float(row["scores"][measure]))
    pages = max(1, -(-len(matching) // PAGE_SIZE))
    page = min(max(1, page), pages)
    rows = matching[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    return Shown(rows, len(matching), page, pages, [name for name in kinds if name], measures)


def text_of(row: dict[str, Any]) -> str:
    """Return all texts of a row in lower case."""
    turns = [str(turn["content"]) for turn in row["prompt"]]
    return "\n".join([*turns, *(row[name]["completion"] for name in ("before", "previous", "after"))]).lower()
