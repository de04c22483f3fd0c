"""Answers of a model behind a real server: as many as were asked for, at their length, kept when the server fails."""

import json

import pytest
from chat_server import chat_server
from command import alignlab, config
from tiny import ask

from alignlab.errors import Explained
from alignlab.preferences.sample_answers import Prompt
from alignlab.preferences.sample_from_server import fetch_answers
from alignlab.runtime.journal import Journal

PROMPTS = [Prompt(f"{n:06}", ask(f"question {n}"), str(n), "") for n in range(5)]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def settings(url, **more):
    given = ("task=preferences", "judge=annotators", "preferences.samples=3", "preferences.max_new_tokens=7")
    own = {"url": url, "model": "m", "retries": 1, "backoff": 0.01, "timeout": 2.0, "concurrency": 1} | more
    return config(*given, *(f"preferences.server.{key}={value}" for key, value in own.items())).preferences


def answers(most):
    """A server that gives at most so many answers a request; the last of them is cut short."""

    def script(body, number):
        texts = [f"{body['messages'][-1]['content']} {body['seed']} {n}" for n in range(min(body["n"], most))]
        ends = ["stop"] * (len(texts) - 1) + ["length"]
        choices = [{"message": {"content": t}, "finish_reason": e} for t, e in zip(texts, ends, strict=True)]
        return 200, json.dumps({"choices": choices}), {}

    return script


@pytest.mark.parametrize("most", [1, 2, 3])
def test_every_prompt_gets_as_many_answers_as_were_asked_for(tmp_path, most):
    with chat_server(answers(most)) as server:
        journal = Journal(tmp_path / "answers.jsonl")
        fetch_answers(PROMPTS, settings(server.url), 0, journal)
    assert sorted(journal.rows) == [prompt.id for prompt in PROMPTS]
    for number, row in enumerate(journal.rows[prompt.id] for prompt in PROMPTS):
        assert [one["drawn"] for one in row["answers"]] == [1, 1, 1]
        assert all(one["text"].startswith(f"question {number} ") for one in row["answers"])
        cut = {1: [False] * 3, 2: [True, False, False], 3: [True, True, False]}[most]
        assert [one["finished"] for one in row["answers"]] == cut
    bodies = [body for *_, body in server.asked]
    assert {(body["model"], body["temperature"], body["top_p"], body["max_tokens"]) for body in bodies} == {
        ("m", 1.0, 1.0, 7)
    }
    assert len({body["seed"] for body in bodies}) == len(bodies) == 5 * -(-3 // most)


def test_a_server_that_fails_stops_the_run_which_goes_on_where_it_was(tmp_path):
    whole = answers(3)
    with chat_server(lambda body, number: whole(body, number) if number < 2 else (500, "", {})) as server:
        journal = Journal(tmp_path / "answers.jsonl")
        with pytest.raises(Explained) as caught:
            fetch_answers(PROMPTS, settings(server.url), 0, journal)
        said = (
            f"preferences.server: {server.url} gives no answer to prompt 000002: the server answers 500 (tried 2 times)"
        )
        assert said in str(caught.value)
        assert len(server.asked) in (4, 5)  # one more may have been under way
    kept = Journal(tmp_path / "answers.jsonl")
    assert sorted(kept.rows) == ["000000", "000001"]
    with chat_server(whole) as server:
        fetch_answers(PROMPTS, settings(server.url), 0, kept)
        assert len(server.asked) == 3
    with chat_server(whole) as server:
        undisturbed = Journal(tmp_path / "again.jsonl")
        fetch_answers(PROMPTS, settings(server.url), 0, undisturbed)
    assert undisturbed.rows == kept.rows


def test_a_wrong_name_is_not_tried_again(tmp_path):
    with chat_server(lambda body, number: (404, '{"error": "no such model"}', {})) as server:
        with pytest.raises(Explained, match=r"answers 404 for the model m: .*no such model.*; check url"):
            fetch_answers(PROMPTS, settings(server.url), 0, Journal(tmp_path / "answers.jsonl"))
        asked = [body["messages"][0]["content"] for *_, body in server.asked]
    assert len(set(asked)) == len(asked) <= 2  # nothing twice; one more may have been under way


@pytest.mark.runs
def test_the_command_samples_from_a_server_and_has_its_answers_judged(tmp_path, monkeypatch):
    with chat_server(answers(3)) as server:
        served = [f"preferences.server.url={server.url}", "preferences.server.model=m"]
        small = ["dataset=pocket_small", "model=pocket_small", "preferences.prompts=4", "preferences.samples=3"]
        done = alignlab("task=preferences", "judge=annotators", *small, *served, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "outputs" / "latest" / "preferences.json").read_text())
    assert (facts["policy"], facts["labelled"]) == ("m", 4)
