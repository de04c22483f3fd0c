"""The examples of docs/serving.md, run against a real server: curl, and OpenAI's own client."""

import json
import shlex
import subprocess

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
    (block,) = blocks(PAGE, "python")
    exec(block.replace(ADDRESS, client.url), {})
    body = {"model": "tiny", "messages": [{"role": "user", "content": "How do I bake bread?"}], "seed": 1}
    whole = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    assert capsys.readouterr().out == whole


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
