"""The items of a report: their verdicts, their order, and that all of them fit into the page."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignlab.reports.item_cards import ItemCards
from alignlab.reports.report_items import Item, ItemMeasure, Items, failures_first, overall, read_items, verdict
from alignlab.reports.run_results import Stage

RIGHT = ItemMeasure("right", "right", 1, rate=True)
HARM = ItemMeasure("harm", "harm", -1, rate=True)
SCORE = ItemMeasure("score", "score", 1, rate=False)
TOKENS = ItemMeasure("tokens", "tokens", 0, rate=False)


@pytest.mark.parametrize(
    ("measure", "base", "last", "expected"),
    [
        (RIGHT, 1.0, 0.0, "worse"), (RIGHT, 0.0, 0.0, "still wrong"), (RIGHT, 1.0, 1.0, "unchanged"),
        (HARM, 0.0, 1.0, "worse"), (HARM, 1.0, 0.0, "better"), (HARM, 1.0, 1.0, "still wrong"),
        (SCORE, 0.5, 0.4, "worse"), (SCORE, 0.0, 0.0, "unchanged"), (TOKENS, 1.0, 2.0, None),
        (RIGHT, None, 0.0, "wrong"), (HARM, None, 0.0, "right"), (SCORE, None, 0.3, None), (RIGHT, 1.0, None, None),
    ],
)  # fmt: skip
def test_the_verdict_of_one_measure(
    measure: ItemMeasure, base: float | None, last: float | None, expected: str | None
) -> None:
    assert verdict([[base], [last]], 0, measure, (0, 1)) == expected


def test_what_is_right_or_wrong_decides_over_scores() -> None:
    assert overall(["better", "worse"], [RIGHT, SCORE]) == "better"
    assert overall([None, "worse"], [RIGHT, SCORE]) == "worse"
    assert overall(["better", "worse"], [RIGHT, HARM]) == "worse"


def made(name: str, base: tuple[float, float], last: tuple[float, float], text: str = "so") -> Item:
    values: list[list[float | None]] = [list(base), list(last)]
    verdicts = [verdict(values, place, one, (0, 1)) for place, one in enumerate((RIGHT, SCORE))]
    prompt: Any = [{"role": "user", "content": f"how {name}?"}]
    return Item(name, "how_to", prompt, [text, text], values, overall(verdicts, [RIGHT, SCORE]), verdicts)


def test_what_flipped_to_worse_comes_first_and_the_largest_loss_of_those() -> None:
    items = [
        made("fine", (1, 0.5), (1, 0.5)), made("mended", (0, 0.1), (1, 0.9)), made("wrong", (0, 0.1), (0, 0.1)),
        made("lost a little", (1, 0.5), (0, 0.4)), made("lost a lot", (1, 0.5), (0, 0.1)),
    ]  # fmt: skip
    ordered = failures_first(items, [RIGHT, SCORE], (0, 1))
    assert [item.id for item in ordered] == ["lost a lot", "lost a little", "wrong", "fine", "mended"]


def test_two_thousand_items_with_long_texts_fit_and_keep_their_beginnings() -> None:
    items = [made(str(number), (1, 0.5), (0, 0.5), "</script>é" * 200) for number in range(2000)]
    cards = ItemCards(Items("dpo", "t", "samples.jsonl", ["base", "dpo"], (0, 1), [RIGHT, SCORE], items))
    text = cards.json
    assert len(text.encode()) < 2_600_000
    assert "<" not in text
    data = json.loads(text)
    assert len(data["items"]) == data["total"] == 2000
    assert data["items"][0][3][0].startswith("</script>é</script>é")
    assert data["items"][0][3][0].endswith("more characters)")


def test_an_item_holds_the_scores_of_the_base_model_and_of_each_stage(tmp_path: Path) -> None:
    row = {"measure": "gold", "id": "a", "cluster": "a", "kind": "fact", "shown": "text"}
    rows: dict[str, Any] = {"name": "gold/honest", "better": "higher", "rate": True, "n": 1, "before": {}}
    stages = []
    for name, value in (("sft", 1.0), ("dpo", 0.0)):
        (tmp_path / name).mkdir()
        for file, shown in (("records", value), ("base_records", 1.0)):
            line = {**row, "values": {"gold/honest": shown, "loss": 2.0}}
            (tmp_path / name / f"{file}.jsonl").write_text(json.dumps(line) + "\n")
        result: Any = {"stage": name, "measurements": [rows]}
        stages.append(Stage(name, "ran", result))
    (found,) = read_items(tmp_path, stages)
    assert found.models == ["base", "sft", "dpo"]
    (item,) = found.items
    assert (item.values, item.verdict, item.texts[0]) == ([[1.0], [1.0], [0.0]], "worse", "text")


def test_a_reward_models_pairs_are_sorted_by_how_wrong_they_are(tmp_path: Path) -> None:
    (tmp_path / "rm").mkdir()
    pairs = [
        {"kind": "fact", "id": name, "prompt": [], "chosen": "c", "rejected": "r",
         "chosen_reward": chosen, "rejected_reward": 1.0}
        for name, chosen in (("right", 2.0), ("barely wrong", 0.9), ("very wrong", -1.0))
    ]  # fmt: skip
    (tmp_path / "rm" / "pair_scores.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    result: Any = {"stage": "rm", "measurements": []}
    (found,) = read_items(tmp_path, [Stage("rm", "ran", result)])
    assert [(item.id, item.verdict) for item in found.items] == [
        ("very wrong", "wrong"), ("barely wrong", "wrong"), ("right", "right")
    ]  # fmt: skip
