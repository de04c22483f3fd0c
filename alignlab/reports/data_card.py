"""Statistics of a prepared data set, and the page that shows them.

Lengths, languages, kinds, repeated prompts, length bias and sample rows; together with the ledger of the preparation
they make the card that `task=prepare` writes.
"""

import hashlib
import heapq
import json
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.data.contamination import Contamination, RowSets, count_all, hash_held_out, hash_row, no_rows
from alignlab.data.language_id import guess_language
from alignlab.data.prepared import Part, Splits, by_parts
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
    """Counts that grow row by row; those of later rows can be added."""

    def __init__(self, rows: int = 0) -> None:
        self.lengths = {"prompt": array("q"), "completion": array("q")}
        self.turns, self.kinds, self.authors, self.languages, self.bias = (Counter[str]() for _ in range(5))
        self.openings = array("Q")  # hashes, one for each prompt
        self.samples: list[tuple[bytes, int, dict[str, Any]]] = []  # the rows with the largest hashes of ids
        self.rows = rows  # rows before the next one

    def add(self, row: Mapping[str, Any], split: str) -> None:
        """Count one row."""
        prompt, completions = row["prompt"], row["completions"]
        self.lengths["prompt"].append(sum(len(turn["content"]) for turn in prompt))
        self.lengths["completion"].extend(map(len, completions))
        self.turns[str(len(prompt))] += 1
        self.kinds[row["kind"]] += 1
        self.authors[row["made_by"]] += 1
        if prompt:
            self.openings.append(int.from_bytes(hash64(opening(prompt))))
        for better, worse in pairwise(completions):
            longer, shorter = len(better) > len(worse), len(better) < len(worse)
            self.bias["longer" if longer else "shorter" if shorter else "equal"] += 1
        if self.rows % LANGUAGE_EVERY == 0:
            self.languages[
                guess_language(" ".join([*(turn["content"] for turn in prompt[-1:]), *completions[:1]]))
            ] += 1
        key = hash64(row["id"])
        if len(self.samples) < SAMPLES or key >= self.samples[0][0]:
            self.keep((key, self.rows, {**row, "split": split}))
        self.rows += 1

    def keep(self, sample: tuple[bytes, int, dict[str, Any]]) -> None:
        """Keep a sample in the heap if it is one of the largest."""
        (heapq.heappush if len(self.samples) < SAMPLES else heapq.heappushpop)(self.samples, sample)

    def merge(self, later: "Statistics") -> None:
        """Add the counts of later rows."""
        for name in ("turns", "kinds", "authors", "languages", "bias"):
            getattr(self, name).update(getattr(later, name))
        for name, values in later.lengths.items():
            self.lengths[name].extend(values)
        self.openings.extend(later.openings)
        for sample in later.samples:
            self.keep(sample)


def card(splits: Splits) -> Card:
    """Compute the statistics of all rows; each row is read once, and held-out rows once more before."""
    held_out = hash_held_out(splits)
    wanted = no_rows().add(row for rows in held_out.values() for row in rows)
    total, trained = Statistics(), no_rows()
    with by_parts(partial(count_part, wanted), {"train": splits["train"], **splits}) as parts:
        for statistics, matches in parts:
            total.merge(statistics)
            trained.merge(matches)
    openings = len(set(total.openings))
    return Card(
        [spread(name, values) for name, values in total.lengths.items() if values],
        dict(sorted(total.turns.items(), key=lambda pair: int(pair[0]))),
        most_common(total.kinds),
        most_common(total.authors),
        most_common(total.languages),
        openings,
        len(total.openings) - openings,
        Bias(total.bias["longer"], total.bias["shorter"], total.bias["equal"]),
        count_all(held_out, trained),
        [shorten(row) for _, _, row in sorted(total.samples, key=lambda sample: sample[1])],
    )


def count_part(wanted: RowSets, part: Part) -> tuple[Statistics, RowSets]:
    """Return the statistics of a part, and the hashes of its training rows that are wanted."""
    statistics, hashes = Statistics(part.first), []
    for row in part.rows:
        statistics.add(row, part.split)
        if part.split == "train":
            hashes.append(hash_row(row))
    return statistics, wanted.common(hashes)


def hash64(text: str) -> bytes:
    """Hash a text to 8 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


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
