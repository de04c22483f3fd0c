"""Feedback that is sent on: OpenTelemetry's events to a real receiver, MLflow's assessments to a real database."""

import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest
from command import config
from served import MESSAGES, bearer, served, tiny_engine

from alignlab.errors import Failure
from alignlab.serving.exporters.exports import Exports
from alignlab.serving.exporters.mlflow_exporter import MlflowExporter
from alignlab.serving.exporters.opentelemetry_exporter import OpenTelemetryExporter
from alignlab.serving.exporters.scores import Exported, scores
from alignlab.serving.metrics import Metrics


def of(kind, value, subjects=("a", "b"), withdrawn=None):
    row = {"id": "fb", "kind": kind, "subject": subjects[0], "user": "ann", "withdrawn": withdrawn, "value": value}
    return [score[:4] for score in scores(Exported(row, subjects, {}))]


def test_each_thing_that_was_said_is_a_score():
    value = {"thumb": "down", "rating": 2, "categories": ["hate", "privacy"], "correction": "mix", "comment": "no"}
    assert of("answer", value, ("a",)) == [
        ("a", "thumb", 0.0, "down"),
        ("a", "rating", 2.0, None),
        ("a", "harm", 1.0, "hate"),
        ("a", "harm", 1.0, "privacy"),
        ("a", "correction", None, "corrected"),
    ]
    assert of("answer", {"comment": "no"}, ("a",)) == [("a", "comment", None, None)]
    assert of("compare", {"choice": "b"}) == [("a", "choice", 0.0, "rejected"), ("b", "choice", 1.0, "chosen")]
    assert of("compare", {"choice": "tie"}) == [("a", "choice", 0.5, "tie"), ("b", "choice", 0.5, "tie")]
    assert of("label", {"ranks": {"a": 2, "b": 1}}) == [("a", "rank", 2.0, None), ("b", "rank", 1.0, None)]
    assert of("answer", {}, ("a",), withdrawn=1.0) == []


def give(client, user="ann", **value):
    answer = client.post("/predict", json={"messages": MESSAGES}, headers=bearer(client, user)).json()
    body = {"id": answer["id"], **value}
    return answer, client.post("/feedback", json=body, headers=bearer(client, user)).json()


def test_opentelemetry_gets_an_event_for_each_score_and_each_withdrawal(tmp_path, monkeypatch):
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    received = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, ExportLogsServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        with served(tmp_path, exporters=[OpenTelemetryExporter()], keys=[("ann", "use")]) as client:
            answer, given = give(client, thumb="down", comment="no")
            client.delete(f"/feedback/{given['id']}", headers=bearer(client, "ann"))
        server.shutdown()
    assert {path for path, _ in received} == {"/v1/logs"}
    records = [
        record
        for _, request in received
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]
    assert [record.event_name for record in records] == ["gen_ai.evaluation.result"] * 2
    fields, withdrawn = ({each.key: each.value for each in record.attributes} for record in records)
    assert fields["gen_ai.evaluation.name"].string_value == "thumb"
    assert fields["gen_ai.evaluation.score.value"].double_value == 0.0
    assert fields["gen_ai.evaluation.score.label"].string_value == "down"
    assert fields["gen_ai.evaluation.explanation"].string_value == "no"
    assert fields["gen_ai.response.id"].string_value == answer["id"]
    assert fields["alignlab.model.version"].string_value == answer["version"]
    assert withdrawn["gen_ai.evaluation.score.label"].string_value == "withdrawn"
    assert withdrawn["alignlab.feedback.id"].string_value == given["id"]


@pytest.mark.runs
def test_an_mlflow_server_that_refuses_is_a_sentence_without_the_key_that_it_repeats(monkeypatch):
    pytest.importorskip("mlflow")
    from hostile_server import hostile_server

    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "planted-token")
    body = b'{"error_code": "PERMISSION_DENIED", "message": "no: Bearer planted-token"}'
    refusal = [b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)]
    with hostile_server(refusal) as address, pytest.raises(Failure) as error:
        MlflowExporter(config(f"tracking.mlflow_uri={address}").tracking)
    assert "tracking.mlflow_uri: mlflow refuses (PERMISSION_DENIED: no: Bearer ***); check the address" in str(
        error.value
    )


@pytest.mark.runs
def test_mlflow_gets_a_trace_with_assessments_that_are_replaced_and_deleted(tmp_path):
    pytest.importorskip("mlflow")
    settings = config(f"tracking.mlflow_uri=sqlite:///{tmp_path}/mlflow.db").tracking
    exporter = MlflowExporter(settings)
    engines = [tiny_engine("one", 0), tiny_engine("two", 1)]
    people = [("ann", "use"), ("o'ben", "use")]

    def wait(holds):
        deadline = time.monotonic() + 60
        while not holds() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert holds()

    def assessed(answer):
        trace = exporter.trace(answer)
        return sorted((each.name, each.value) for each in trace.info.assessments) if trace else None

    with served(tmp_path, exporters=[exporter], engines=engines, keys=people) as client:
        answer, given = give(client, thumb="up", comment="good", correction="mix")
        wait(lambda: assessed(answer["id"]) == [("correction", "mix"), ("thumb", True)])
        trace = exporter.client.get_trace(exporter.trace(answer["id"]).info.trace_id, display=False)
        (span,) = trace.data.spans
        assert (span.inputs, span.outputs) == ({"messages": MESSAGES}, answer["completion"])
        sources = {(each.source.source_type, each.source.source_id) for each in trace.info.assessments}
        assert sources == {("HUMAN", "ann")}
        client.post("/feedback", json={"id": answer["id"], "rating": 2}, headers=bearer(client, "ann"))
        wait(lambda: assessed(answer["id"]) == [("rating", 2.0)])
        client.delete(f"/feedback/{given['id']}", headers=bearer(client, "ann"))
        wait(lambda: assessed(answer["id"]) == [])
        body = {"messages": MESSAGES}
        item = client.post("/items/compare", json=body, headers=bearer(client, "o'ben")).json()
        choice = {"choice": item["answers"][0]["id"]}
        client.post(f"/items/{item['id']}/choice", json=choice, headers=bearer(client, "o'ben"))
        chosen, rejected = (each["id"] for each in item["answers"])
        wait(lambda: (assessed(chosen), assessed(rejected)) == ([("choice", 1.0)], [("choice", 0.0)]))
        client.delete("/users/o'ben", headers=bearer(client, "o'ben"))
        wait(lambda: (exporter.trace(chosen), exporter.trace(rejected)) == (None, None))
        assert exporter.trace(answer["id"]) is not None


def test_a_server_that_fails_is_counted_and_stops_no_feedback(tmp_path):
    class Failing:
        name = "failing"

        def send(self, exported):
            raise ValueError("secret")

        def close(self):
            pass

    with served(tmp_path, exporters=[Failing()], keys=[("ann", "administer")]) as client:
        assert give(client, thumb="up")[1]["value"] == {"thumb": "up"}
        service = client.service
    assert 'alignlab_exports_total{outcome="failed",server="failing"} 1.0' in service.metrics.text().decode()


def test_a_full_queue_drops_and_counts(monkeypatch):
    from alignlab.serving.exporters import exports

    monkeypatch.setattr(exports, "WAITING", 1)
    metrics, sent = Metrics(), Event()

    class Slow:
        name = "slow"

    queue = Exports([Slow()], metrics)
    queue.submit(lambda _: sent.wait(60))
    while not queue.queue.empty():
        time.sleep(0.01)
    for _ in range(3):
        queue.submit(lambda _: None)
    sent.set()
    assert 'alignlab_exports_total{outcome="dropped",server="slow"} 2.0' in metrics.text().decode()
