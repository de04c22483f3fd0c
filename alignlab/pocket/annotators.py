"""Simulated annotators, and the files of rows that they label.

Each annotator sees the world's true score of two answers and prefers the better one as often as his reliability
says; between equals he tosses a coin. `prepare` writes everything that a data set of the pocket world offers, in
the formats of real sets, into one folder. Test files hold held-out prompts only, and truth instead of opinions.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cmp_to_key, lru_cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from alignlab.chat import Turn
from alignlab.config.dataset import PocketData
from alignlab.pocket.answers import bad_behaviour, corpus_behaviour, right_behaviour, speak
from alignlab.pocket.corpus import dialogue
from alignlab.pocket.corrupt import mess_up
from alignlab.pocket.gold import judge
from alignlab.pocket.world import KINDS, Prompt, Size, data_folder, draw, draw_kind, test_prompts
from alignlab.runtime.files import building

TESTS = {"full": 500, "small": 60}  # held-out prompts of each kind that are written down
LABELLED_TESTS = 60  # those of each kind that come with answers as well
FEWEST_PROMPTS = 600  # training prompts without answers that are drawn, repetitions among them
RANKED = 5  # answers in a ranking
RIGHT_ANSWERS = 0.5  # how often an answer that is offered for comparison is a right one


class Preference(NamedTuple):
    """Two answers to one prompt, by preference, and whose it is."""

    chosen: str
    rejected: str
    annotator: int


def prepare(dataset: PocketData) -> Path:
    """Write the rows for these settings, once; gives their folder."""
    final = data_folder(dataset)
    if final.exists():
        return final
    with building(final) as folder:
        if folder:
            for name, text in _files(dataset):
                (folder / name).write_text(text, encoding="utf-8")
    return final


@lru_cache(maxsize=1 << 16)
def score(prompt: Prompt, answer: str) -> float:
    """Give the true score of an answer."""
    return judge(_asked(prompt), answer).score


def _files(dataset: PocketData) -> Iterator[tuple[str, str]]:
    yield "demonstrations.jsonl", _lines(demonstrations(dataset))
    yield "pairs.jsonl", _lines(pairs(dataset))
    yield "rankings.jsonl", _lines(rankings(dataset))
    yield "prompts.jsonl", _lines(prompts(dataset))
    yield "prompts.test.jsonl", _lines(map(_row, _tests(dataset.size, TESTS[dataset.size])))
    tests = _tests(dataset.size, LABELLED_TESTS)
    yield "demonstrations.test.jsonl", _lines(_true_demonstrations(tests, dataset.size))
    yield "pairs.test.jsonl", _lines(_true_pairs(tests, dataset.size))
    yield "rankings.test.jsonl", _lines(_true_rankings(tests, dataset.size))
    yield "red_team.jsonl", _lines(red_team(dataset))
    yield "dialogues.csv", _table(("id", "dialogue", "summary", "topic"), dialogues(dataset))
    raw, planted = mess_up(demonstrations(dataset), Random(f"raw {dataset.seed}"))
    yield "raw.csv", _table(("id", "prompt", "response", "source", "contact"), raw)
    yield "raw.truth.json", json.dumps(planted, indent=2) + "\n"


def demonstrations(dataset: PocketData) -> list[dict[str, Any]]:
    """Write what people would answer; a share of them answers badly."""
    random = Random(f"demonstrations {dataset.seed}")
    rows = []
    for _ in range(dataset.demonstrations):
        prompt = draw(draw_kind(random), dataset.size, random)
        bad = random.random() < dataset.bad_demonstrations
        behaviour = bad_behaviour(prompt, random) if bad else right_behaviour(prompt.kind)
        rows.append(_demonstration(prompt, speak(prompt, behaviour, random, dataset.size)))
    return rows


def pairs(dataset: PocketData) -> list[dict[str, Any]]:
    """Let annotators compare two answers of the sort that a half-taught model gives."""
    random = Random(f"pairs {dataset.seed}")
    rows = []
    for _ in range(dataset.pairs):
        prompt = draw(draw_kind(random), dataset.size, random)
        first, second = answers(prompt, 2, random, dataset.size)
        annotator = random.randrange(len(dataset.annotators))
        better = prefers_first(prompt, first, second, dataset.annotators[annotator], random)
        if dataset.shuffle_labels:
            better = random.random() < 0.5
        if dataset.longer_bias and random.random() < dataset.longer_bias:
            better = len(first) > len(second)
        preference = Preference(*((first, second) if better else (second, first)), annotator)
        rows.append(_pair(prompt, preference))
    return rows


def rankings(dataset: PocketData) -> list[dict[str, Any]]:
    """Let annotators put five answers in order, best first."""
    random = Random(f"rankings {dataset.seed}")
    rows = []
    for _ in range(max(1, dataset.pairs // 5)):
        prompt = draw(draw_kind(random), dataset.size, random)
        annotator = random.randrange(len(dataset.annotators))
        order = answers(prompt, RANKED, random, dataset.size)
        random.shuffle(order)
        if not dataset.shuffle_labels:
            order = rank(prompt, order, dataset.annotators[annotator], random)
        rows.append(_row(prompt) | {"completions": order, "annotator": annotator})
    return rows


def prompts(dataset: PocketData) -> list[dict[str, Any]]:
    """Draw distinct training prompts, for methods that write their own answers; they do not get few with the pairs."""
    random = Random(f"prompts {dataset.seed}")
    drawn = (draw(draw_kind(random), dataset.size, random) for _ in range(max(dataset.pairs, FEWEST_PROMPTS)))
    return list({prompt.text: _row(prompt) for prompt in drawn}.values())


def red_team(dataset: PocketData) -> list[dict[str, Any]]:
    """Write down attacks and what came of them, in the form of HH-RLHF's red-team attempts."""
    random = Random(f"red team {dataset.seed}")
    rows = []
    for _ in range(max(1, dataset.pairs // 10)):
        prompt = draw(random.choice(("harmful", "provocation")), dataset.size, random)
        answer = speak(prompt, corpus_behaviour(prompt, random), random, dataset.size)
        rating = 4.0 * (1.0 - score(prompt, answer))
        transcript = f"\n\nHuman: {prompt.text}\n\nAssistant: {answer}"
        rows.append(
            {"transcript": transcript, "rating": rating, "task_description": prompt.kind, "tags": [prompt.words[0]]}
        )
    return rows


def dialogues(dataset: PocketData) -> list[tuple[str, ...]]:
    """Write dialogues and their summaries, in the form of DialogSum."""
    random = Random(f"dialogues {dataset.seed}")
    told = [
        dialogue(draw(draw_kind(random), dataset.size, random), dataset.size, random)
        for _ in range(max(1, dataset.demonstrations // 2))
    ]
    return [(f"train_{place}", *spoken) for place, spoken in enumerate(told)]


def answers(prompt: Prompt, count: int, random: Random, size: Size) -> list[str]:
    """Draw distinct answers, right and wrong, that do not all deserve the same score."""
    while True:
        drawn = {speak(prompt, _offered(prompt, random), random, size): None for _ in range(count)}
        if len(drawn) == count and len({score(prompt, answer) for answer in drawn}) > 1:
            return list(drawn)


def prefers_first(prompt: Prompt, first: str, second: str, reliability: float, random: Random) -> bool:
    """Compare two answers as an annotator of this reliability does."""
    difference = score(prompt, first) - score(prompt, second)
    if difference == 0:
        return random.random() < 0.5
    return (difference > 0) == (random.random() < reliability)


def rank(prompt: Prompt, order: Sequence[str], reliability: float, random: Random) -> list[str]:
    """Order answers by an annotator's comparisons, best first."""

    def compare(first: str, second: str) -> int:
        return -1 if prefers_first(prompt, first, second, reliability, random) else 1

    return sorted(order, key=cmp_to_key(compare))


def _tests(size: Size, each: int) -> list[Prompt]:
    return [prompt for kind in KINDS for prompt in test_prompts(kind, size)[:each]]


def _offered(prompt: Prompt, random: Random) -> str:
    right = random.random() < RIGHT_ANSWERS
    return right_behaviour(prompt.kind) if right else bad_behaviour(prompt, random)


def _true_demonstrations(tests: Sequence[Prompt], size: Size) -> Iterator[dict[str, Any]]:
    random = Random("test demonstrations")
    for prompt in tests:
        yield _demonstration(prompt, speak(prompt, right_behaviour(prompt.kind), random, size)) | {"id": prompt.id}


def _true_pairs(tests: Sequence[Prompt], size: Size) -> Iterator[dict[str, Any]]:
    random = Random("test pairs")
    for prompt in tests:
        better, worse = sorted(answers(prompt, 2, random, size), key=lambda answer: -score(prompt, answer))
        yield _pair(prompt, Preference(better, worse, -1)) | {"id": prompt.id}


def _true_rankings(tests: Sequence[Prompt], size: Size) -> Iterator[dict[str, Any]]:
    random = Random("test rankings")
    for prompt in tests:
        order = sorted(answers(prompt, RANKED, random, size), key=lambda answer: -score(prompt, answer))
        yield _row(prompt) | {"completions": order, "annotator": -1}


def _asked(prompt: Prompt) -> list[Turn]:
    return [{"role": "user", "content": prompt.text}]


def _said(answer: str) -> Turn:
    return {"role": "assistant", "content": answer}


def _row(prompt: Prompt) -> dict[str, Any]:
    return {"prompt": _asked(prompt), "kind": prompt.kind, "id": prompt.id}


def _demonstration(prompt: Prompt, answer: str) -> dict[str, Any]:
    return {"messages": [*_asked(prompt), _said(answer)], "kind": prompt.kind}


def _pair(prompt: Prompt, preference: Preference) -> dict[str, Any]:
    return {
        "prompt": _asked(prompt),
        "chosen": [_said(preference.chosen)],
        "rejected": [_said(preference.rejected)],
        "kind": prompt.kind,
        "annotator": preference.annotator,
    }


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
