"""Whatever a server answers: no traceback, little memory, and no longer than the timeout."""

import gzip
import time
import zlib
from functools import cache
from pathlib import Path

import pytest
from command import config
from hostile_server import ANSWERS, hostile_server, packed
from test_judge_openai import ITEMS, judge
from test_rewards_url import ENDED, PROMPTS, TEXTS, reward

from alignlab.errors import Failure
from alignlab.judges.label import label_all
from alignlab.models.vllm_client import VLLMClient
from alignlab.runtime.http_client import HTTPClient, Once
from alignlab.runtime.journal import Journal

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
