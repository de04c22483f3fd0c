"""A reward behind an address: a real server on the loopback that scores, dawdles, fails or talks nonsense."""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import pytest
from tiny import ask

from alignlab.config.hardware import Hardware
from alignlab.config.reward import UrlReward
from alignlab.errors import Failure
from alignlab.rewards import load_reward

CPU = Hardware(strategy="single", device="cpu", dtype="float32", micro_batch_size=None, threads=1)
PROMPTS = [ask("how", "do"), ask("bake"), ask("why")]
TEXTS = ["mix flour", "no", "Straße, 水"]
ENDED = [True, True, False]


class Scores(BaseHTTPRequestHandler):
    """Answers with what `server.script` says: a status and a body, in turn; the last one for ever."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((body, self.headers.get("Authorization")))
        script = self.server.script
        status, answer = script.pop(0) if len(script) > 1 else script[0]
        self.send_response(status)
        self.end_headers()
        try:
            for piece in answer(body) if callable(answer) else [answer]:
                self.wfile.write(piece.encode())
                self.wfile.flush()
        except OSError:
            pass  # whoever asked has gone

    def log_message(self, *_):
        pass


def lengths(body):
    return [json.dumps({"scores": [len(text) for text in body["completions"]]})]


def dawdle(body):
    for _ in range(20):
        time.sleep(0.05)
        yield " "


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = ThreadingHTTPServer(("127.0.0.1", 0), Scores)
    served.asked, served.script = [], [(200, lengths)]
    served.address = f"http://127.0.0.1:{served.server_address[1]}/score"
    thread = Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


def reward(address, **changed):
    own = {"timeout": 0.3, "retries": 1, "backoff": 0.01, "batch_size": 2, "key_env": None}
    return load_reward(UrlReward(kind="url", url=address, **{**own, **changed}), {}, CPU)


def test_scores_come_in_order_over_several_requests(server):
    assert reward(server.address).score(PROMPTS, TEXTS, ENDED).total == [9.0, 2.0, 9.0]
    bodies = [body for body, _ in server.asked]
    assert bodies[0] == {"prompts": PROMPTS[:2], "completions": TEXTS[:2]}
    assert bodies[1] == {"prompts": PROMPTS[2:], "completions": TEXTS[2:]}
    assert reward(server.address).score([], [], []).total == []


def test_the_key_is_read_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("SCORE_KEY", "s3cret")
    settings = UrlReward(
        kind="url", url=server.address, timeout=1.0, retries=0, backoff=0.0, batch_size=9, key_env="SCORE_KEY"
    )
    assert list(settings.faults()) == []
    load_reward(settings, {}, CPU).score(PROMPTS, TEXTS, ENDED)
    assert server.asked[0][1] == "Bearer s3cret"
    assert "s3cret" not in settings.model_dump_json()


def test_a_busy_server_is_asked_again(server):
    server.script = [(503, ""), (429, ""), (200, lengths)]
    assert reward(server.address, retries=2).score(PROMPTS[:1], TEXTS[:1], [True]).total == [9.0]
    assert len(server.asked) == 3


def test_waiting_doubles_before_each_further_try(server, monkeypatch):
    waited = []
    server.script = [(500, "")]
    monkeypatch.setattr("alignlab.runtime.http_client.Event", lambda: SimpleNamespace(wait=waited.append))
    with pytest.raises(Failure, match=r"answers /score with 500: '' \(tried 4 times\)"):
        reward(server.address, retries=3, backoff=0.5).score(PROMPTS, TEXTS, ENDED)
    assert waited == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, "oops <html>"), "answers with no JSON: 'oops <html>'; it has to answer"),
        ((200, '{"score": [1]}'), "answers without a list of scores: "),
        ((200, "[1, 2]"), "answers without a list of scores: "),
        ((200, '{"scores": [1]}'), "gives 1 scores for 2 completions"),
        ((200, '{"scores": [1, NaN]}'), "answers with no JSON: "),
        ((200, '{"scores": [1, 1e999]}'), "gives a score that is no finite number: inf"),
        ((200, '{"scores": [1, "2"]}'), "gives a score that is no finite number: '2'"),
        ((401, ""), "answers 401: ''; see what the server expects"),
        ((200, dawdle), r"gives no answer within 0.3 s (tried 2 times); start the server or raise reward.timeout"),
    ],
)
def test_a_server_that_errs_gets_one_sentence(server, answer, said):
    server.script = [answer]
    with pytest.raises(Failure) as found:
        reward(server.address).score(PROMPTS[:2], TEXTS[:2], [True] * 2)
    assert str(found.value).startswith(f"reward url: {server.address} ")
    assert said in str(found.value)
    assert "\n" not in str(found.value)
    assert len(server.asked) == (2 if "tried 2" in said else 1)  # what is wrong for good is not asked again


def test_a_server_that_is_silent_or_away_gets_one_sentence(server):
    server.script = [(200, lambda _: time.sleep(0.4) or "")]
    with pytest.raises(Failure, match=r"gives no answer within 0\.1 s \(tried 1 time\)"):
        reward(server.address, timeout=0.1, retries=0).score(PROMPTS, TEXTS, ENDED)
    with pytest.raises(Failure, match=r"cannot be reached .*the same command resumes from the last checkpoint"):
        reward("http://127.0.0.1:9", retries=1).score(PROMPTS, TEXTS, ENDED)


def test_addresses_that_are_none_and_secrets_in_them_are_refused(monkeypatch):
    monkeypatch.delenv("SCORE_KEY", raising=False)
    own = {"kind": "url", "timeout": 1.0, "retries": 0, "backoff": 0.0, "batch_size": 1}
    said = [str(fault) for fault in UrlReward(url="file:///etc/x", key_env="SCORE_KEY", **own).faults()]
    assert said[0].startswith("url: 'file:///etc/x' is not the address of a server")
    assert said[1].startswith("key_env: the environment variable SCORE_KEY is not set")
    assert ["holds a password" in str(f) for f in UrlReward(url="http://me:pw@x/y", key_env=None, **own).faults()]
