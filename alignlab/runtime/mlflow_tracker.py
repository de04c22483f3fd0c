"""Log to MLflow: one MLflow run per stage, in the experiment that is named after the project."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignlab.config.schema import Config
from alignlab.errors import failure, mistake
from alignlab.runtime.tracking import REACH_SECONDS, InputModel, StageEnd, is_reachable, run_names


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
        names = run_names(config, folder.parent)
        tags = {"stage": stage, "run": names.run, "group": names.group, **dict.fromkeys(tracking.tags, "")}
        mlflow.set_tracking_uri(tracking.mlflow_uri)  # where traces go
        self.experiment, self.stage, self.upload = identity, stage, tracking.upload
        self.run: str = self.client.create_run(identity, run_name=f"{tags['run']}-{stage}", tags=tags).info.run_id
        for key, value in leaves(config.model_dump(mode="json")):
            self.client.log_param(self.run, key, str(value)[:6000])

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.client.log_metric(self.run, name, value, step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        by_column = {column: [row[place] for row in rows] for place, column in enumerate(columns)}
        self.client.log_table(self.run, by_column, f"{name}.json")
        if {"id", "prompt", "after"} <= set(columns):
            for row in rows:
                self.trace(name, dict(zip(columns, row, strict=True)))

    def trace(self, name: str, row: dict[str, Any]) -> None:
        """Log a completion as a trace: the prompt goes in, the completion comes out, the scores are attributes."""
        shown = {"id", "prompt", "after"}
        scores = {key: value for key, value in row.items() if key not in shown and value is not None}
        span = self.client.start_trace(
            name, inputs={"prompt": row["prompt"]}, attributes=scores, tags={"item": str(row["id"])},
            experiment_id=self.experiment, run_id=self.run,
        )  # fmt: skip
        self.client.end_trace(span.trace_id, outputs=row["after"])

    def summary(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run, f"summary/{name}", value)

    def end(self, ended: StageEnd) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, LoggedModelOutput

        if ended.gates:
            self.client.log_dict(self.run, {"gates": ended.gates}, "gates.json")
            self.client.set_tag(self.run, "gates", ", ".join(gate["gate"] for gate in ended.gates))
        if ended.model is None:
            return
        rows = Dataset("data", ended.data[:36], "alignlab", ended.data)
        models = [LoggedModelInput(model) for source in ended.inputs.values() for model in self.logged(source)]
        tagged = DatasetInput(rows, [InputTag("mlflow.data.context", "training")])
        self.client.log_inputs(self.run, datasets=[tagged], models=models)
        made = self.client.create_logged_model(
            self.experiment, f"model-{self.stage}", self.run, tags={"fingerprint": ended.fingerprint},
            params={need: source.fingerprint for need, source in ended.inputs.items()},
        )  # fmt: skip
        if self.upload:
            self.client.log_model_artifacts(made.model_id, str(ended.model))
        self.client.finalize_logged_model(made.model_id, "READY")
        self.client.log_outputs(self.run, [LoggedModelOutput(made.model_id, step=0)])
        for name, picture in ended.pictures().items():
            self.client.log_image(self.run, picture, f"{name}.png")

    def logged(self, source: InputModel) -> list[str]:
        """Return the id of the model of an earlier stage, if that was logged here."""
        by_fingerprint = f"tags.fingerprint = '{source.fingerprint}'"
        found = self.client.search_logged_models([self.experiment], by_fingerprint, max_results=1)
        return [model.model_id for model in found]

    def close(self) -> None:
        import mlflow

        mlflow.flush_trace_async_logging()
        self.client.set_terminated(self.run)


def prepare_store(uri: str | None) -> str | None:
    """Create a local database's folder, or check that a server answers; return the artifacts' URI of a database."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
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
