"""`task=serve` over real HTTP: completions, streams, feedback, keys, limits."""

import json
import socket
import time

import httpx
import pytest
from command import config
from served import MESSAGES, served, tiny_engine

from alignlab.errors import Mistake
from alignlab.models.sampling import Sampling, sample
from alignlab.serving.server import serve
from alignlab.serving.store import records


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with served(tmp_path_factory.mktemp("serving")) as client:
        yield client


def chat(client, **fields):
    body = {"model": "tiny", "messages": MESSAGES, "temperature": 1.0, "top_p": 1.0, **fields}
    return client.post("/v1/chat/completions", json=body)


def events(response):
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_a_prediction_is_the_completion_that_sampling_gives(client):
    engine = client.service.engine("tiny")
    (expected,) = sample(engine.batch.model, engine.tokenizer, [MESSAGES], Sampling(1.0, 1.0, 40, 1), 3)
    body = {"messages": MESSAGES, "seed": 3.0, "temperature": 1.0, "top_p": 1.0}  # 3.0 is an integer in JSON
    answer = client.post("/predict", json=body).json()
    assert answer["completion"] == expected.text
    assert answer["usage"]["completion_tokens"] == len(expected.tokens)
    assert answer["finish_reason"] == ("stop" if expected.finished else "length")
    assert (answer["model"], answer["version"], answer["seed"]) == ("tiny", "weights-0", 3)
    prompt = {**body, "prompt": MESSAGES[0]["content"]}
    del prompt["messages"]
    assert client.post("/predict", json=prompt).json()["completion"] == expected.text


def test_the_streamed_parts_are_the_completion(client):
    for seed in range(4):
        whole = chat(client, seed=seed).json()
        parts = events(chat(client, seed=seed, stream=True, stream_options={"include_usage": True}))
        assert (
            "".join(part["choices"][0]["delta"].get("content", "") for part in parts[:-1])
            == (whole["choices"][0]["message"]["content"])
        )
        assert parts[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
        assert parts[-1]["usage"] == whole["usage"]


def test_a_stop_sequence_ends_the_text_before_it(client):
    texts = {seed: chat(client, seed=seed).json()["choices"][0]["message"]["content"] for seed in range(20)}
    seed, whole = max(texts.items(), key=lambda text: len(text[1]))
    stop = whole.split()[3]
    for stream in (False, True):
        response = chat(client, seed=seed, stop=stop, stream=stream)
        text = (
            "".join(part["choices"][0]["delta"].get("content", "") for part in events(response))
            if stream
            else response.json()["choices"][0]["message"]["content"]
        )
        assert text == whole[: whole.find(stop)]


def test_models_health_and_metrics(client):
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["tiny"]
    assert client.get("/health").json() == client.get("/ready").json() == {"status": "ok"}
    text = client.get("/metrics").text
    assert 'alignlab_queue_waiting{model="tiny"} 0.0' in text
    assert 'alignlab_requests_total{method="GET",path="/health",status="200"}' in text
    assert client.put("/feedback").headers["Allow"] == "GET, POST"
    document = client.get("/openapi.json").json()
    assert document["paths"].keys() >= {"/predict", "/feedback", "/v1/chat/completions"}
    fields = document["components"]["schemas"]["PredictRequest"]["properties"]
    assert fields["max_tokens"]["anyOf"][0] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 40,
    }  # as the server checks it
    ranks = document["components"]["schemas"]["RanksRequest"]["properties"]["ranks"]
    assert ranks["additionalProperties"] is False  # an id with a NUL is refused
    assert fields["seed"]["anyOf"][0] == {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**32}


@pytest.mark.parametrize(
    ("path", "body", "status", "where"),
    [
        ("/predict", {}, 422, "either prompt or messages"),
        ("/predict", {"prompt": "how", "seed": "1"}, 422, "seed"),
        ("/predict", {"prompt": "how", "top_k": 1}, 422, "top_k"),
        ("/predict", {"prompt": "how", "max_tokens": 41}, 422, "max_tokens"),
        ("/predict", {"prompt": "how " * 300}, 422, "context"),
        ("/predict", {"prompt": "how " * 600}, 422, "context"),  # encoded in another thread
        ("/predict", {"prompt": "how", "model": "other"}, 404, "other"),
        ("/predict", {"prompt": "h\x00w"}, 422, "prompt"),
        ("/feedback", {"id": "ans-nothing", "thumb": "up"}, 404, "ans-nothing"),
        ("/feedback", {"id": "ans-nothing"}, 422, "thumb"),
        ("/v1/chat/completions", {"model": "tiny", "messages": []}, 422, "messages"),
        ("/v1/chat/completions", {"model": "tiny", "messages": MESSAGES, "n": 2}, 422, "n"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(client, path, body, status, where):
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    assert where in response.json()["error"]["message"]


def test_a_conversation_that_the_chat_template_refuses_is_told_why(client, monkeypatch):
    tokenizer = client.service.engine("tiny").prompts.tokenizer
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('no system role') }}")
    response = client.post("/predict", json={"messages": MESSAGES})
    assert response.status_code == 422
    assert "no system role" in response.json()["error"]["message"]


def test_only_streams_count_for_the_time_of_the_first_part(client):
    def count():
        values = client.get("/metrics").text.split("alignlab_first_part_seconds_count{", 1)[1:]
        return float(values[0].split()[1]) if values else 0.0

    before = count()
    assert chat(client).status_code == 200
    assert count() == before
    assert chat(client, stream=True).status_code == 200
    assert count() == before + 1


def test_feedback_is_given_overwritten_and_withdrawn(client):
    answer = client.post("/predict", json={"messages": MESSAGES}).json()["id"]
    given = client.post("/feedback", json={"id": answer, "thumb": "up", "comment": "good"}).json()
    assert (given["value"], given["withdrawn"]) == ({"thumb": "up", "comment": "good"}, None)
    body = {"id": answer, "rating": 2, "correction": "mix flour and water", "categories": ["other"]}
    second = client.post("/feedback", json=body).json()
    assert second["id"] == given["id"]
    assert client.get(f"/feedback/{given['id']}").json()["value"] == {k: v for k, v in body.items() if k != "id"}
    assert client.delete(f"/feedback/{given['id']}").json()["value"] == {}
    left = client.get(f"/feedback/{given['id']}").json()
    assert left["withdrawn"] > given["created"]
    assert client.get("/feedback").json()["feedback"][0] == left


def test_an_idempotency_key_gives_the_first_response_again(client):
    answer = client.post("/predict", json={"messages": MESSAGES}).json()["id"]
    body, header = {"id": answer, "thumb": "up"}, {"Idempotency-Key": "once"}
    first = client.post("/feedback", json=body, headers=header).json()
    client.post("/feedback", json={"id": answer, "thumb": "down"})
    assert client.post("/feedback", json=body, headers=header).json() == first
    other = client.post("/feedback", json={"id": answer, "thumb": "down"}, headers=header)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    client.delete(f"/feedback/{first['id']}")
    assert client.post("/feedback", json=body, headers=header).json()["value"] == {}


def test_without_stored_texts_feedback_works(tmp_path):
    from alignlab.serving.store.tables import answers

    with served(tmp_path, "task.store_text=false") as client:
        answer = client.post("/predict", json={"messages": MESSAGES}).json()["id"]
        assert client.post("/feedback", json={"id": answer, "thumb": "up"}).status_code == 200
        row = client.service.store.read_now(lambda c: c.execute(answers.select()).mappings().one())
        assert (row["id"], row["prompt"], row["completion"]) == (answer, None, None)


def test_limits_of_the_body_the_rate_the_host_and_the_queue(tmp_path):
    engine = tiny_engine(batch=1, queue=1)
    options = ("task.max_body_bytes=1000", "task.requests_per_minute=6")
    with served(tmp_path, *options, engines=[engine], hosts=["127.0.0.1"]) as client:
        assert client.post("/predict", json={"prompt": "how " * 300}).status_code == 413
        assert client.post("/predict", content=iter([b"x" * 600, b"x" * 600])).status_code == 413
        assert client.get("/health", headers={"Host": "evil.example:80"}).status_code == 421
        statuses = {client.get("/v1/models").status_code: None for _ in range(3)}
        assert [*statuses] == [200, 429]
        assert 1 <= int(client.get("/v1/models").headers["Retry-After"]) <= 10


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_row_within_a_step(client, monkeypatch, stream):
    engine = client.service.engine("tiny")
    step = engine.batch.step

    def slow(joining=()):
        time.sleep(0.05)
        return step(joining)

    monkeypatch.setattr(engine.batch, "step", slow)
    monkeypatch.setattr(engine.batch, "ends", set())
    body = {"model": "tiny", "messages": MESSAGES}
    if stream:
        with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
            next(response.iter_text())
            assert engine.load().active == 1
    else:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/chat/completions", json=body, timeout=0.3)
    deadline = time.monotonic() + 1.2  # a whole answer takes 2 s
    while engine.load().active and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.load().active == 0


def test_the_safety_filter_blocks_messages_and_completions_and_tells_its_scores(tmp_path):
    def score(texts):
        return [0.9 if "now" in text else 0.2 for text in texts]

    greedy = {"temperature": 0.0, "model": "tiny"}
    fine, bad = ([{"role": "user", "content": text}] for text in ("mix how", "mix flour"))  # "do yes", "how … now …"
    with served(tmp_path, "task.safety=[input,output]", score=score) as client:
        blocked = client.post("/predict", json={**greedy, "prompt": "why now"})
        assert (blocked.status_code, blocked.json()["error"]["code"]) == (422, "content_filter")
        answer = client.post("/predict", json={**greedy, "messages": fine}).json()
        assert (answer["completion"], answer["safety"]) == ("do yes", {"input": 0.2, "output": 0.2})
        answer = client.post("/predict", json={**greedy, "messages": bad}).json()
        assert (answer["completion"], answer["finish_reason"], answer["safety"]["output"]) == ("", "safety", 0.9)
        parts = events(client.post("/v1/chat/completions", json={**greedy, "messages": bad, "stream": True}))
        assert parts[-1]["choices"][0]["finish_reason"] == "content_filter"
        assert "".join(part["choices"][0]["delta"].get("content", "") for part in parts) == ""
        text = client.get("/metrics").text
        assert 'alignlab_safety_blocked_total{place="output"} 2.0' in text
        assert 'alignlab_safety_seconds_count{place="input"} 4.0' in text


def test_a_store_that_fails_is_a_503_without_details(tmp_path, monkeypatch):
    with served(tmp_path) as client:
        answer = client.post("/predict", json={"messages": MESSAGES}).json()["id"]
        client.service.store.writer.submit(lambda c: None).result()  # the answer is written
        monkeypatch.setattr(records, "hash_of", lambda value: None)  # the column takes no null
        response = client.post("/feedback", json={"id": answer, "comment": "secret"}, headers={"Idempotency-Key": "k"})
        assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
        assert "secret" not in response.text


def test_an_address_is_refused_before_a_model_is_loaded(tmp_path):
    def serve_at(host, port):
        options = [f"task.host={host}", f"task.port={port}", f"task.store={tmp_path}/feedback.db"]
        serve(config("task=serve", *options).task, lambda: pytest.fail("a model is loaded"))

    with pytest.raises(Mistake, match=r"task.host: 0.0.0.0 is not the loopback, and the store holds no key"):
        serve_at("0.0.0.0", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Mistake, match=rf"task.port: http://127.0.0.1:{port} cannot be used \(Address already"):
            serve_at("127.0.0.1", port)
