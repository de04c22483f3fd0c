"""Send feedback to MLflow: a trace for each answer that got feedback, and its scores as assessments of the trace.

The server and the experiment are those of the tracking settings. A correction is an expectation, the rest is feedback.
A later record of the same feedback replaces the assessments of the earlier one, and a withdrawal deletes them.
"""

from typing import TYPE_CHECKING, Any

from alignlab.config.credentials import without_keys
from alignlab.config.tracking import Tracking
from alignlab.errors import failure, mistake
from alignlab.runtime.mlflow_tracker import prepare_store
from alignlab.serving.exporters.scores import Exported, Score, scores
from alignlab.serving.store.records import Row, hash_of

if TYPE_CHECKING:
    from mlflow.entities import Trace

NANOSECONDS = 1e9
REMEDY = (
    "check the address, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or leave mlflow out of task.export_to"
)


class MlflowExporter:
    """Sends feedback to the experiment that is named after the project."""

    name = "mlflow"

    def __init__(self, tracking: Tracking) -> None:
        try:
            import mlflow
        except ModuleNotFoundError as error:
            raise mistake("task.export_to", "mlflow is not installed", "run pip install 'alignlab[mlflow]'") from error
        artifacts = prepare_store(tracking.mlflow_uri)
        mlflow.set_tracking_uri(tracking.mlflow_uri)  # where traces go
        try:
            self.client = mlflow.MlflowClient(tracking.mlflow_uri)
            experiment = self.client.get_experiment_by_name(tracking.project)
            self.experiment: str = (
                experiment.experiment_id if experiment else self.client.create_experiment(tracking.project, artifacts)
            )
        except mlflow.MlflowException as error:
            what = f"mlflow refuses ({' '.join(without_keys(str(error)).split())[:200]})"
            raise failure("tracking.mlflow_uri", what, REMEDY) from error

    def send(self, exported: Exported) -> None:
        """Replace the assessments of a record of feedback by those that it has now."""
        given = list(scores(exported))
        for answer in exported.subjects:
            trace = self.trace(answer)
            if trace is None and given:
                trace = self.add_trace(answer, exported.answers.get(answer, {}))
            if trace is not None:
                self.delete_assessments(trace, exported.feedback["id"])
                for score in given:
                    if score.answer == answer:
                        self.assess(trace.info.trace_id, exported.feedback, score)

    def trace(self, answer: str) -> "Trace | None":
        """Return the trace of an answer, if there is one."""
        traces = self.client.search_traces(
            [self.experiment], f"tags.answer = '{answer}'", max_results=1, include_spans=False
        )
        return traces[0] if traces else None

    def add_trace(self, answer: str, row: Row) -> "Trace":
        """Log an answer as a trace, with its texts where they are stored."""
        import mlflow

        start = int(row["created"] * NANOSECONDS) if row else None
        span = self.client.start_trace(
            "answer", inputs={"messages": row.get("prompt")}, experiment_id=self.experiment, start_time_ns=start,
            attributes={name: row[name] for name in ("model", "version") if name in row},
            tags={"answer": answer, "user": row.get("user", ""), "user_hash": hash_of(row.get("user"))},
        )  # fmt: skip
        self.client.end_trace(span.trace_id, outputs=row.get("completion"), end_time_ns=start)
        mlflow.flush_trace_async_logging()
        return self.client.get_trace(span.trace_id, display=False)

    def delete_assessments(self, trace: "Trace", feedback: str) -> None:
        """Delete what an earlier record of the same feedback added to a trace."""
        from mlflow.tracing.assessment import delete_assessment

        for assessment in trace.info.assessments:
            if (assessment.metadata or {}).get("feedback") == feedback:
                delete_assessment(trace.info.trace_id, assessment.assessment_id)

    def assess(self, trace: str, feedback: Row, score: Score) -> None:
        """Log one score."""
        import mlflow
        from mlflow.entities import AssessmentSource

        common: dict[str, Any] = {
            "trace_id": trace,
            "name": score.name,
            "source": AssessmentSource("HUMAN", feedback["user"]),
            "metadata": {"feedback": feedback["id"]},
        }
        if score.name == "correction":
            mlflow.log_expectation(value=score.text, **common)
        else:
            value = {"thumb": score.value == 1, "harm": score.label, "comment": score.text}.get(score.name, score.value)
            mlflow.log_feedback(value=value, rationale=score.text, **common)

    def forget(self, user: str) -> None:
        """Delete the traces of a user's answers; a hash needs no quoting."""
        mine = f"tags.user_hash = '{hash_of(user)}'"
        while traces := self.client.search_traces([self.experiment], mine, include_spans=False):
            self.client.delete_traces(self.experiment, trace_ids=[trace.info.trace_id for trace in traces])

    def close(self) -> None:
        """Do nothing: each record is sent at once."""
