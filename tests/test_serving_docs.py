"""The examples of docs/serving.md, run against a real server: curl, and OpenAI's own client."""

import json
import shlex
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from served import served
from test_docs import ROOT, blocks

PAGE = (ROOT / "docs" / "serving.md").read_text()
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with served(tmp_path_factory.mktemp("docs")) as client:
        yield client


def curl(client, command, **replaced):
    command = command.replace("\\\n", " ").replace(ADDRESS, client.url)
    for old, new in replaced.items():
        command = command.replace(f"{old}-…", new)
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_examples_with_curl(client):
    ask, tell, withdraw = blocks(PAGE, "sh")
    answer = curl(client, ask)
    assert answer == {**curl(client, ask), "id": answer["id"]}
    given = curl(client, tell, ans=answer["id"])
    assert given["value"]["thumb"] == "down"
    assert curl(client, withdraw, fb=given["id"])["value"] == {}


def test_the_example_with_openais_client(client, capsys):
    pytest.importorskip("openai")
    block, _ = blocks(PAGE, "python")
    exec(block.replace(ADDRESS, client.url), {})
    body = {"model": "tiny", "messages": [{"role": "user", "content": "How do I bake bread?"}], "seed": 1}
    whole = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    assert capsys.readouterr().out == whole


def test_the_recipe_for_langfuse(client, monkeypatch):
    _, block = blocks(PAGE, "python")
    answer = client.post("/predict", json={"prompt": "mix flour"}).json()["id"]
    given = client.post("/feedback", json={"id": answer, "thumb": "up", "comment": "good"}).json()["id"]
    received = []

    class Langfuse(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append((self.path, self.headers["Authorization"], body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Langfuse) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for name, value in (
            ("HOST", f"http://127.0.0.1:{server.server_port}"),
            ("PUBLIC_KEY", "p"),
            ("SECRET_KEY", "s"),
        ):
            monkeypatch.setenv(f"LANGFUSE_{name}", value)
        exec(block.replace(ADDRESS, client.url), {})
        server.shutdown()
    path, login, body = next(each for each in received if each[2]["id"] == given)
    assert (path, login) == ("/api/public/scores", "Basic cDpz")
    assert body == {
        "id": given, "traceId": answer.removeprefix("ans-"), "name": "thumb", "dataType": "BOOLEAN", "value": 1,
        "comment": "good",
    }  # fmt: skip


def test_openais_client_reads_errors_and_whole_completions(client):
    openai = pytest.importorskip("openai")
    asked = openai.OpenAI(base_url=f"{client.url}/v1", api_key="unused", max_retries=0)
    turns = [{"role": "user", "content": "mix flour"}]
    done = asked.chat.completions.create(model="tiny", messages=turns, max_tokens=3, temperature=0)
    assert (done.choices[0].finish_reason, done.usage.completion_tokens) == ("length", 3)
    with pytest.raises(openai.NotFoundError, match="the model other is not there"):
        asked.chat.completions.create(model="other", messages=turns)
    with pytest.raises(openai.UnprocessableEntityError, match="max_tokens"):
        asked.chat.completions.create(model="tiny", messages=turns, max_tokens=4000)
