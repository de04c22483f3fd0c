"""`task=chat`: what streams is the answer, commands change the conversation, pipes and terminals both work."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from command import alignlab, config
from tiny import tiny_model, tiny_tokenizer

from alignlab.models.sampling import Sampling, sample
from alignlab.models.speaker import Speaker, TextStream
from alignlab.pipeline.language_models import language_model
from alignlab.tasks import chat

SHORT = ["task.max_new_tokens=8", "hardware.device=cpu"]
ENDS = "/quit or Ctrl-D ends"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two tiny models with different weights."""
    places = [tmp_path_factory.mktemp("models") / name for name in ("a", "b")]
    for seed, place in enumerate(places):
        tiny_model(seed).save_pretrained(place)
        tiny_tokenizer().save_pretrained(place)
    return places


@pytest.fixture
def talk(folders, tmp_path, monkeypatch, capfd):
    """Return what a session prints for lines of input: answers, other words, and the kept conversations."""

    def run(text, *more):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        place = tmp_path / "run"
        place.mkdir(exist_ok=True)
        chat.run(config("task=chat", f"task.model={folders[0]}", *SHORT, *more), place)
        printed = capfd.readouterr()
        file = place / "conversations.jsonl"
        kept = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return printed.out.splitlines(), printed.err, kept

    return run


def speaker(limit=8, context=64, seed=3):
    return Speaker("tiny", tiny_model(context=context), tiny_tokenizer(), Sampling(1.0, 1.0, limit, 1), seed)


def test_the_streamed_parts_are_the_completion_that_sampling_gives():
    asked = speaker(limit=12)
    turns = [{"role": "user", "content": "how do i bake bread"}]
    most = 0
    for draw, sampled in enumerate(sample(asked.model, asked.tokenizer, [turns] * 6, asked.sampling, asked.seed)):
        parts: list[str] = []
        assert asked.answer(turns, draw, parts.append).completion == sampled
        assert "".join(parts) == sampled.text
        most = max(most, len(parts))
    assert most > 3


def test_a_character_of_several_tokens_is_written_when_it_is_whole():
    from transformers import PreTrainedTokenizerFast

    class Bytes(PreTrainedTokenizerFast):
        added_tokens_decoder = {}

        def __init__(self):
            pass

        def __len__(self):
            return 256

        def decode(self, ids, **_):
            return bytes(ids).decode("utf-8", errors="replace")

    import torch

    parts: list[str] = []
    stream = TextStream(Bytes(), {0}, parts.append)
    for byte in "aé ".encode():
        stream.add(torch.tensor([byte]))
    stream.add(torch.tensor([0]))
    assert parts == ["a", "é"]
    assert stream.finish().text == "aé"


def test_the_conversation_grows_and_the_second_answer_sees_the_first(talk):
    answers, _, kept = talk("how do i bake bread\nwhy\n")
    (row,) = kept
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"] * 2
    assert answers == [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]


def test_two_models_answer_every_message_each_in_its_own_conversation(talk, folders):
    answers, _, kept = talk("how do i bake bread\nwhy\n", f"task.beside={folders[1]}")
    first, second = kept
    assert [first["made_by"], second["made_by"]] == list(map(str, folders))
    texts = [[turn["content"] for turn in row["messages"] if turn["role"] == "assistant"] for row in kept]
    both = [f"[{name}] {text}" for pair in zip(*texts, strict=True) for name, text in zip(folders, pair, strict=True)]
    assert answers == both


def test_commands(talk, tmp_path):
    saved = tmp_path / "saved.jsonl"
    text = f"how\n/undo\nwhy\n/again\n/system stop now\nno\n/save {saved}\n/reset\nyes\n/nothing\n/help\n/quit\nwater\n"
    _, err, kept = talk(text, "task.system=mix water")
    first, second = kept
    assert [turn["content"] for turn in first["messages"]][::2][:1] == ["stop now"]
    assert [turn["content"] for turn in first["messages"] if turn["role"] == "user"] == ["why", "no"]
    assert [turn["content"] for turn in second["messages"] if turn["role"] == "user"] == ["yes"]
    assert second["messages"][0] == {"role": "system", "content": "stop now"}
    assert json.loads(saved.read_text()) == first
    for words in ("taken back: how", f"added to {saved}", "/nothing: unknown command", "/quit          end"):
        assert words in err


def test_undo_and_save_before_a_message_say_so_and_an_empty_session_leaves_no_folder(talk, tmp_path):
    _, err, kept = talk("/undo\n/save x\n/save\n")
    assert err.count("nothing was asked yet") == 3
    assert kept == []
    assert not (tmp_path / "run").exists()


def test_a_full_context_loses_its_oldest_turns_in_one_line():
    asked = speaker(limit=8, context=24)
    asked.turns = [{"role": role, "content": "how do i bake"} for _ in range(3) for role in ("user", "assistant")] + [
        {"role": "user", "content": "why"}
    ]
    kept, note = asked.prompt()
    assert note == "the oldest 4 turns no longer fit into the context of 24 tokens and are left out"
    assert kept == asked.turns[4:]


def test_words_outside_a_small_vocabulary_are_named(talk):
    _, err, _ = talk("how do zebras bake quarks\n")
    assert "not in the model's vocabulary of 20 tokens: zebras, quarks" in err


def test_a_temperature_of_0_takes_the_likeliest_token():
    asked = Speaker("tiny", tiny_model(), tiny_tokenizer(), Sampling(0.0, 1.0, 8, 1), 0)
    turns = [{"role": "user", "content": "how do i bake bread"}]
    texts = {asked.answer(turns, draw, lambda _: None).completion.text for draw in range(5)}
    assert len(texts) == 1


def test_ctrl_c_stops_the_answer_and_keeps_its_beginning():
    asked = speaker(limit=12)

    def write(_):
        raise KeyboardInterrupt

    reply = asked.answer([{"role": "user", "content": "how do i bake bread"}], 0, write)
    assert (reply.stopped, len(reply.completion.tokens)) == (True, 1)


def test_a_folder_of_a_run_of_a_stage_and_of_a_model_name_the_same_model(folders, tmp_path):
    stage = tmp_path / "run" / "sft"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text('{"stage": "sft"}')
    tiny_model().save_pretrained(stage / "model")
    tiny_tokenizer().save_pretrained(stage / "model")
    bound = config("task=chat")
    found = {language_model(bound, "task.model", str(path)).path for path in (tmp_path / "run", stage, stage / "model")}
    assert found == {stage / "model"}


@pytest.mark.runs
def test_the_plan_and_a_model_that_is_not_there(folders, tmp_path):
    done = alignlab("task=chat", f"task.model={folders[0]}", *SHORT, "dry_run=true", folder=tmp_path)
    assert done.stdout == f"chat with {folders[0]}: temperature 0.7, at most 8 tokens\n"
    done = alignlab("task=chat", "task.beside=nowhere", folder=tmp_path)
    assert (done.returncode, "task.beside: nowhere is not there" in done.stderr) == (2, True)


@pytest.mark.runs
def test_a_terminal(folders, tmp_path):
    """A message, Ctrl-C in the middle of a line, a second message, and Ctrl-D."""
    parent, child = pty.openpty()
    arguments = ["task=chat", f"task.model={folders[0]}", *SHORT]
    process = subprocess.Popen(
        [sys.executable, "-m", "alignlab", *arguments],
        cwd=tmp_path, stdin=child, stdout=child, stderr=child, env=os.environ | {"TERM": "dumb"},
    )  # fmt: skip
    os.close(child)
    screen = [""]

    def read():
        if select.select([parent], [], [], 1)[0]:
            screen[0] += os.read(parent, 4096).decode()

    def wait_for(words, times):
        end = time.monotonic() + 240
        while screen[0].count(words) < times:
            assert time.monotonic() < end, screen[0]
            read()

    def interrupt():
        """Send SIGINT until it is seen: Python's readline misses one that arrives just before it waits for a key."""
        for _ in range(24):
            process.send_signal(signal.SIGINT)
            end = time.monotonic() + 10
            while time.monotonic() < end and ENDS not in screen[0]:
                read()
            if ENDS in screen[0]:
                return
        raise AssertionError(screen[0])

    wait_for("\n> ", 1)
    os.write(parent, b"how do i bake bread\n")
    wait_for("\n> ", 2)
    os.write(parent, b"half a line")
    wait_for("half a line", 1)
    interrupt()
    wait_for("\n> ", 2 + screen[0].count(ENDS))
    prompts = screen[0].count("\n> ")
    os.write(parent, b"why now\n")
    wait_for("\n> ", prompts + 1)
    os.write(parent, b"\x04")
    assert process.wait(60) == 0
    (file,) = tmp_path.glob("outputs/*/*-chat/conversations.jsonl")
    messages = json.loads(file.read_text())["messages"]
    assert [turn["content"] for turn in messages if turn["role"] == "user"] == ["how do i bake bread", "why now"]
    assert re.search(r"talking to .*; /help lists the commands", screen[0])
    os.close(parent)
