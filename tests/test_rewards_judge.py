"""A chat model's marks as a reward: they come in order, and an answer without one stops the run."""

import re

import pytest
from chat_server import chat_server, said
from command import config
from tiny import ask

from alignlab.config.hardware import Hardware
from alignlab.config.reward import JudgeReward
from alignlab.errors import Failure
from alignlab.rewards import load_reward

CPU = Hardware(strategy="single", device="cpu", dtype="float32", micro_batch_size=None, threads=1)
TEXTS = ["i", "do no", "bread now", "mix flour, water"]
OWN = {"timeout": 0.5, "retries": 2, "backoff": 0.01, "concurrency": 3}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def words(body, number):
    """A mark for each word."""
    text = re.search(r"<answer>\n(.*)\n</answer>", body["messages"][1]["content"], re.DOTALL)[1]
    return said({"reason": "so many words", "mark": len(text.split())})


def reward(url):
    settings = config("reward=judge", f"reward.url={url}", "reward.model=m", "reward.best=5").reward
    return load_reward(JudgeReward.model_validate(settings.model_dump() | OWN), {}, CPU)


def test_marks_become_rewards_between_0_and_1_in_order():
    with chat_server(words) as server:
        found = reward(server.url)
        assert found.score([ask("why")] * 4, TEXTS, [True] * 4).total == [0.0, 0.25, 0.25, 0.5]
        assert found.score([ask("why")], ["yes"], [False]).total == [0.75]  # and "(cut off here)"
        wanted = server.asked[0][3]["response_format"]["json_schema"]["schema"]["properties"]
        assert wanted["mark"]["enum"] == [1, 2, 3, 4, 5]
        server.script = lambda body, number: words(body, number) if len(body["messages"]) > 2 else said('{"mark": 9}')
        assert found.score([ask("why")] * 4, TEXTS, [True] * 4).total == [0.0, 0.25, 0.25, 0.5]


def test_an_answer_without_a_mark_stops_the_run_and_names_it():
    def moody(body, number):
        return said('{"mark": true}') if "bread" in body["messages"][1]["content"] else words(body, number)

    with chat_server(moody) as server, pytest.raises(Failure) as raised:
        reward(server.url).score([ask("why")] * 4, TEXTS, [True] * 4)
    told = str(raised.value)
    assert told.startswith(f"reward judge: gave no score ({server.url}: the model's answer cannot be used")
    assert "on the text 'bread now'; mend it" in told
    assert told.endswith("the run resumes from its last checkpoint")
    assert "\n" not in told
