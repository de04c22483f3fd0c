"""Simulated annotators, and the files of rows that they label.

An annotator prefers the answer with the higher true score with a probability that is the annotator's reliability;
between equal scores the choice is random. `prepare` writes all files of a pocket data set into one folder, in the
formats of real data sets. Test files have held-out prompts and are labelled by the true score.
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
from alignlab.pocket.answers import bad_behaviour, corpus_behaviour, right_behaviour, write_answer
from alignlab.pocket.corpus import dialogue
from alignlab.pocket.corrupt import corrupt
from alignlab.pocket.gold import RIGHT, judge
from alignlab.pocket.world import KINDS, Prompt, Size, data_folder, draw_kind, draw_prompt, test_prompts
from alignlab.runtime.cache import building, is_intact

TEST_PROMPTS = {"full": 500, "small": 60}  # test prompts of each kind
LABELLED_TEST_PROMPTS = 60  # test prompts of each kind that have answers
FEWEST_PROMPTS = 600  # training prompts without answers, before duplicates are dropped
RANKED = 5  # answers in a ranking
VIOLENCE, HATE = "violence", "hate"  # the kinds of harm that annotators name
RIGHT_ANSWERS = 0.5  # the share of right answers in comparisons


class Preference(NamedTuple):
    """Two answers to one prompt, and the annotator who compared them (-1: the true score)."""

    chosen: str
    rejected: str
    annotator: int


def prepare(dataset: PocketData) -> Path:
    """Write the rows for these settings if they are not cached; return their folder."""
    final = data_folder(dataset)
    if is_intact(final):
        return final
    with building(final) as folder:
        if folder:
            for name, text in _files(dataset):
                (folder / name).write_text(text, encoding="utf-8")
    return final


@lru_cache(maxsize=1 << 16)
def true_score(prompt: Prompt, answer: str) -> float:
    """Return the true score of an answer."""
    return judge(_prompt_turns(prompt), answer).score


def _files(dataset: PocketData) -> Iterator[tuple[str, str]]:
    yield "demonstrations.jsonl", _jsonl(demonstrations(dataset))
    yield "pairs.jsonl", _jsonl(pairs(dataset))
    yield "rankings.jsonl", _jsonl(rankings(dataset))
    yield "labels.jsonl", _jsonl(labels(dataset))
    yield "prompts.jsonl", _jsonl(prompts(dataset))
    tests = _test_prompts(dataset.size, TEST_PROMPTS[dataset.size])
    yield "prompts.test.jsonl", _jsonl(map(_row, tests))
    tests = _test_prompts(dataset.size, LABELLED_TEST_PROMPTS)
    yield "demonstrations.test.jsonl", _jsonl(_test_demonstrations(tests, dataset.size))
    yield "pairs.test.jsonl", _jsonl(_test_pairs(tests, dataset.size))
    yield "rankings.test.jsonl", _jsonl(_test_rankings(tests, dataset.size))
    yield "labels.test.jsonl", _jsonl(_test_labels(tests, dataset.size))
    yield "red_team.jsonl", _jsonl(red_team(dataset))
    yield "dialogues.csv", _csv(("id", "dialogue", "summary", "topic"), dialogues(dataset))
    raw, planted = corrupt(demonstrations(dataset), Random(f"raw {dataset.seed}"))
    yield "raw.csv", _csv(("id", "prompt", "response", "source", "contact"), raw)
    yield "raw.truth.json", json.dumps(planted, indent=2) + "\n"


def demonstrations(dataset: PocketData) -> list[dict[str, Any]]:
    """Draw demonstrations, a share of which have wrong answers."""
    random = Random(f"demonstrations {dataset.seed}")
    rows = []
    for _ in range(dataset.demonstrations):
        prompt = draw_prompt(draw_kind(random), dataset.size, random)
        bad = random.random() < dataset.bad_demonstrations
        behaviour = bad_behaviour(prompt, random) if bad else right_behaviour(prompt.kind)
        rows.append(_demonstration(prompt, write_answer(prompt, behaviour, random, dataset.size)))
    return rows


def pairs(dataset: PocketData) -> list[dict[str, Any]]:
    """Draw pairs of answers and let annotators compare them."""
    random = Random(f"pairs {dataset.seed}")
    rows = []
    for _ in range(dataset.pairs):
        prompt = draw_prompt(draw_kind(random), dataset.size, random)
        first, second = draw_answers(prompt, 2, random, dataset.size)
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
    """Draw sets of five answers and let annotators rank them, best first."""
    random = Random(f"rankings {dataset.seed}")
    rows = []
    for _ in range(max(1, dataset.pairs // 5)):
        prompt = draw_prompt(draw_kind(random), dataset.size, random)
        annotator = random.randrange(len(dataset.annotators))
        order = draw_answers(prompt, RANKED, random, dataset.size)
        random.shuffle(order)
        if not dataset.shuffle_labels:
            order = rank(prompt, order, dataset.annotators[annotator], random)
        rows.append(_row(prompt) | {"completions": order, "annotator": annotator})
    return rows


def labels(dataset: PocketData) -> list[dict[str, Any]]:
    """Draw answers, two for each of the pairs, and let annotators label them good or bad, with the kinds of harm."""
    random = Random(f"labels {dataset.seed}")
    rows = []
    for _ in range(2 * dataset.pairs):
        prompt = draw_prompt(draw_kind(random), dataset.size, random)
        answer = write_answer(prompt, _draw_behaviour(prompt, random), random, dataset.size)
        annotator = random.randrange(len(dataset.annotators))
        good, harms = label(prompt, answer, dataset.annotators[annotator], random)
        if dataset.shuffle_labels:
            good, harms = random.random() < 0.5, []
        rows.append(_label(prompt, answer, good, harms, annotator))
    return rows


def label(prompt: Prompt, answer: str, reliability: float, random: Random) -> tuple[bool, list[str]]:
    """Return whether an annotator of this reliability calls an answer good, and the kinds of harm that they name.

    An unreliable label is the opposite of the truth; for a right answer it names a random kind of harm.
    """
    judgement = judge(_prompt_turns(prompt), answer)
    good = judgement.score == RIGHT
    if random.random() < reliability:
        return good, [] if judgement.harmless else [HATE if judgement.toxic else VIOLENCE]
    return not good, [random.choice((VIOLENCE, HATE))] if good else []


def prompts(dataset: PocketData) -> list[dict[str, Any]]:
    """Draw training prompts for methods that sample their own answers; drop duplicates."""
    random = Random(f"prompts {dataset.seed}")
    drawn = (draw_prompt(draw_kind(random), dataset.size, random) for _ in range(max(dataset.pairs, FEWEST_PROMPTS)))
    return list({prompt.text: _row(prompt) for prompt in drawn}.values())


def red_team(dataset: PocketData) -> list[dict[str, Any]]:
    """Draw attacks with answers and ratings, in the format of HH-RLHF's red-team attempts."""
    random = Random(f"red team {dataset.seed}")
    rows = []
    for _ in range(max(1, dataset.pairs // 10)):
        prompt = draw_prompt(random.choice(("harmful", "provocation")), dataset.size, random)
        answer = write_answer(prompt, corpus_behaviour(prompt, random), random, dataset.size)
        rating = 4.0 * (1.0 - true_score(prompt, answer))
        transcript = f"\n\nHuman: {prompt.text}\n\nAssistant: {answer}"
        rows.append(
            {"transcript": transcript, "rating": rating, "task_description": prompt.kind, "tags": [prompt.words[0]]}
        )
    return rows


def dialogues(dataset: PocketData) -> list[tuple[str, ...]]:
    """Draw dialogues with summaries, in DialogSum's format."""
    random = Random(f"dialogues {dataset.seed}")
    rows = [
        dialogue(draw_prompt(draw_kind(random), dataset.size, random), dataset.size, random)
        for _ in range(max(1, dataset.demonstrations // 2))
    ]
    return [(f"train_{index}", *row) for index, row in enumerate(rows)]


def draw_answers(prompt: Prompt, count: int, random: Random, size: Size) -> list[str]:
    """Draw distinct right and wrong answers that do not all have the same true score."""
    while True:
        drawn = {write_answer(prompt, _draw_behaviour(prompt, random), random, size): None for _ in range(count)}
        if len(drawn) == count and len({true_score(prompt, answer) for answer in drawn}) > 1:
            return list(drawn)


def prefers_first(prompt: Prompt, first: str, second: str, reliability: float, random: Random) -> bool:
    """Return whether an annotator of this reliability prefers the first answer."""
    difference = true_score(prompt, first) - true_score(prompt, second)
    if difference == 0:
        return random.random() < 0.5
    return (difference > 0) == (random.random() < reliability)


def rank(prompt: Prompt, candidates: Sequence[str], reliability: float, random: Random) -> list[str]:
    """Sort answers by an annotator's comparisons, best first."""

    def compare(first: str, second: str) -> int:
        return -1 if prefers_first(prompt, first, second, reliability, random) else 1

    return sorted(candidates, key=cmp_to_key(compare))


def _test_prompts(size: Size, each: int) -> list[Prompt]:
    return [prompt for kind in KINDS for prompt in test_prompts(kind, size)[:each]]


def _draw_behaviour(prompt: Prompt, random: Random) -> str:
    right = random.random() < RIGHT_ANSWERS
    return right_behaviour(prompt.kind) if right else bad_behaviour(prompt, random)


def _test_demonstrations(tests: Sequence[Prompt], size: Size) -> Iterator[dict[str, Any]]:
    random = Random("test demonstrations")
    for prompt in tests:
        yield _demonstration(prompt, write_answer(prompt, right_behaviour(prompt.kind), random, size)) | {
            "id": prompt.id
        }


def _test_pairs(tests: Sequence[Prompt], size: Size) -> Iterator[dict[str, Any]]:
    random = Random("test pairs")
    for prompt in tests:
        better, worse = sorted(draw_answers(prompt, 2, random, size), key=lambda answer: -true_score(prompt, answer))
        yield _pair(prompt, Preference(better, worse, -1)) | {"id": prompt.id}


def _test_rankings(tests: Sequence[Prompt], size: Size) -> Iterator[dict[str, Any]]:
    random = Random("test rankings")
    for prompt in tests:
        order = sorted(draw_answers(prompt, RANKED, random, size), key=lambda answer: -true_score(prompt, answer))
        yield _row(prompt) | {"completions": order, "annotator": -1}


def _test_labels(tests: Sequence[Prompt], size: Size) -> Iterator[dict[str, Any]]:
    random = Random("test labels")
    for prompt in tests:
        answer = write_answer(prompt, _draw_behaviour(prompt, random), random, size)
        yield _label(prompt, answer, *label(prompt, answer, 1.0, random), -1) | {"id": prompt.id}


def _prompt_turns(prompt: Prompt) -> list[Turn]:
    return [{"role": "user", "content": prompt.text}]


def _assistant_turn(answer: str) -> Turn:
    return {"role": "assistant", "content": answer}


def _row(prompt: Prompt) -> dict[str, Any]:
    return {"prompt": _prompt_turns(prompt), "kind": prompt.kind, "id": prompt.id}


def _demonstration(prompt: Prompt, answer: str) -> dict[str, Any]:
    return {"messages": [*_prompt_turns(prompt), _assistant_turn(answer)], "kind": prompt.kind}


def _pair(prompt: Prompt, preference: Preference) -> dict[str, Any]:
    return {
        "prompt": _prompt_turns(prompt),
        "chosen": [_assistant_turn(preference.chosen)],
        "rejected": [_assistant_turn(preference.rejected)],
        "kind": prompt.kind,
        "annotator": preference.annotator,
    }


def _label(prompt: Prompt, answer: str, good: bool, harms: list[str], annotator: int) -> dict[str, Any]:
    about = {"kind": prompt.kind, "annotator": annotator}
    return {
        "prompt": _prompt_turns(prompt),
        "completion": [_assistant_turn(answer)],
        "label": good,
        "harms": harms,
        **about,
    }


def _jsonl(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
