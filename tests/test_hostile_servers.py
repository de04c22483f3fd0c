"""Whatever a server answers: no traceback, little memory, and no longer than the timeout."""

import asyncio
import gzip
import json
import time
import zlib
from contextlib import aclosing
from functools import cache
from itertools import chain
from pathlib import Path

import pytest
from command import config
from hostile_server import ANSWERS, DEEP, OK, endless, hostile_server, packed, slowly, whole
from test_judge_openai import ITEMS, judge
from test_rewards_url import ENDED, PROMPTS, TEXTS, reward

from alignlab.errors import Failure
from alignlab.judges.label import label_all
from alignlab.models.vllm_client import VLLMClient
from alignlab.runtime.http_client import HTTPClient, Once
from alignlab.runtime.journal import Journal
from alignlab.serving.engines.chat_server import ChatServerEngine
from alignlab.serving.engines.protocol import Generation
from alignlab.serving.problems import Problem

TIMEOUT = 0.25


@pytest.fixture(scope="module", autouse=True)
def libraries(tmp_path_factory):
    """Import what the clients need before memory and time are measured."""
    for ask, _ in CLIENTS.values():
        with pytest.raises(Failure):
            ask("http://127.0.0.1:9", tmp_path_factory.mktemp("first"))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def ask_judge(address, folder):
    """One label; it is written, as in a run."""
    impatient = {"timeout": TIMEOUT, "retries": 1, "backoff": 0.0, "longest_wait": 0.01, "reasons": True}
    label_all(judge(address, **impatient), ITEMS[:1], Journal(folder / "labels.jsonl"))


def ask_reward(address, folder):
    reward(address, timeout=TIMEOUT, retries=0).score(PROMPTS[:1], TEXTS[:1], ENDED[:1])


@cache
def vllm_settings():
    return config("method=ppo", f"method.vllm.timeout={TIMEOUT}", "method.vllm.retries=0").method.vllm


def ask_vllm(address, folder):
    VLLMClient(vllm_settings(), address).complete({"prompt": [1], "max_tokens": 2})


CLIENTS = {"judge": (ask_judge, 2), "reward": (ask_reward, 1), "vllm": (ask_vllm, 1)}  # and the number of requests


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_hostile_answer_is_one_sentence(answer, client, tmp_path):
    ask, requests = CLIENTS[client]
    with hostile_server(ANSWERS[answer]) as address:
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak
        began = time.monotonic()
        with pytest.raises(Failure) as error:
            ask(address, tmp_path)
        assert time.monotonic() - began < requests * TIMEOUT + 1
    assert memory("VmHWM") - before < 64 * 1024
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def event(fields):
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


STREAM = OK + b"Content-Type: text/event-stream\r\n\r\n"
TEXT = event({"choices": [{"delta": {"content": "yes"}}]})
STREAMS = {
    "a line without end": lambda: endless(STREAM + b"data: ", b"x" * 10**5),
    "texts without end": lambda: endless(STREAM, TEXT),
    "a stream byte by byte": lambda: chain([STREAM], slowly(TEXT * 9)),
    "a deep event": [STREAM + b"data: " + DEEP + b"\n\n"],
    "choices of numbers": [STREAM + event({"choices": [1]})],
    "a reason that is a list": [STREAM + event({"choices": [{"finish_reason": [["x"]]}], "usage": 3})],
    "infinite tokens in a stream": [STREAM + b'data: {"choices": [], "usage": {"prompt_tokens": 1e999}}\n\n'],
    "a negative number of tokens": [STREAM + event({"usage": {"prompt_tokens": -1}})],
    "an end without a reason": [STREAM + TEXT],
    "a stream that is packed": packed(gzip.compress(TEXT), b"gzip"),
    "a wait of many digits": whole(b"", b"HTTP/1.1 429 Busy\r\nRetry-After: " + b"9" * 5000 + b"\r\n"),
}


@pytest.mark.parametrize("answer", {**ANSWERS, **STREAMS})
def test_a_hostile_model_behind_the_server_is_one_problem(answer):
    async def ask(address):
        engine = ChatServerEngine(address, "m", "", 1, 1, TIMEOUT)
        async with aclosing(engine.complete(Generation([{"role": "user", "content": "Hi"}], 9, 0.0, 1.0, 0))) as parts:
            return [part async for part in parts]

    with hostile_server({**ANSWERS, **STREAMS}[answer]) as address:
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        began = time.monotonic()
        with pytest.raises(Problem) as error:
            asyncio.run(ask(address))
        assert time.monotonic() - began < TIMEOUT + 1
    assert memory("VmHWM") - before < 64 * 1024
    assert error.value.status in {429, 502, 503, 504, 422}
    assert len(error.value.message) < 200


def memory(name):
    """Return a figure of this process's memory in KiB."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])


def test_an_honest_answer_may_be_compressed():
    content = b'{"scores": [1, "\xc3\xa9"]}'
    for encoding, data in ((b"gzip", gzip.compress(content)), (b"deflate", zlib.compress(content))):
        with hostile_server(packed(data, encoding)) as address:
            assert HTTPClient(Once(2.0)).send("GET", address).json() == {"scores": [1, "é"]}


@pytest.mark.parametrize("client", ["judge", "reward"])
def test_a_redirect_does_not_get_the_key(client, monkeypatch):
    """The server that is named must not even be asked."""
    monkeypatch.setenv("SCORE_KEY", "s3cret")
    asked = []
    with hostile_server([b""], asked) as other:
        answer = [b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % other.encode()]
        with hostile_server(answer) as address, pytest.raises(Failure, match="answers 302"):
            if client == "judge":
                list(judge(address, key_env="SCORE_KEY").label(ITEMS[:1], ()))
            else:
                reward(address, key_env="SCORE_KEY").score(PROMPTS, TEXTS, ENDED)
    assert asked == []
