"""Send feedback as OpenTelemetry's event `gen_ai.evaluation.result`, one for each score, over OTLP.

The address and its headers come from OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT. Events cannot
be deleted: a withdrawal is an event with the label `withdrawn`, and `alignlab.feedback.id` says which ones it concerns.
"""

from alignlab.errors import mistake
from alignlab.serving.exporters.scores import Exported, Score, scores

EVENT = "gen_ai.evaluation.result"
SOURCE = "alignlab.serving"


class OpenTelemetryExporter:
    """Sends events to an OpenTelemetry collector, in batches."""

    name = "opentelemetry"

    def __init__(self) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
            from opentelemetry.sdk._logs import LoggerProvider
            from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
        except ModuleNotFoundError as error:
            what = f"{error.name} is not installed"
            raise mistake("task.export_to", what, "run pip install 'alignlab[opentelemetry]'") from error
        self.provider = LoggerProvider()
        self.provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
        self.logger = self.provider.get_logger(SOURCE)

    def send(self, exported: Exported) -> None:
        """Queue an event for each score of a record; of one that was withdrawn, one for each answer."""
        withdrawn = [Score(answer, "feedback", None, "withdrawn", None) for answer in exported.subjects]
        for score in withdrawn if exported.feedback["withdrawn"] else scores(exported):
            self.emit(exported, score)

    def emit(self, exported: Exported, score: Score) -> None:
        """Queue one event."""
        feedback, answer = exported.feedback, exported.answers.get(score.answer, {})
        fields = {
            "gen_ai.evaluation.name": score.name,
            "gen_ai.evaluation.score.value": score.value,
            "gen_ai.evaluation.score.label": score.label,
            "gen_ai.evaluation.explanation": score.text,
            "gen_ai.response.id": score.answer,
            "gen_ai.response.model": answer.get("model"),
            "alignlab.model.version": answer.get("version"),
            "alignlab.feedback.id": feedback["id"],
            "enduser.pseudo.id": feedback["user"],
        }
        self.logger.emit(
            timestamp=int((feedback["withdrawn"] or feedback["updated"]) * 1e9),
            event_name=EVENT,
            attributes={key: value for key, value in fields.items() if value is not None},
        )

    def forget(self, user: str) -> None:
        """Do nothing: events cannot be deleted; the collector's retention applies."""

    def close(self) -> None:
        """Send what is buffered."""
        self.provider.shutdown()
