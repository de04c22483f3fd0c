"""Perplexity of the held-out demonstrations: exp of the mean negative log-likelihood per token.

The mean is over the tokens of completions, end-of-turn token included, as in supervised fine-tuning. The interval is
over prompts, since the tokens of one completion are not independent. Perplexity tells how well a model predicts the
data's language, not how well it behaves; alignment may raise it.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from alignlab.evaluation.metrics import Metric, Record
from alignlab.evaluation.replies import Item, prompt_hash
from alignlab.evaluation.statistics import mean_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.replies import Reply

VERSION = 1
VIEW = "demonstrations"  # the held-out rows that it needs


def perplexity(sums: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Compute the perplexity from the sums of the negative log-likelihoods and of the tokens."""
    values: NDArray[np.float64] = np.exp(mean_of(sums))
    return values


METRICS = (Metric("eval/perplexity", "lower", ("loss", "tokens"), perplexity),)


def items(context: "Context") -> Iterator[Item]:
    """Ask for the log-probability of each held-out demonstration, of as many of each kind as there are prompts."""
    for row in context.rows(VIEW):
        cluster = prompt_hash(row["prompt"])
        yield Item(row["id"], row["prompt"], row["kind"], (row["completion"],), cluster=cluster)


def score(replies: "Sequence[Reply]", context: "Context") -> Iterator[Record]:
    """Return the loss and the tokens of each demonstration."""
    for reply in replies:
        (one,) = reply.choices
        yield reply.record({"loss": -one.score, "tokens": one.tokens}, shown=reply.item.choices[0])
