"""What a prepared data set is like, worked out in one pass over its rows.

Lengths, languages, kinds, repeated questions, how often the better answer is the longer one, and a few rows to look
at; beside the ledger these make the card that `task=prepare` shows.
"""

import hashlib
import heapq
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.data.contamination import Contamination, contamination
from alignlab.data.language_id import guess_language
from alignlab.data.splits import opening
from alignlab.reports.templates import render

SAMPLES = 8
LANGUAGE_OF = 20  # the language is guessed of every so manieth row
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


class Lengths(NamedTuple):
    """The spread of a length in characters: mean and quantiles."""

    what: str
    mean: float
    quantiles: list[int]


class Bias(NamedTuple):
    """How often the better of two answers is the longer one, out of those that differ in length."""

    longer: int
    shorter: int
    equal: int

    @property
    def share(self) -> float | None:
        """The share of pairs whose better answer is longer; a length-blind labeller would come to a half."""
        decided = self.longer + self.shorter
        return self.longer / decided if decided else None


class Card(NamedTuple):
    """The facts of a prepared set."""

    lengths: list[Lengths]
    turns: dict[str, int]
    kinds: dict[str, int]
    made_by: dict[str, int]
    languages: dict[str, int]
    openings: int
    repeated_openings: int
    bias: Bias
    contamination: list[Contamination]
    samples: list[dict[str, Any]]


def card(splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> Card:
    """Read the rows of every split once and tell what they are like."""
    prompt_lengths, answer_lengths = array("q"), array("q")
    turns, kinds, made_by, languages, bias = (Counter[str]() for _ in range(5))
    openings: Counter[bytes] = Counter()
    samples: list[tuple[bytes, int, dict[str, Any]]] = []
    for number, row in enumerate(every(splits)):
        prompt, answers = row["prompt"], row["completions"]
        prompt_lengths.append(sum(len(turn["content"]) for turn in prompt))
        answer_lengths.extend(map(len, answers))
        turns[str(len(prompt))] += 1
        kinds[row["kind"]] += 1
        made_by[row["made_by"]] += 1
        openings[hashlib.blake2b(opening(prompt).encode(), digest_size=8).digest()] += bool(prompt)
        for better, worse in pairwise(answers):
            bias["longer" if len(better) > len(worse) else "shorter" if len(better) < len(worse) else "equal"] += 1
        if number % LANGUAGE_OF == 0:
            languages[guess_language(" ".join([*(turn["content"] for turn in prompt[-1:]), *answers[:1]]))] += 1
        mark = hashlib.blake2b(row["id"].encode(), digest_size=8).digest()
        keep = heapq.heappush if len(samples) < SAMPLES else heapq.heappushpop
        keep(samples, (mark, number, dict(row)))
    return Card(
        [spread(name, values) for name, values in (("prompt", prompt_lengths), ("answer", answer_lengths)) if values],
        ordered(turns),
        ordered(kinds),
        ordered(made_by),
        ordered(languages),
        len(+openings),
        sum(count - 1 for count in openings.values() if count > 1),
        Bias(bias["longer"], bias["shorter"], bias["equal"]),
        contamination(splits),
        [shortened(row) for _, _, row in sorted(samples, key=lambda one: one[1])],
    )


def every(splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> Iterator[Mapping[str, Any]]:
    """The rows of all splits, each with the name of its own."""
    for name, rows in splits.items():
        for row in rows:
            yield {**row, "split": name}


def spread(what: str, lengths: Sequence[int]) -> Lengths:
    """The mean and the quantiles of lengths."""
    found = sorted(lengths)
    quantiles = [found[round(share * (len(found) - 1))] for share in QUANTILES]
    return Lengths(what, sum(found) / len(found), quantiles)


def ordered(found: Counter[str]) -> dict[str, int]:
    """Counts by frequency, without the empty name where it stands alone."""
    return {} if set(found) <= {""} else dict(found.most_common())


def shortened(row: dict[str, Any], most: int = 1200) -> dict[str, Any]:
    """A row to look at: long texts end in an ellipsis."""

    def short(text: str) -> str:
        return text if len(text) <= most else text[:most] + " …"

    prompt = [{"role": turn["role"], "content": short(turn["content"])} for turn in row["prompt"]]
    return row | {"prompt": prompt, "completions": [short(text) for text in row["completions"]]}


def masking(steps: Mapping[str, Any]) -> str:
    """Recall and false alarms of the masking in words, where the truth was known."""
    notes = steps.get("mask", {}).get("notes", {})
    there = notes.get("found", 0) + notes.get("missed", 0)
    clear = notes.get("false alarm", 0) + notes.get("nothing to mask", 0)
    if not there:
        return ""
    found, wrong = notes.get("found", 0), notes.get("false alarm", 0)
    return f"masking found {found:,} of {there:,} ({found / there:.1%}), with {wrong:,} false alarms in {clear:,} rows"


def plain(value: Any) -> Any:
    """Named tuples as JSON writes them: objects, with what the properties of `Bias` work out."""
    if isinstance(value, Contamination):
        return value.record()
    if hasattr(value, "_asdict"):
        more = {"share": value.share} if hasattr(value, "share") else {}
        return {name: plain(inner) for name, inner in value._asdict().items()} | more
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def read_rejects(path: Path, most: int = 20) -> list[dict[str, Any]]:
    """The first broken rows."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for _, line in zip(range(most), lines, strict=False)]


def page(facts: dict[str, Any], rejects: list[dict[str, Any]]) -> str:
    """The card as one page; everything in it is escaped."""
    return render("data_card.html", **facts, rejects=rejects, masking=masking(facts["steps"]))
