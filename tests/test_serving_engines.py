"""The same requests to every engine: in this process, behind another server, and transformers' continuous batching."""

import asyncio
import gc
import json
import time
import weakref
from contextlib import contextmanager

import pytest
from chat_server import chat_server
from served import MESSAGES, served, tiny_engine
from tiny import tiny_model, tiny_tokenizer

from alignlab.models.references import Source
from alignlab.serving.engines.chat_server import ChatServerEngine
from alignlab.serving.engines.in_service import freeze_objects
from alignlab.serving.engines.protocol import Generation
from alignlab.tasks.serve import served_name


@contextmanager
def embedded(folder):
    yield tiny_engine()


@contextmanager
def url(folder):
    with served(folder) as upstream:
        yield ChatServerEngine(f"{upstream.url}/v1", "tiny", "", 8, 100, 60.0)


@contextmanager
def gpu(folder):
    from alignlab.serving.engines.gpu import GpuEngine

    options = {"page_size": 16, "num_blocks": 64, "max_batch_tokens": 256, "use_async_batching": False}
    model = tiny_model(context=256)
    yield GpuEngine("tiny", "weights", model, tiny_tokenizer(), 8, 100, 60.0, use_cuda_graph=False, **options)


@pytest.fixture(
    scope="module", params=[embedded, url, pytest.param(gpu, marks=pytest.mark.runs)], ids=lambda f: f.__name__
)
def client(request, tmp_path_factory):
    with request.param(tmp_path_factory.mktemp("upstream")) as engine:
        with served(tmp_path_factory.mktemp("front"), engines=[engine]) as client:
            yield client


LONG = [{"role": "user", "content": "mix flour"}]  # its likeliest completion has 29 tokens


def chat(client, **fields):
    body = {"model": "tiny", "messages": MESSAGES, "temperature": 1.0, "top_p": 1.0, "seed": 3, **fields}
    return client.post("/v1/chat/completions", json=body)


def streamed(response):
    data = [json.loads(line[6:]) for line in response.text.split("\n\n") if line and line != "data: [DONE]"]
    return "".join(event["choices"][0]["delta"].get("content", "") for event in data)


def text_of(response):
    return response.json()["choices"][0]["message"]["content"]


def test_whole_and_streamed(client):
    whole = chat(client, temperature=0.0, messages=LONG)
    assert whole.json()["choices"][0]["finish_reason"] == "stop"
    usage = whole.json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (4, 29)
    assert streamed(chat(client, temperature=0.0, messages=LONG, stream=True)) == text_of(whole)


def test_a_limit_and_a_stop_sequence(client):
    short = chat(client, temperature=0.0, messages=LONG, max_tokens=2).json()
    assert (short["choices"][0]["finish_reason"], short["usage"]["completion_tokens"]) == ("length", 2)
    whole = text_of(chat(client, temperature=0.0, messages=LONG))
    assert text_of(chat(client, temperature=0.0, messages=LONG, stop="now")) == whole.partition("now")[0]


def test_many_at_once_and_feedback(client):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda seed: client.post("/predict", json={"messages": MESSAGES, "seed": seed}), range(16))
        )
    assert [answer.status_code for answer in answers] == [200] * 16
    assert client.post("/feedback", json={"id": answers[0].json()["id"], "thumb": "up"}).status_code == 200


def test_the_engine_behind_a_server_gives_its_texts(tmp_path):
    with served(tmp_path) as upstream:
        front = ChatServerEngine(f"{upstream.url}/v1", "tiny", "", 8, 100, 60.0)
        (tmp_path / "front").mkdir()
        with served(tmp_path / "front", engines=[front]) as client:
            for seed in range(3):
                assert chat(client, seed=seed).json()["choices"] == chat(upstream, seed=seed).json()["choices"]
            with client.stream(
                "POST", "/v1/chat/completions", json={"model": "tiny", "messages": MESSAGES, "stream": True}
            ):
                pass
            deadline = time.monotonic() + 60
            while (
                front.load().active or upstream.service.engine("tiny").load().active
            ) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert front.load().active == upstream.service.engine("tiny").load().active == 0
            assert len(front.unused) == 1  # a client is used again


def test_an_object_that_was_frozen_is_freed_once_it_is_not_used():
    class Model:
        pass

    model = Model()
    model.itself, known = model, weakref.ref(model)
    try:
        freeze_objects()
        del model
        gc.collect()
        assert known()  # a collection does not read it
        freeze_objects()
        assert known() is None
    finally:
        gc.unfreeze()


def test_a_client_that_leaves_frees_its_place_in_the_queue(monkeypatch):
    engine = tiny_engine(batch=1, queue=1)
    step = engine.batch.step
    monkeypatch.setattr(engine.batch, "step", lambda joining=(): time.sleep(0.05) or step(joining))
    monkeypatch.setattr(engine.batch, "ends", set())

    async def ask_and_leave():
        asked = Generation(MESSAGES, 200, 1.0, 1.0, seed=0)
        clients = [asyncio.ensure_future(anext(engine.complete(asked))) for _ in range(2)]
        await until(1, 1)
        clients[1].cancel()
        await until(0, 1)
        clients[0].cancel()

    async def until(waiting, active):
        while engine.load() != (waiting, active):
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(ask_and_leave(), 8))  # the first answer takes 10 s
    engine.close()


def test_each_token_is_sent_before_the_next_one_is_computed(monkeypatch):
    engine, sent, sent_before = tiny_engine(), [], []
    step = engine.batch.step
    monkeypatch.setattr(engine.batch, "step", lambda joining=(): sent_before.append(len(sent)) or step(joining))

    async def ask():
        async for part in engine.complete(Generation(LONG, 40, 0.0, 1.0, seed=0, streams=True)):
            sent.append(part)

    asyncio.run(ask())
    engine.close()
    assert sent_before[:16] == [*range(16)]  # each of these tokens has a text


@pytest.mark.parametrize(
    ("named", "path", "name"),
    [
        ("pocket", "cache/base-0123", "pocket"),
        ("someone/small", "cache/0123", "someone/small"),
        ("chat", "cache/0123", "chat"),  # it was prepared
        ("smol/model", "cache/0123", "smol"),
        ("small.gguf", "cache/0123", "small"),
        ("run", "run/dpo-0123/model", "dpo-0123"),
    ],
)
def test_a_model_is_served_under_a_name_that_people_know(tmp_path, monkeypatch, named, path, name):
    monkeypatch.chdir(tmp_path)
    for folder in ("chat", "smol/model", "small.gguf", "run/dpo-0123/model"):
        (tmp_path / folder).mkdir(parents=True)
    assert served_name(Source(named, tmp_path / path, "")) == name


@pytest.mark.parametrize(
    ("answer", "status"),
    [((500, "secret", {}), 502), ((429, "", {"Retry-After": "7"}), 429), ((200, "data: {\n\n", {}), 502), (None, 503)],
)
def test_a_failing_server_is_told_without_its_words(tmp_path, answer, status):
    with chat_server(lambda body, number: answer) as upstream:
        url = upstream.url if answer else "http://127.0.0.1:9/v1"
        with served(tmp_path, engines=[ChatServerEngine(url, "tiny", "", 8, 100, 60.0)]) as client:
            response = chat(client)
            assert response.status_code == status
            assert "secret" not in response.text
            if status == 429:
                assert response.headers["Retry-After"] == "7"
