"""Log to MLflow: one MLflow run per stage, in the experiment that is named after the project."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignlab.config.schema import Config
from alignlab.errors import failure, mistake
from alignlab.runtime.tracking import REACH_SECONDS, is_reachable


def open_tracker(config: Config, stage: str, folder: Path) -> "MlflowTracker":
    """Open an MLflow run."""
    return MlflowTracker(config, stage, folder)


class MlflowTracker:
    """An MLflow run."""

    def __init__(self, config: Config, stage: str, folder: Path) -> None:
        try:
            import mlflow
        except ModuleNotFoundError as error:
            raise mistake("tracking.to", "mlflow is not installed", "run pip install 'alignlab[mlflow]'") from error
        tracking = config.tracking
        artifacts = prepare_store(tracking.mlflow_uri)
        self.client = mlflow.MlflowClient(tracking.mlflow_uri)
        experiment = self.client.get_experiment_by_name(tracking.project)
        identity = (
            experiment.experiment_id if experiment else self.client.create_experiment(tracking.project, artifacts)
        )
        tags = {"stage": stage, "run": tracking.name or folder.parent.name, **dict.fromkeys(tracking.tags, "")}
        self.run: str = self.client.create_run(identity, run_name=f"{tags['run']}-{stage}", tags=tags).info.run_id
        for key, value in leaves(config.model_dump(mode="json")):
            self.client.log_param(self.run, key, str(value)[:6000])

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.client.log_metric(self.run, name, value, step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        by_column = {column: [row[place] for row in rows] for place, column in enumerate(columns)}
        self.client.log_table(self.run, by_column, f"{name}.json")

    def summary(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run, f"summary/{name}", value)

    def close(self) -> None:
        self.client.set_terminated(self.run)


def prepare_store(uri: str | None) -> str | None:
    """Create a local database's folder, or check that a server answers; return the artifacts' URI of a database."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    if uri and uri.startswith("http") and not is_reachable(uri, REACH_SECONDS):
        raise failure("tracking.mlflow_uri", f"{uri} does not answer", "start the server, or leave mlflow out")
    if not uri or not uri.startswith("sqlite:///"):
        return None
    folder = Path(uri.removeprefix("sqlite:///")).absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "mlflow-artifacts").as_uri()


def leaves(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a tree of settings, by their dotted names."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
