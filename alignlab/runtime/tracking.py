"""Where a run's numbers go: always a JSONL file, and W&B, TensorBoard or MLflow where the config asks for them.

Metrics are named `group/name` and mean the same in every method: `train/loss`, `reward/margin`, `eval/loss`.
W&B is offline unless told otherwise, and no server holds a start up: a silent one costs a line, and we go on without.
"""

import html
import json
import math
import netrc
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from alignlab.config.schema import Config
from alignlab.errors import failure, mistake
from alignlab.runtime.files import cache_root, no_room
from alignlab.runtime.progress import say
from alignlab.runtime.run_files import METRICS, TABLES

if TYPE_CHECKING:
    import wandb

REACH, START = 1.5, 2.5  # seconds that a server has to answer at all, and W&B's to open a run: under five together


class Tracker(Protocol):
    """What takes a run's numbers."""

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Take the metrics of one step."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Take a table, such as samples."""

    def summary(self, values: dict[str, float]) -> None:
        """Take the figures that a stage ends with."""

    def close(self) -> None:
        """Write what is held back."""


def open_tracker(config: Config, stage: str, folder: Path, metrics: Path | None = None) -> Tracker:
    """Open every tracker that the config names, for one stage of the run in `folder`.

    What the trackers write lies in `<folder>/<stage>`; `metrics` is another place for the JSONL file, which is
    continued where it is there already, as a resumed stage needs it.
    """
    makers: dict[str, Callable[[Config, str, Path], Tracker]] = {
        "wandb": WandbTracker,
        "tensorboard": TensorboardTracker,
        "mlflow": MlflowTracker,
    }
    wanted = [name for name in dict.fromkeys(config.tracking.to) if name != "wandb" or wandb_mode(config) != "disabled"]
    place = folder / stage
    place.mkdir(parents=True, exist_ok=True)
    others = [makers[name](config, stage, place) for name in wanted]
    return Trackers([JsonlTracker(metrics or place / METRICS), *others])


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = trackers

    def log(self, metrics: dict[str, float], step: int) -> None:
        for tracker in self.trackers:
            tracker.log(metrics, step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        for tracker in self.trackers:
            tracker.table(name, columns, rows)

    def summary(self, values: dict[str, float]) -> None:
        for tracker in self.trackers:
            tracker.summary(values)

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.close()


class JsonlTracker:
    """Write one JSON object per step, and beside that file one per table."""

    def __init__(self, metrics: Path) -> None:
        self.metrics = metrics

    def log(self, metrics: dict[str, float], step: int) -> None:
        append(self.metrics, {"step": step, **{name: finite(value) for name, value in metrics.items()}})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        record = {"name": name, "columns": list(columns), "rows": [list(row) for row in rows]}
        append(self.metrics.with_name(TABLES), record)

    def summary(self, values: dict[str, float]) -> None:
        """A stage's `result.json` holds them already."""

    def close(self) -> None:
        """Nothing is held back."""


def append(file: Path, record: dict[str, Any]) -> None:
    """Add a line to a JSONL file."""
    try:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as error:
        if error.errno == 28:
            raise no_room(file) from error
        raise


def finite(value: float) -> float | None:
    """JSON knows no NaN and no infinity: they become null."""
    return value if math.isfinite(value) else None


class WandbTracker:
    """One W&B run a stage; the stages of one run of ours are a group."""

    def __init__(self, config: Config, stage: str, folder: Path) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else W&B reports about itself, offline too
        for purpose in ("DATA", "CACHE"):
            os.environ.setdefault(f"WANDB_{purpose}_DIR", str(cache_root() / "wandb"))
        import wandb

        tracking = config.tracking
        settings = wandb.Settings(init_timeout=START, silent=True, console="off", disable_git=True, save_code=False)
        chosen: dict[str, Any] = {
            "project": tracking.project,
            "entity": tracking.entity,
            "name": f"{tracking.name or folder.parent.name}-{stage}",
            "group": tracking.name or folder.parent.name,
            "job_type": stage,
            "tags": list(tracking.tags),
            "dir": str(folder),
            "config": config.model_dump(mode="json"),
            "settings": settings,
        }
        self.run = online(chosen) if wandb_mode(config) == "online" else wandb.init(mode="offline", **chosen)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.run.log(dict(metrics), step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        self.run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def summary(self, values: dict[str, float]) -> None:
        self.run.summary.update(values)

    def close(self) -> None:
        self.run.finish()


def wandb_mode(config: Config) -> str:
    """offline, online or disabled: the environment's WANDB_MODE, else the config's word."""
    return os.environ.get("WANDB_MODE") or config.tracking.mode


def online(chosen: dict[str, Any]) -> "wandb.Run":
    """Start a run that is sent as it goes; where that cannot be within five seconds, say why and start offline."""
    import wandb

    server = wandb.setup().settings.base_url
    if not has_key(server):
        reason = "no key is there (set WANDB_API_KEY)"
    elif not answers(server, REACH):
        reason = f"{server} does not answer"
    else:
        try:
            return wandb.init(mode="online", **chosen)
        except wandb.errors.Error as error:
            reason = str(error).splitlines()[0]
    say(f"tracking: W&B goes on offline: {reason}; `wandb sync` sends the run later")
    return wandb.init(mode="offline", **chosen)


def has_key(server: str) -> bool:
    """Whether a key for W&B is in the environment or in the netrc file; the key itself is W&B's to read."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(server).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def answers(server: str, seconds: float) -> bool:
    """Whether a server says anything over HTTP in time, be it an error; looking up its name is in that time."""
    heard = threading.Event()

    def ask() -> None:
        try:
            urlopen(server, timeout=seconds).close()
        except OSError as error:
            if not isinstance(error, HTTPError):
                return
        heard.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return heard.is_set()


class TensorboardTracker:
    """Event files in `tensorboard/` in the stage's folder."""

    def __init__(self, config: Config, stage: str, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        self.writer.add_text(name, "\n".join("|" + "|".join(map(cell, line)) + "|" for line in lines))

    def summary(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"summary/{name}", value)

    def close(self) -> None:
        self.writer.close()


def cell(value: Any) -> str:
    """A value as a cell of a Markdown table."""
    return html.escape(str(value)).replace("|", "&#124;").replace("\n", "<br>")


class MlflowTracker:
    """An MLflow run a stage, in the experiment that is named after the project."""

    def __init__(self, config: Config, stage: str, folder: Path) -> None:
        try:
            import mlflow
        except ModuleNotFoundError as error:
            raise mistake("tracking.to", "mlflow is not installed", "run pip install 'alignlab[mlflow]'") from error
        tracking = config.tracking
        artifacts = ready(tracking.mlflow_uri)
        self.client = mlflow.MlflowClient(tracking.mlflow_uri)
        found = self.client.get_experiment_by_name(tracking.project)
        experiment = found.experiment_id if found else self.client.create_experiment(tracking.project, artifacts)
        tags = {"stage": stage, "run": tracking.name or folder.parent.name, **dict.fromkeys(tracking.tags, "")}
        name = f"{tags['run']}-{stage}"
        self.run: str = self.client.create_run(experiment, run_name=name, tags=tags).info.run_id
        for key, value in flat(config.model_dump(mode="json")):
            self.client.log_param(self.run, key, str(value)[:6000])

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.client.log_metric(self.run, name, value, step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        columns_of = {column: [row[i] for row in rows] for i, column in enumerate(columns)}
        self.client.log_table(self.run, columns_of, f"{name}.json")

    def summary(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run, f"summary/{name}", value)

    def close(self) -> None:
        self.client.set_terminated(self.run)


def ready(uri: str | None) -> str | None:
    """Make a local database's folder, or see that a server answers; gives the place of artifacts beside a database."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    if uri and uri.startswith("http") and not answers(uri, REACH):
        raise failure("tracking.mlflow_uri", f"{uri} does not answer", "start the server, or leave mlflow out")
    if not uri or not uri.startswith("sqlite:///"):
        return None
    folder = Path(uri.removeprefix("sqlite:///")).absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "mlflow-artifacts").as_uri()


def flat(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree of settings, by their dotted names."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
