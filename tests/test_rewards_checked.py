"""A reward that does wrong stops the run and is named, with the text that it did wrong on."""

import re

import numpy as np
import pytest

from alignlab.errors import Failure, failure
from alignlab.rewards import Checked, Scored
from alignlab.runtime.signals import stopped

PROMPTS = [[{"role": "user", "content": "why"}]] * 3
TEXTS = ["one", "two", "three"]
ENDED = [True, True, False]


class Given:
    """Returns, or does, what it was made with."""

    name = "mine"

    def __init__(self, answer):
        self.answer = answer

    def score(self, prompts, completions, finished):
        answer = self.answer(completions) if callable(self.answer) else self.answer
        return answer if isinstance(answer, Scored) else Scored(answer)


def checked(answer):
    return Checked(Given(answer)).score(PROMPTS, TEXTS, ENDED).total


def test_good_scores_pass_as_plain_numbers():
    assert checked([1, -2.5, 0.0]) == [1.0, -2.5, 0.0]
    assert checked(np.array([1.0, 2.0, 3.0], np.float32)) == [1.0, 2.0, 3.0]
    assert all(type(value) is float for value in checked(np.arange(3)))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([0.0, float("nan"), 0.0], "reward mine: gave nan, which is no finite number, on the text 'two'; mend it"),
        ([0.0, 1e300, 0.0], "reward mine: gave 1e+300, which is beyond 1e+15, on the text 'two'; mend it"),
        ([0.0, 0.0, float("-inf")], "gave -inf, which is no finite number, on the text 'three'"),
        ([0.0, None, 0.0], "gave None, which is no finite number, on the text 'two'"),
        ([0.0, "1", 0.0], "gave '1', which is no finite number, on the text 'two'"),
        ([True, 0.0, 0.0], "gave True, which is no finite number, on the text 'one'"),
        ([0.0], "gave 1 scores for 3 completions on the text 'one'"),
        (0.5, "gave float, which is no list of scores, on the text 'one'"),
        (Scored([0.0] * 3, {"a": [0.0]}), "gave 1 scores for a for 3 completions on the text 'one'"),
        (Scored([0.0] * 3, {}, {"a": [0.0, None, 0.0]}), "gave None for a, which is no finite number, on the text"),
        (Scored([0.0] * 3, errors={2: "timeout", 1: "no mark"}), "gave no score (no mark) on the text 'two'"),
    ],
)
def test_bad_scores_stop_the_run_in_one_sentence(answer, said):
    with pytest.raises(Failure) as found:
        checked(answer)
    assert said in str(found.value)
    assert "the run resumes from its last checkpoint" in str(found.value)
    assert "\n" not in str(found.value)


def test_a_reward_that_raises_is_named_with_the_text_that_it_raises_on():
    with pytest.raises(Failure) as found:
        checked(lambda texts: [1 / (text != "two") for text in texts])
    said = str(found.value)
    assert "reward mine: raised ZeroDivisionError: division by zero (" in said
    assert re.search(r"test_rewards_checked\.py:\d+\) on the text 'two'", said)


def test_a_long_text_is_cut_in_the_message():
    with pytest.raises(Failure) as found:
        Checked(Given([float("nan")])).score(PROMPTS[:1], ["x" * 1000], [True])
    assert "'" + "x" * 120 + "'…" in str(found.value)


@pytest.mark.parametrize(
    "error", [failure("reward.url", "is down"), stopped("SIGTERM"), RuntimeError("CUDA out of memory.")]
)
def test_what_a_reward_explains_itself_and_what_stops_the_run_are_left_as_they_are(error):
    def refuse(texts):
        if len(texts) > 1 and isinstance(error, RuntimeError):
            raise ValueError("too many")
        raise error

    with pytest.raises(type(error)) as found:
        checked(refuse)
    assert found.value is error


def test_a_reward_that_does_not_learn_has_no_state():
    reward = Checked(Given([0.0]))
    assert reward.state_dict() == {}
    reward.load_state_dict({})


def test_processes_share_the_completions_and_put_the_records_together(monkeypatch):
    def lengths(texts):
        values = [float(len(text)) for text in texts]
        return Scored(values, {"length": values}, {"raw": [-value for value in values]})

    def divided(count, work):  # of two processes
        shares = [work(list(range(rank, count, 2))) for rank in (0, 1)]
        return [shares[row % 2][row // 2] for row in range(count)]

    monkeypatch.setattr("alignlab.rewards.protocol.distributed.map_rows", divided)
    scored = Checked(Given(lengths)).score(PROMPTS, TEXTS, ENDED)
    assert scored == Scored([3.0, 3.0, 5.0], {"length": [3.0, 3.0, 5.0]}, {"raw": [-3.0, -3.0, -5.0]})
    assert Checked(Given(lengths)).score([], [], []) == Scored([])
