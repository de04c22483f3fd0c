"""Statistics of a prepared data set, and the page that shows them.

Lengths, languages, kinds, repeated prompts, length bias and sample rows; together with the ledger of the preparation
they make the card that `task=prepare` writes.
"""

import hashlib
import heapq
import json
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.data.contamination import Contamination, contamination
from alignlab.data.language_id import guess_language
from alignlab.data.splits import opening
from alignlab.reports.templates import render

SAMPLES = 8
SHOWN_LENGTH = 1200  # characters of a text in a sample row
SHOWN_REJECTS = 20
LANGUAGE_EVERY = 20  # rows: the language of every 20th row is estimated
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


class Lengths(NamedTuple):
    """The distribution of a length in characters: mean and quantiles."""

    what: str
    mean: float
    quantiles: list[int]


class Bias(NamedTuple):
    """How many of the better completions are longer, shorter, or as long as the next worse one."""

    longer: int
    shorter: int
    equal: int

    @property
    def share(self) -> float | None:
        """Return the share of longer ones where lengths differ; 0.5 means no length bias."""
        decided = self.longer + self.shorter
        return self.longer / decided if decided else None


class Card(NamedTuple):
    """The statistics of a prepared data set."""

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


class Statistics:
    """Counts that grow row by row."""

    def __init__(self) -> None:
        self.lengths = {"prompt": array("q"), "completion": array("q")}
        self.turns, self.kinds, self.authors, self.languages, self.bias = (Counter[str]() for _ in range(5))
        self.openings: Counter[bytes] = Counter()
        self.samples: list[tuple[bytes, int, dict[str, Any]]] = []  # a heap: the rows with the largest hashes of ids
        self.rows = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row."""
        prompt, completions = row["prompt"], row["completions"]
        self.lengths["prompt"].append(sum(len(turn["content"]) for turn in prompt))
        self.lengths["completion"].extend(map(len, completions))
        self.turns[str(len(prompt))] += 1
        self.kinds[row["kind"]] += 1
        self.authors[row["made_by"]] += 1
        self.openings[hash64(opening(prompt))] += bool(prompt)
        for better, worse in pairwise(completions):
            longer, shorter = len(better) > len(worse), len(better) < len(worse)
            self.bias["longer" if longer else "shorter" if shorter else "equal"] += 1
        if self.rows % LANGUAGE_EVERY == 0:
            self.languages[
                guess_language(" ".join([*(turn["content"] for turn in prompt[-1:]), *completions[:1]]))
            ] += 1
        keep = heapq.heappush if len(self.samples) < SAMPLES else heapq.heappushpop
        keep(self.samples, (hash64(row["id"]), self.rows, dict(row)))
        self.rows += 1


def card(splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> Card:
    """Compute the statistics of all rows; training rows, which may be many, are read once."""
    seen = Statistics()
    held_out = contamination({**splits, "train": counted(splits["train"], "train", seen)})
    for name, rows in splits.items():
        if name != "train":
            deque(counted(rows, name, seen), maxlen=0)
    return Card(
        [spread(name, values) for name, values in seen.lengths.items() if values],
        dict(sorted(seen.turns.items(), key=lambda pair: int(pair[0]))),
        most_common(seen.kinds),
        most_common(seen.authors),
        most_common(seen.languages),
        len(+seen.openings),
        sum(count - 1 for count in seen.openings.values() if count > 1),
        Bias(seen.bias["longer"], seen.bias["shorter"], seen.bias["equal"]),
        held_out,
        [shorten(row) for _, _, row in sorted(seen.samples, key=lambda sample: sample[1])],
    )


def hash64(text: str) -> bytes:
    """Hash a text to 8 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def counted(rows: Iterable[Mapping[str, Any]], split: str, statistics: Statistics) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a split, and count each under the name of its split."""
    for row in rows:
        statistics.add({**row, "split": split})
        yield row


def spread(what: str, lengths: Sequence[int]) -> Lengths:
    """Compute the mean and the quantiles of lengths."""
    ordered = sorted(lengths)
    quantiles = [ordered[round(share * (len(ordered) - 1))] for share in QUANTILES]
    return Lengths(what, sum(ordered) / len(ordered), quantiles)


def most_common(counts: Counter[str]) -> dict[str, int]:
    """Return counts by frequency; nothing where the empty name is the only one."""
    return {} if set(counts) <= {""} else dict(counts.most_common())


def shorten(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose long texts end in an ellipsis."""

    def short(text: str) -> str:
        return text if len(text) <= SHOWN_LENGTH else text[:SHOWN_LENGTH] + " …"

    prompt = [{"role": turn["role"], "content": short(turn["content"])} for turn in row["prompt"]]
    return row | {"prompt": prompt, "completions": [short(text) for text in row["completions"]]}


def masking(steps: Mapping[str, Any]) -> str:
    """Return the recall and the false alarms of masking in a sentence; empty where the truth is unknown."""
    notes = steps.get("mask", {}).get("notes", {})
    present = notes.get("found", 0) + notes.get("missed", 0)
    absent = notes.get("false alarm", 0) + notes.get("nothing to mask", 0)
    if not present:
        return ""
    masked, alarms = notes.get("found", 0), notes.get("false alarm", 0)
    recall = f"masking found {masked:,} of {present:,} ({masked / present:.1%})"
    return f"{recall}, with {alarms:,} false alarms in {absent:,} rows"


def as_json(value: Any) -> Any:
    """Return named tuples as JSON objects, with the share of `Bias`."""
    if isinstance(value, Contamination):
        return value.record()
    if isinstance(value, Bias):
        return {**value._asdict(), "share": value.share}
    if hasattr(value, "_asdict"):
        return {name: as_json(inner) for name, inner in value._asdict().items()}
    return [as_json(inner) for inner in value] if isinstance(value, list) else value


def read_rejects(path: Path) -> list[dict[str, Any]]:
    """Read the first broken rows."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for _, line in zip(range(SHOWN_REJECTS), lines, strict=False)]


def page(facts: dict[str, Any], rejects: list[dict[str, Any]]) -> str:
    """Render the card as a page."""
    return render("data_card.html", **facts, rejects=rejects, masking=masking(facts["steps"]))
