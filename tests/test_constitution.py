"""Constitutions: what is drawn from them, and that a file's faults are told with file, line and field."""

from collections import Counter
from pathlib import Path

import pytest
import yaml
from command import ROOT, alignlab

from alignlab.config import command_line
from alignlab.config.compose import bind_tree, check
from alignlab.config.constitution import Constitution, read
from alignlab.errors import Failure, Mistake

OWN = sorted(path for path in (ROOT / "conf" / "constitution").glob("*.yaml") if path.stem != "auto")


def principle(**changed):
    asked = "{prompt} Which is better? (A) {first} (B) {second}"
    own = {"name": "n", "critique_request": "c?", "revision_request": "r.", "preference_question": asked, "good": "ok"}
    return {**own, **changed}


def written(path: Path, *principles, **more) -> Path:
    path.write_text(yaml.safe_dump({"principles": [*principles], "choices": ["A", "B"], **more}, sort_keys=False))
    return path


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_our_own_are_sound(path):
    found = read(path)
    assert found.principles
    assert len({one.name for one in found.principles}) == len(found.principles)


def test_principles_are_drawn_by_their_weights_and_their_seed():
    tree = {"principles": [principle(name="often", weight=3), principle(name="seldom")], "choices": ["A", "B"]}
    found = Constitution.model_validate(tree)
    drawn = [one.name for one in found.draw(4000, "seed")]
    assert Counter(drawn)["often"] / 4000 == pytest.approx(0.75, abs=0.03)
    assert [one.name for one in found.draw(4000, "seed")] == drawn
    assert [one.name for one in found.draw(4000, "other")] != drawn


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("principles: []\nchoices: [A, B]\n", "{path}:1: principles: is empty; write at least one principle"),
        ("choices: [A, B]\n", "{path}:1: principles: is missing; add principles: …"),
        ("principles:\n  - name: x\n", "{path}:2: principles.0.good: is missing; add good: …"),
        ("principles:\n  - name: x\n    god: y\n", "{path}:3: principles.0.god: unknown key; did you mean 'good'?"),
        ("principles: [\n", "{path}: is no YAML"),
    ],
)
def test_a_fault_is_told_with_file_line_and_field(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises((Mistake, Failure)) as found:
        read(path)
    assert said.format(path=path) in str(found.value)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("{prompt} (A) {first}", "{second} is missing; write {prompt}, {first} and {second}"),
        ("{prompt} {first} {second} {third}", "unknown slot {third}"),
        ("{prompt} {first} {second} {", "write {prompt}, {first} and {second}"),
    ],
)
def test_a_question_needs_its_slots(tmp_path, question, said):
    path = written(tmp_path / "mine.yaml", principle(), principle(preference_question=question))
    with pytest.raises(Mistake) as found:
        read(path)
    assert said in str(found.value)
    assert f"{path}:" in str(found.value)
    assert "principles.1.preference_question" in str(found.value)


def test_a_file_of_ones_own_works_as_the_others_do(tmp_path):
    path = written(tmp_path / "mine.yaml", principle(name="mine"))
    overrides, groups = command_line.read(["method=cai", f"constitution={path}"])
    with command_line.stored(groups):
        tree = check(overrides, binds=True, groups=groups).trees[0]
    config = bind_tree(tree)
    assert [one.name for one in config.method.constitution.principles] == ["mine"]
    assert [one.name for one in config.stages["cai_sft"].constitution.principles] == ["mine"]


def test_a_command_with_a_faulty_file_gets_its_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("principles: []\nchoices: [A, B]\n")
    done = alignlab("method=cai", "constitution=mine.yaml", folder=tmp_path)
    assert (done.returncode, done.stderr) == (
        2, "mine.yaml:1: principles: is empty; write at least one principle\n",
    )  # fmt: skip
    done = alignlab("method=cai", "constitution=absent.yaml", folder=tmp_path)
    assert done.stderr == "constitution: absent.yaml is not there; give a YAML file, or the name of a constitution\n"
