"""The folder of a run: the names of its files, the record that each file holds, and the link to the latest run.

A run holds one folder per stage. `alignlab.runtime.run_files` names the files that a stage's training writes; the
others are named here. Code that reads a run goes through this module.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NotRequired, TypedDict

from alignlab.chat import Turn
from alignlab.config.schema import Config
from alignlab.config.yaml_files import read_yaml
from alignlab.errors import failure
from alignlab.runtime import files
from alignlab.runtime.files import read_lines, write_text
from alignlab.runtime.run_files import (
    BEST_OF_N,
    GATES,
    LABELS,
    METRICS,
    PRECISION,
    RESULT,
    REVISIONS,
    ROLLOUT_TOKENS,
    ROW_COUNTS,
    PrecisionRecord,
    TriggeredGate,
)

if TYPE_CHECKING:
    from alignlab.evaluation.scores import Measurement

# Of a run.
CONFIG = "config.yaml"  # the bound config, which repeats the run
PLAN = "plan.json"  # one `PlannedStage` per stage
PLAN_TEXT = "plan.txt"  # the plan as it is printed before the run
REPORT = "report.html"
CONTAMINATION = "contamination.json"  # one `alignlab.data.contamination.Contamination` per held-out split
# Of a stage.
SAMPLES = "samples.jsonl"  # one `SampleRecord` per held-out prompt
RECORDS = "records.jsonl"  # one `RecordLine` per record of the stage's measurements
BASE_RECORDS = "base_records.jsonl"  # those of the model that the chain started from
PROVENANCE = "provenance.json"  # a `Provenance`
# Of task=compare, task=gate and task=promote.
COMPARISON_PAGE, DECISION_PAGE = "comparison.html", "decision.html"
FLIPPED = "flipped.jsonl"  # of a model: one `alignlab.pipeline.compared_models.Flipped` per changed record
DECISION = "decision.json"  # an `alignlab.evaluation.acceptance.Decision`
# Of task=chat.
CONVERSATIONS = "conversations.jsonl"  # one conversation per model and line, as `messages`
# Of task=prepare and of task=preferences.
DATA_CARD, DATA_CARD_PAGE = "card.json", "card.html"
PREFERENCES_PAGE, LABELING_PAGE, LABELING_TABLE = "preferences.html", "labeling.html", "to_fill_in.csv"

# Copied from the cache into a stage.
FROM_TRAINING = (METRICS, PROVENANCE, PRECISION, ROW_COUNTS, GATES, REVISIONS, LABELS, ROLLOUT_TOKENS)
DAY = re.compile(r"\d{4}-\d\d-\d\d")  # the name of the folder that holds a day's runs


class PlannedStage(TypedDict):
    """A stage of a run: trained, found in the cache, or stopped by an error, which `why` holds."""

    stage: str
    action: Literal["ran", "reused", "stopped"]
    why: NotRequired[str]


class Result(TypedDict):
    """What a stage ended with: its measurements, seconds of training, and the paths of its model and report.

    `precision` holds the dtypes that were measured during training; it is absent where nothing was trained.
    """

    stage: str
    seed: int
    measurements: "list[Measurement]"
    seconds: float
    model: str
    report: str
    precision: NotRequired[PrecisionRecord]


class CompletionRecord(TypedDict):
    """A completion, whether it ended by itself, and its length in tokens."""

    completion: str
    finished: bool
    tokens: int


class SampleRecord(TypedDict):
    """A held-out prompt with three models' completions, and the scores of the stage's own completion (`after`).

    `before` is from the model that the chain started from, `previous` from the model that this stage started from.
    """

    id: str
    kind: str
    prompt: list[Turn]
    before: CompletionRecord
    previous: CompletionRecord
    after: CompletionRecord
    scores: dict[str, float]


class RecordLine(TypedDict):
    """A record of a measurement: an item's or a completion's values by column, and the text that was judged.

    Records of one cluster are not independent.
    """

    measure: str
    id: str
    cluster: str
    kind: str
    values: dict[str, float]
    shown: str


class LoggedStep(NamedTuple):
    """The metrics that were logged at one optimizer step."""

    step: int
    metrics: dict[str, float]


class BestOfN(TypedDict):
    """Mean reward and gold score of the best of n completions with standard errors, and the KL in nats."""

    n: int
    kl: float
    proxy: float
    gold: float
    proxy_error: float
    gold_error: float


class Provenance(TypedDict):
    """Everything that a stage's weights depend on, and what training them took."""

    stage: str
    fingerprint: str
    inputs: dict[str, dict[str, Any]]
    base: str | None
    seed: int
    data: Any
    sources: str
    threads: int
    config: dict[str, Any]
    alignlab: str
    packages: dict[str, str]
    python: str
    platform: str
    processor_count: int | None
    git: dict[str, Any] | None
    seconds: float
    tokens: int | None
    parts: NotRequired[dict[str, Any]]  # of the fingerprint
    feedback_from: NotRequired[str]  # who gave the feedback that the rows hold; empty for other rows


def read_json(path: Path) -> Any:
    """Read a JSON file; raise a failure that names the file where it is missing or broken."""
    try:
        return files.read_json(path)
    except FileNotFoundError as error:
        raise failure(str(path), "is not there", "give the folder of a finished run") from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file."""
    write_text(path, json.dumps(value, indent=1))


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write a JSONL file."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def is_finished(folder: Path) -> bool:
    """Return whether a folder holds a finished run."""
    return (folder / RESULT).exists()


def read_result(folder: Path) -> Result:
    """Read the result of a run, or of a stage."""
    result: Result = read_json(folder / RESULT)
    files.require_fields(folder / RESULT, {"measurements"}, [result])
    files.require_fields(folder / RESULT, {"name"}, result["measurements"])
    return result


def write_result(result: Result, *folders: Path) -> None:
    """Write a result into one or more folders."""
    for folder in folders:
        write_json(folder / RESULT, result)


def read_plan(folder: Path) -> list[PlannedStage]:
    """Read which stages a run has, in their order."""
    plan: list[PlannedStage] = read_json(folder / PLAN)
    files.require_fields(folder / PLAN, {"stage", "action"}, plan)
    return plan


def write_plan(folder: Path, stages: Sequence[PlannedStage]) -> None:
    """Write which stages a run has."""
    write_json(folder / PLAN, stages)


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the config of a run as a tree of plain values; empty where the run has none."""
    file = folder / CONFIG
    return read_yaml(file) if file.exists() else {}


def read_samples(stage: Path) -> list[SampleRecord]:
    """Read the samples of a stage; none where it has none."""
    samples: list[Any] = read_lines(stage / SAMPLES)
    return samples


def read_metrics(stage: Path) -> list[LoggedStep]:
    """Read the curves of a stage; values that were not finite are left out."""
    return [
        LoggedStep(line["step"], {name: value for name, value in line.items() if name != "step" and value is not None})
        for line in read_lines(stage / METRICS)
    ]


def read_gates(stage: Path) -> list[TriggeredGate]:
    """Read the gates that triggered in a stage."""
    gates: list[Any] = read_lines(stage / GATES)
    return gates


def read_row_counts(stage: Path) -> dict[str, int]:
    """Read how many rows a stage was trained on, by author; empty where the stage has not counted them."""
    counts: dict[str, int] = read_json(stage / ROW_COUNTS) if (stage / ROW_COUNTS).exists() else {}
    return counts


def read_precision(stage: Path) -> PrecisionRecord | None:
    """Read the dtypes that were measured while a stage was trained; None where it has not recorded them."""
    record: PrecisionRecord | None = read_json(stage / PRECISION) if (stage / PRECISION).exists() else None
    return record


def read_best_of_n(stage: Path) -> list[BestOfN]:
    """Read the best-of-n curve of a stage; empty where it was not measured."""
    curve: list[BestOfN] = read_json(stage / BEST_OF_N) if (stage / BEST_OF_N).exists() else []
    return curve


def read_provenance(stage: Path) -> Provenance:
    """Read what a stage's weights depend on."""
    provenance: Provenance = read_json(stage / PROVENANCE)
    return provenance


def point_latest(folder: Path) -> None:
    """Let `outputs/latest` point to this run, unless the run is a sweep's or its folder was named by the user."""
    latest = folder.absolute().parent.parent / "latest"
    if not DAY.fullmatch(folder.absolute().parent.name):
        return
    aside = latest.with_name(f".latest.{folder.name}")
    try:
        aside.symlink_to(folder.absolute().relative_to(latest.parent))  # so that `outputs` can be moved
        aside.replace(latest)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise failure(str(latest), f"cannot point to the run ({error.strerror})", "remove it") from error


def new_folder(config: Config) -> Path:
    """Make a new folder for a run, named by its time and what it does, under $ALIGNLAB_OUTPUTS or `outputs/`."""
    root = Path(os.environ.get("ALIGNLAB_OUTPUTS", "outputs"))
    kind = config.method.name if config.task.name == "train" else config.task.name
    now = datetime.now()
    return make_exclusively(root / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}-{kind}")


def make_exclusively(folder: Path) -> Path:
    """Make a folder that no other run has; where it exists, a number is added to its name."""
    numbered, count = folder, 1
    while True:
        try:
            numbered.mkdir(parents=True)
        except FileExistsError:
            count += 1
            numbered = folder.with_name(f"{folder.name}-{count}")
        except OSError as error:
            what = f"cannot be made ({error.strerror})"
            raise failure(str(numbered), what, "set ALIGNLAB_OUTPUTS to a folder that you may write") from error
        else:
            return numbered
