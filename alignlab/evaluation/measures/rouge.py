"""How much of a reference answer an answer holds, in its order: ROUGE-L, for summaries (Lin 2004).

The reference is the held-out demonstration of the same prompt; of several, the one that fits best. Words are runs of
letters and digits in lower case, without stemming, as the package rouge-score takes them apart. It counts words and
knows no meaning, so it is measured only where `measure` names it.
"""

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from alignlab.errors import failure
from alignlab.evaluation.scores import Scores

if TYPE_CHECKING:
    from alignlab.chat import Turn
    from alignlab.evaluation.protocol import Subject

WORD = re.compile(r"[a-z0-9]+")


def measure(subject: "Subject") -> list[Scores]:
    """Compare every answer with the reference for its prompt."""
    from alignlab.data import view

    references: dict[str, list[str]] = {}
    for row in view(subject.config.dataset, "demonstrations", subject.config.evaluation.split):
        references.setdefault(key(row["prompt"]), []).append(row["completion"])
    if any(key(sample.prompt) not in references for sample in subject.samples):
        raise failure("measure", "rouge needs a reference for each test prompt", "leave rouge out")
    values = [best(sample.completion, references[key(sample.prompt)]) for sample in subject.samples]
    return [Scores("rouge/l", np.array(values), tuple(sample.id for sample in subject.samples), False, "higher")]


def key(turns: "Sequence[Turn]") -> str:
    """A conversation as text, to find it again."""
    return json.dumps([[turn["role"], turn["content"]] for turn in turns])


def best(answer: str, references: Sequence[str]) -> float:
    """The score by the reference that fits best."""
    return max(rouge_l(answer, reference) for reference in references)


def rouge_l(answer: str, reference: str) -> float:
    """The harmonic mean of precision and recall of the longest common subsequence of words; 0 without any."""
    said, wanted = WORD.findall(answer.lower()), WORD.findall(reference.lower())
    common = longest_common(said, wanted)
    return 2 * common / (len(said) + len(wanted)) if common else 0.0


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence, row by row of the usual table."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, 1):
            above = row[place]
            row[place] = diagonal + 1 if word == other else max(above, row[place - 1])
            diagonal = above
    return row[-1]
