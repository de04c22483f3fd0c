"""A promoted model goes to MLflow's registry, in a SQLite store, and to the hub, in a server with its protocol."""

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from command import config

from alignlab.pipeline import export_promoted

MLFLOW, HUB = "task.mlflow_model=assistant", "task.hub_model_id=owner/name"
POINTER = {"version": 2, "model": "models/2", "fingerprint": "f2"}
STAGE = {"stage": "kto", "data": "snapshot-7", "seed": 0, "fingerprint": "k1", "inputs": {}}
STAGE |= {"settings": {"name": "kto", "beta": 0.2}, "feedback_from": "the users of a server"}
CHECK = {"part": "objective", "measure": "gold/score", "kind": "better"}
RECORD = {"version": 2, "baseline": "version-1", "stages": [STAGE], "checks": [CHECK]}


@pytest.fixture
def promoted(tmp_path):
    """Return a function that exports a model of two files as the settings ask."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_text("weights")

    def export(*settings):
        bound = config("task=promote", "task.model=any", "model=pocket_small", "dataset=pocket_small", *settings)
        export_promoted.check_exports(bound, bound.task)
        export_promoted.export(
            bound, bound.task, tmp_path / "model", POINTER, RECORD, {"measurements": []}, tmp_path
        )  # fmt: skip

    return export


@pytest.mark.runs
def test_mlflow_gets_a_version_with_its_origin_and_the_alias(promoted, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    store = f"sqlite:///{tmp_path}/mlflow.db"
    for _ in range(2):
        promoted(MLFLOW, f"tracking.mlflow_uri={store}")
    client = mlflow.MlflowClient(store)
    version = client.get_model_version_by_alias("assistant", "in-service")
    assert (int(version.version), version.source) == (2, (tmp_path / "model").as_uri())
    assert version.tags == {"version": "2", "fingerprint": "f2", "baseline": "version-1", "data of kto": "snapshot-7"}


@pytest.fixture
def hub(monkeypatch):
    """Serve what the hub's client asks for in an upload; keep the files of its commits and the tags."""
    from huggingface_hub import constants

    kept = {"files": {}, "tags": []}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            answer = {}
            if self.path == "/api/repos/create":
                answer = {"url": f"{constants.ENDPOINT}/owner/name"}
            elif self.path.endswith("/preupload/main"):
                files = [each["path"] for each in json.loads(body)["files"]]
                answer = {"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]}
            elif self.path.endswith("/commit/main"):
                lines = [json.loads(line)["value"] for line in body.splitlines()]
                kept["files"] |= {each["path"]: base64.b64decode(each["content"]) for each in lines if "path" in each}
                answer = {"commitUrl": f"{constants.ENDPOINT}/owner/name/commit/1", "commitOid": "1"}
            elif "/tag/" in self.path:
                kept["tags"].append(json.loads(body)["tag"])
            self.reply(200, answer)

        def do_GET(self):
            self.reply(200, {"id": "owner/name", "sha": "1", "siblings": []})

        def reply(self, code, answer):
            text = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "a token")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield kept
    server.shutdown()
    server.server_close()


def test_the_hub_gets_files_a_card_and_a_tag(promoted, hub):
    promoted(HUB)
    assert hub["files"].keys() == {"config.json", "model.safetensors", "README.md"}
    assert (hub["files"]["model.safetensors"], hub["tags"]) == (b"weights", ["v2"])
    card = hub["files"]["README.md"].decode()
    assert "Version 2: promoted over `version-1`" in card
    assert "| kto | `snapshot-7` | 0 | `k1` |" in card
    assert re.search(r"Data set `pocket`, hash `data-\w+`", card)
    assert "```yaml\nname: kto\nbeta: 0.2\n```" in card
    assert "The feedback was given by the users of a server on answers" in card
    assert "## Limits" in card


def test_a_hub_that_refuses_leaves_the_promotion(promoted, monkeypatch, capsys):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    promoted(HUB)
    assert (
        "version 2 is in service, but was not exported: task.hub_model_id: owner/name could not"
        in capsys.readouterr().err
    )
