"""`task=preferences` from end to end: killed and gone on with, judged by a server that errs, learned from."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from chat_server import chat_server, honest, said
from command import config

from alignlab.errors import Failure, Mistake
from alignlab.pipeline.launch import launch

pytestmark = pytest.mark.runs
SMALL = ("model=pocket_small", "dataset=pocket_small", "hardware.device=cpu", "hardware.threads=1")
FILES = ("answers.jsonl", "labels.jsonl", "data/pairs.jsonl", "data/rankings.jsonl")
SLOW = """
import time


def reward(prompts, completions, finished):
    time.sleep(0.2)
    return [float(text.count("e")) for text in completions]
"""


def run(folder, *arguments):
    """The command in this process; gives what it found."""
    launch(config("tracking=jsonl", *arguments), folder)
    return folder


def facts(folder):
    return json.loads((folder / "preferences.json").read_text())


def rows(path):
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def filled(table):
    """The table that people get, ranked by length; gives its path."""
    with table.open(encoding="utf-8", newline="") as stream:
        answers = list(csv.DictReader(stream))
    for one in answers:
        longer = [other for other in answers if other["item"] == one["item"] and len(other["text"]) > len(one["text"])]
        one.update(safety=1 + len(longer), helpfulness=1 + len(longer), labeler="anna")
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, answers[0])
        writer.writeheader()
        writer.writerows(answers)
    return table


def killed(arguments, folder, cache, journal, lines):
    """Start the command and kill it once its journal has so many lines; gives how many it was killed with."""
    command = [sys.executable, "-m", "alignlab", *arguments]
    begun = subprocess.Popen(
        command, cwd=folder, env=os.environ | {"ALIGNLAB_CACHE": str(cache)}, stdout=subprocess.DEVNULL
    )

    def done():
        return sum(path.read_bytes().count(b"\n") for path in (cache / "preferences").glob(f"{journal}-*.jsonl"))

    while begun.poll() is None and done() < lines:
        time.sleep(0.01)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    return done()


def test_a_run_that_is_killed_twice_ends_with_the_same_files(tmp_path, data_folder, monkeypatch):
    (tmp_path / "slow_reward.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    hh = data_folder / "hh-rlhf"
    arguments = (
        *("task=preferences", "judge=reward", "judge.batch_size=4", "reward=function"),
        *("reward.function=slow_reward:reward", "hardware.device=cpu", "hardware.threads=1"),
        *("model=scratch", "model.hidden_size=32", "model.num_hidden_layers=1", "model.vocab_size=600"),
        *("dataset=hh_rlhf", f"dataset.train={hh / 'harmless-base.train.2000.jsonl'}", "dataset.max_rows=200"),
        *(f"dataset.test={hh / 'harmless-base.test.dev.jsonl'}", "preferences.prompts=40", "preferences.samples=3"),
        *("preferences.max_new_tokens=16", "preferences.batch_size=4"),
    )
    assert 4 <= killed(arguments, tmp_path, tmp_path / "cache", "answers", 4) < 40
    assert 4 <= killed(arguments, tmp_path, tmp_path / "cache", "labels", 4) < 40
    gone_on = run(tmp_path / "gone on", *arguments)
    for journal in (tmp_path / "cache" / "preferences").glob("*.jsonl"):
        journal.unlink()
    alone = run(tmp_path / "alone", *arguments)
    assert {name: (gone_on / name).read_bytes() for name in FILES} == {
        name: (alone / name).read_bytes() for name in FILES
    }
    assert len(rows(alone / "answers.jsonl")) == 40
    assert [split["split"] for split in facts(alone)["contamination"]] == ["validation", "test"]


def test_a_server_that_errs_and_what_is_learned_from_its_labels(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def moody(body, number):
        errs = {0: (429, "", {"Retry-After": "0.1"}), 1: (500, "", {}), 2: (200, "{", {}), 3: said("[]")}
        return errs[number % 7] if number % 7 in errs else honest(body, number)

    with chat_server(moody) as server:
        judge = ("judge=openai", f"judge.url={server.url}", "judge.model=m", "judge.backoff=0.01", "judge.retries=19")
        sampled = ("task=preferences", *SMALL, "preferences.prompts=60")
        task = (*sampled, *judge, "judge.price_read=1.0")
        labelled = run(tmp_path / "labelled", *task)
        asked = len(server.asked)
        server.script = lambda body, number: (401, "", {})
        table = filled(run(tmp_path / "handed out", *sampled, "judge=human") / "to_fill_in.csv")
        people = (f"preferences.people.path=[{table}]", "preferences.people.price=0.5")
        again = run(tmp_path / "again", *task, "preferences.consensus=borda", *people)
        assert len(server.asked) == asked  # every label is there, so nothing is asked
        with pytest.raises(Failure, match="answers 401 for the model other"):
            run(tmp_path / "stopped", *task, "judge.model=other")
    told, compared = facts(labelled), sum(len(row["answers"]) > 1 for row in rows(labelled / "answers.jsonl"))
    tried = told["cost"]["again"]
    assert told["labelled"] == told["compared"] == compared
    card = (labelled / "data" / "README.md").read_text()
    assert (
        f"{compared} of {compared} prompts with different answers were labelled, by m, which ranked by safety and"
        in card
    )
    assert set(tried) == {"429", "500", "broken answer", "nonsense"}
    assert asked == 2 * compared + sum(tried.values())  # two orders a prompt, and every further try is counted
    assert told["cost"]["money"] == pytest.approx(100 * (2 * compared + tried["nonsense"]) / 1e6)
    for row in rows(labelled / "data" / "pairs.jsonl"):
        assert len(row["chosen"][0]["content"]) > len(row["rejected"][0]["content"])
    assert (again / "labels.jsonl").read_bytes() == (labelled / "labels.jsonl").read_bytes()
    saved = facts(again)["saving"]
    assert saved["agree"] == saved["pairs"] > 100  # people rank by length, too
    assert saved["counted"] == saved["at_most"] == pytest.approx(1 - told["cost"]["price"] / 0.5)
    assert told["saving"]["counted"] is None

    voted = (*sampled, "judge=annotators")
    panel = facts(run(tmp_path / "panel", *voted, f"preferences.panel=[{labelled}]"))
    assert [one["name"] for one in panel["labelers"]] == [*(f"annotator {n}" for n in range(1, 6)), "m"]
    with pytest.raises(Mistake, match="holds no labels; give the folder of a finished task=preferences run"):
        run(tmp_path / "none", *voted, f"preferences.panel=[{tmp_path}]")
    with pytest.raises(Failure, match=r"preferences.panel: .* is about other answers"):
        run(tmp_path / "other", *voted, f"preferences.panel=[{labelled}]", "seed=1")

    small = ("model=scratch", "model.hidden_size=32", "model.num_hidden_layers=1", "model.vocab_size=400")
    for method, data in (("rm", "data/pairs.jsonl"), ("sft", "data/best")):
        learned = tmp_path / method / data.replace("/", "-")
        source = ("dataset=file", f"dataset.path={labelled / data}", "dataset.test=0.2", "evaluation=none")
        run(learned, f"method={method}", *small, *source, "method.max_steps=2", "hardware.threads=1")
        assert (learned / method / "model" / "config.json").exists()
