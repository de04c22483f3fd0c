"""`task=generate`: prompts of any format, one random stream a completion, and a file that survives a crash."""

import json

import pytest
from command import config
from tiny import tiny_model, tiny_tokenizer

from alignlab.errors import Failure, Mistake
from alignlab.tasks import generate

ROWS = [{"prompt": "how do i bake bread", "tag": 1}, {"messages": [{"role": "user", "content": "why"}]}]
ROWS += [{"instruction": "mix flour", "output": "no", "completion": "taken"}, {"prompt": "yes"}, {"prompt": "stop now"}]


@pytest.fixture
def complete(tmp_path):
    """Return a function that completes rows and gives the lines of the file."""
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def run(*more, file="prompts.jsonl"):
        settings = ("task.max_new_tokens=6", "hardware.device=cpu", f"task.model={tmp_path / 'model'}")
        generate.run(config("task=generate", f"task.prompts={tmp_path / file}", *settings, *more), tmp_path)
        return read(tmp_path / f"{file.partition('.')[0]}.completions.jsonl")

    return run


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_each_row_keeps_its_fields_and_gets_its_completions(complete):
    rows = complete("task.samples=2")
    assert [row["completion_id"] for row in rows] == [f"{n}-{k}" for n in range(1, 6) for k in (1, 2)]
    assert [rows[0]["tag"], rows[2]["messages"], rows[4]["source_completion"]] == [1, ROWS[1]["messages"], "taken"]
    assert all(0 < row["tokens"] <= 6 and isinstance(row["finished"], bool) for row in rows)


def test_a_stream_depends_on_the_row_and_its_number_alone(complete, tmp_path):
    three = complete("task.samples=3", "task.batch_size=2")
    (tmp_path / "prompts.completions.jsonl").unlink()
    one = complete()
    assert [row["completion"] for row in one] == [row["completion"] for row in three[::3]]
    assert complete("task.samples=3") == three  # the missing ones are added
    assert complete() == three  # and none is removed
    assert len({row["completion"] for row in three}) > 5


def test_a_killed_run_resumes_and_a_finished_one_samples_nothing(complete, tmp_path, monkeypatch):
    whole = complete("task.batch_size=1")
    file = tmp_path / "prompts.completions.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[3] + lines[1] + lines[0][:20])
    assert complete("task.batch_size=1") == whole
    monkeypatch.setattr(generate, "sample", None)
    assert complete() == whole


def test_completions_of_other_settings_are_not_mixed(complete):
    complete()
    with pytest.raises(
        Mistake, match=r"task\.output: .*prompts\.completions\.jsonl holds completions of another model"
    ):
        complete("seed=1")


def test_text_lines_csv_and_rows_without_a_prompt(complete, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("why\n\nhow do i bake bread\n")
    assert [row["prompt"] for row in complete(file="a.txt")] == ["why", "how do i bake bread"]
    (tmp_path / "b.csv").write_text("prompt,tag\nwhy,x\n")
    assert [(row["prompt"], row["tag"]) for row in complete(file="b.csv")] == [("why", "x")]
    (tmp_path / "c.jsonl").write_text('{"prompt": "why"}\n{"text": "water"}\n')
    assert len(complete(file="c.jsonl")) == 1
    assert "1 of 2 rows hold no prompt; the first: " in capsys.readouterr().err
    (tmp_path / "d.jsonl").write_text('{"text": "water"}\n')
    with pytest.raises(Failure, match=r"task\.prompts: .*d\.jsonl holds no prompt"):
        complete(file="d.jsonl")


def test_the_plan_counts_what_is_there(complete, tmp_path):
    complete()
    more = (
        f"task.prompts={tmp_path / 'prompts.jsonl'}",
        f"task.model={tmp_path / 'model'}",
        "task.samples=2",
        "task.max_new_tokens=6",
    )
    first, second = generate.plan(config("task=generate", *more))
    assert first == f"generate with {tmp_path / 'model'}: 2 completions to each of 5 prompts"
    assert second.endswith("prompts.completions.jsonl, which holds 5")


def test_a_file_that_is_not_there_is_a_mistake():
    with pytest.raises(Mistake, match=r"task\.prompts: nowhere\.jsonl is not there; give a file of prompts"):
        from alignlab.config.compose import compose

        compose("task=generate", "task.prompts=nowhere.jsonl")


def test_rows_that_their_weights_exclude_are_counted_and_an_empty_file_is_one_sentence(complete, tmp_path, capsys):
    silent = {"messages": [{"role": "user", "content": "why"}, {"role": "assistant", "content": "now", "weight": 0}]}
    (tmp_path / "c.jsonl").write_text(json.dumps(silent) + "\n" + json.dumps({"prompt": "why"}) + "\n")
    assert [row["prompt"] for row in complete(file="c.jsonl")] == ["why"]
    assert "1 of 2 rows hold no prompt" in capsys.readouterr().err
    (tmp_path / "d.txt").write_text("\n \n")
    with pytest.raises(Failure, match=r"task\.prompts: .*d\.txt holds no prompt"):
        complete(file="d.txt")
    (tmp_path / "e.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(Failure, match=r"e\.txt:1"):
        complete(file="e.txt")


def test_completions_without_their_settings_are_not_touched_and_the_plan_says_so(complete, tmp_path):
    complete()
    (tmp_path / "prompts.completions.jsonl.settings").unlink()
    with pytest.raises(
        Mistake, match=r"exists, and prompts\.completions\.jsonl\.settings does not say how it was made"
    ):
        complete()
