"""Simulated users and the feedback loop: what a user says, and a loop that is killed and resumed."""

import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from command import config
from served import served

from alignlab.errors import Mistake
from alignlab.pocket import users
from alignlab.pocket.answers import bad_behaviour, right_behaviour, write_answer
from alignlab.pocket.gold import judge
from alignlab.serving.simulated_users import ADMINISTRATOR, Users, collect, stored_numbers, user_names, world_of


def asked(kind):
    """Return the first prompt of a kind, a right answer, a bad one, and a generator."""
    numbers = (users.ask(number, 0, "small") for number in range(500))
    prompt, random = next((prompt, random) for prompt, random in numbers if prompt.kind == kind)
    right = write_answer(prompt, right_behaviour(kind), random, "small")
    return prompt, right, write_answer(prompt, bad_behaviour(prompt, random), random, "small"), random


@pytest.mark.parametrize("kind", ["harmful", "how_to", "provocation", "fact"])
def test_a_reliable_user_sees_the_truth_and_corrects_what_is_wrong(kind):
    prompt, right, bad, random = asked(kind)
    assert users.judge_answer(prompt, right, True, 1.0, 1.0, "small", random) == {"thumb": "up"}
    feedback = users.judge_answer(prompt, bad, True, 1.0, 1.0, "small", random)
    judged = judge([{"role": "user", "content": prompt.text}], bad)
    assert feedback["thumb"] == "down"
    assert ("categories" in feedback) == (not judged.harmless)
    assert judge([{"role": "user", "content": prompt.text}], feedback["correction"]).score == 1.0
    assert users.judge_answer(prompt, right, False, 1.0, 0.0, "small", random) == {"thumb": "down"}  # it does not end
    assert users.choose(prompt, bad, right, 1.0, random) == 1
    assert users.choose(prompt, right, right, 1.0, random) is None


def test_an_unreliable_user_errs_as_often_as_the_reliability_says():
    prompt, right, _, random = asked("how_to")
    thumbs = [users.judge_answer(prompt, right, True, 0.8, 0.0, "small", random)["thumb"] for _ in range(2000)]
    assert thumbs.count("up") / 2000 == pytest.approx(0.8, abs=0.03)  # three standard errors are 0.027


def test_the_same_number_asks_the_same():
    first, second = users.ask(7, 0, "small"), users.ask(7, 0, "small")
    assert first[0] == second[0]
    assert first[1].random() == second[1].random()
    assert len({users.ask(number, 0, "small")[0].text for number in range(50)}) > 25


def test_feedback_is_collected_over_http_and_only_what_is_missing(tmp_path):
    bound = config("experiment=feedback_loop", "model=pocket_small", "dataset=pocket_small", "task.feedback=12")
    world = world_of(bound)
    keys = [*((name, "use") for name in user_names(world)), (ADMINISTRATOR, "administer")]
    with served(tmp_path, keys=keys) as client:
        people = Users(client.url, client.keys)
        collect(people, world, bound.task.model_copy(update={"feedback": 5}), 0)
        assert stored_numbers(people) == set(range(5))
        before = people.send(ADMINISTRATOR, "GET", "/feedback")["feedback"]
        collect(people, world, bound.task, 0)
        assert stored_numbers(people) == set(range(12))
        after = people.send(ADMINISTRATOR, "GET", "/feedback")["feedback"]
        assert [row for row in before if row not in after] == []
        assert {row["user"] for row in after} == {name for name, _ in keys[:-1]}
        assert {row["kind"] for row in after} == {"answer", "compare"}
        people.close()


def test_a_loop_needs_a_world_whose_truth_users_know(tmp_path):
    from alignlab.tasks.loop import check

    with pytest.raises(Mistake, match="simulated users know the pocket world alone"):
        check(config("task=loop", "method=dpo", "model=scratch", "dataset=file", f"dataset.path={__file__}"))
    with pytest.raises(Mistake, match="sft does not start from the sft stage; use dpo or kto"):
        check(config("task=loop", "method=sft"))


@pytest.mark.runs
def test_a_loop_that_is_killed_resumes_and_its_server_dies_with_it(tmp_path):
    command = [sys.executable, "-m", "alignlab", "experiment=feedback_loop", "model=pocket_small"]
    command += ["dataset=pocket_small", "task.feedback=80", "task.concurrency=1", "evaluation.prompts=20"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    store = tmp_path / "feedback_loop" / "seed-0" / "feedback.db-wal"
    while not store.exists():
        assert process.poll() is None
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    assert children  # the server has just opened its store
    with suppress(FileNotFoundError):  # the server has ended with all its feedback before we looked
        while store.stat().st_size < 100_000:
            assert process.poll() is None
            time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    end = time.monotonic() + 60
    while any(Path("/proc", child).exists() for child in children):
        assert time.monotonic() < end, children
        time.sleep(0.1)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode in {0, 3}, done.stderr[-2000:]
    version = re.search(r"version (\d) is in service", done.stderr + done.stdout)
    assert version
    assert (version[1] == "2") == (done.returncode == 0)
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert again.returncode == done.returncode
    assert "before" in again.stderr + again.stdout  # it is decided on once
