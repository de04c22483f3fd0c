"""Measure ROUGE-L of completions against reference summaries (Lin 2004).

The reference is the held-out demonstration of the same prompt; of several, the one with the highest score. Words are
runs of letters and digits in lower case, without stemming, as in the package rouge-score. ROUGE compares words and not
meanings, so it is measured only where `measure` names it.
"""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from alignlab.errors import failure
from alignlab.evaluation.items import references
from alignlab.evaluation.metrics import SHARE, Record, mean
from alignlab.evaluation.replies import prompt_hash

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.replies import Reply

VERSION = 1
METRICS = (mean("rouge/l", "higher", bounds=SHARE),)
WORD = re.compile(r"[a-z0-9]+")
VIEW = "demonstrations"  # the held-out rows that it needs


def score(replies: "Sequence[Reply]", context: "Context") -> Iterator[Record]:
    """Compare every completion with the references of its prompt."""
    answers = references(context)
    for reply in replies:
        if (key := prompt_hash(reply.item.prompt)) not in answers:
            raise failure("measure", "rouge needs a reference for each test prompt", "leave rouge out")
        yield reply.record({"rouge/l": best(reply.text, answers[key])})


def best(completion: str, references: Sequence[str]) -> float:
    """Return the highest score over the references."""
    return max(rouge_l(completion, reference) for reference in references)


def rouge_l(completion: str, reference: str) -> float:
    """Compute the harmonic mean of precision and recall of the longest common subsequence of words."""
    words, expected = WORD.findall(completion.lower()), WORD.findall(reference.lower())
    common = longest_common(words, expected)
    return 2 * common / (len(words) + len(expected)) if common else 0.0


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, by dynamic programming one row at a time."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, 1):
            above = row[place]
            row[place] = diagonal + 1 if word == other else max(above, row[place - 1])
            diagonal = above
    return row[-1]
