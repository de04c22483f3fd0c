"""Interpolated weights: the ends are the parents, the middle is their mean; and the front, by hand."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_model, tiny_tokenizer

from alignlab.errors import Failure
from alignlab.models.soup import interpolate, write_interpolated
from alignlab.reports.front_page import on_front, write_front


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        model = tiny_model()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model.save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    return folders


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_weights_are_interpolated_and_the_ends_are_the_parents_bit_for_bit(parents, weight, tmp_path):
    write_interpolated(*parents, weight, tmp_path / "soup")
    first, second, soup = (load_file(folder / "model.safetensors") for folder in (*parents, tmp_path / "soup"))
    for name, tensor in soup.items():
        expected = torch.lerp(first[name], second[name], weight)
        torch.testing.assert_close(tensor, expected)
        if weight in (0.0, 1.0):
            parent = second if weight else first
            assert tensor.numpy().tobytes() == parent[name].numpy().tobytes()
    assert (tmp_path / "soup" / "tokenizer.json").exists()


def test_bfloat16_is_interpolated_in_float32():
    """1 and 1 + 1/128 are neighbours in bfloat16; the quarter point rounds to the first one."""
    first, second = torch.tensor([1.0], dtype=torch.bfloat16), torch.tensor([1 + 1 / 128], dtype=torch.bfloat16)
    assert interpolate(first, second, 0.25).item() == 1.0
    assert interpolate(first, second, 0.75).item() == 1 + 1 / 128
    negative = torch.tensor([-0.0])
    assert torch.signbit(interpolate(negative, torch.tensor([1.0]), 0.0))  # 1 * -0 + 0 * 1 would be 0
    assert interpolate(torch.tensor([3]), torch.tensor([5]), 0.5).item() == 3  # no mean of counters


def test_models_that_differ_are_refused(parents, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    tensors = load_file(parents[0] / "model.safetensors")
    name = next(iter(tensors))
    save_file(tensors | {name: torch.zeros(2)}, other / "model.safetensors")
    with pytest.raises(Failure, match=f"does not match .*: {name} has another shape or type; give two models"):
        write_interpolated(parents[0], other, 0.5, tmp_path / "soup")
    save_file({"odd": torch.zeros(2)}, other / "model.safetensors")
    with pytest.raises(Failure, match="they have tensors of different names"):
        write_interpolated(parents[0], other, 0.5, tmp_path / "soup")
    (other / "model.safetensors").unlink()
    with pytest.raises(Failure, match="has no weights in safetensors"):
        write_interpolated(parents[0], other, 0.5, tmp_path / "soup")


def test_the_front_is_what_no_other_point_beats():
    points = [(0.0, 1.0), (1.0, 0.0), (0.5, 0.5), (0.4, 0.4), (1.0, -1.0), (0.0, 1.0)]
    assert on_front(points) == [True, True, True, False, False, True]


def test_the_page_marks_the_front_and_knows_which_way_is_better(tmp_path):
    """Less harm is better: the point in the middle has more harm and less help than the second, and than a baseline."""
    values = {"0": (0.1, 0.5), "0.5": (0.3, 0.6), "1": (0.2, 0.9), "kto": (0.15, 0.7)}
    for name, pair in values.items():
        rows = [
            {"name": measure, "value": value, "low": value - 0.05, "high": value + 0.05, "better": better, "n": 60}
            | {"difference": {}, "rate": True, "clusters": 60}
            for measure, value, better in zip(("harm", "help"), pair, ("lower", "higher"), strict=True)
        ]
        (tmp_path / name).mkdir()
        result = {"stage": name, "seed": 0, "measurements": rows, "seconds": 1, "model": "m", "report": "r"}
        (tmp_path / name / "result.json").write_text(json.dumps(result))
    (tmp_path / "plan.json").write_text(json.dumps([{"stage": name, "action": "ran"} for name in values]))
    text = write_front(tmp_path, ("harm", "help"), ["kto"]).read_text()
    assert text.count(">yes</td>") == 3
    assert ">0.5</th>" in text.split(">no</td>")[0].rsplit("<tr>", 1)[1]
    assert (text.count('class="dot c0'), text.count('class="ring c0'), text.count('class="dot c1')) == (2, 1, 1)
    lines = re.findall(r'<polyline class="line c\d" points="([^"]+)"', text)
    assert [len(points.split()) for points in lines] == [3, 1]  # a baseline is no point of the soup
    with pytest.raises(Failure, match=r"task\.axes: odd was not measured; there is harm, help"):
        write_front(tmp_path, ("harm", "odd"))
