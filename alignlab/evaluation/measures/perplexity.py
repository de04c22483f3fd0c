"""Perplexity of the held-out demonstrations: exp of the mean negative log-likelihood per token.

The mean is over the tokens of completions, end-of-turn token included, as in supervised fine-tuning. The interval is
over rows, since the tokens of one completion are not independent. Perplexity tells how well a model predicts the
data's language, not how well it behaves; alignment may raise it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alignlab.chat import Encoded
from alignlab.evaluation.scores import Scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alignlab.evaluation.protocol import Subject

VIEW = "demonstrations"  # the held-out rows that it needs


class Loss(NamedTuple):
    """The mean negative log-likelihood of a completion, in nats per token, and its number of tokens."""

    mean: float
    tokens: int


def measure(subject: "Subject") -> list[Scores]:
    """Measure the held-out demonstrations, as many of each kind as there are evaluation prompts."""
    from alignlab.data import view
    from alignlab.evaluation import select_per_kind
    from alignlab.models.truncation import context_length, encode_within

    settings = subject.config.evaluation
    rows = select_per_kind(list(view(subject.config.dataset, "demonstrations", settings.split)), settings.prompts)
    context, tokenizer = context_length(subject.model.config), subject.tokenizer
    encoded = [encode_within(tokenizer, row["prompt"], [row["completion"]], context)[1][0] for row in rows]
    values, weights = (np.array(column, float) for column in zip(*losses(subject.model, encoded), strict=True))
    ids = tuple(row["id"] for row in rows)
    return [Scores("eval/perplexity", values, ids, False, "lower", weights, exponential=True)]


def losses(model: "PreTrainedModel", rows: Sequence[Encoded]) -> list[Loss]:
    """Return the loss of each completion, in the order of the rows; a row is cut to the model's context."""
    from alignlab.models.log_probs import batches_by_length, completion_log_probs
    from alignlab.models.truncation import context_length, cut_row
    from alignlab.runtime.progress import progress

    context = context_length(model.config)
    kept = [cut_row(row, context) for row in rows]
    means: dict[int, Loss] = {}
    with progress(len(rows), "perplexity", "rows") as advance:
        for batch in completion_log_probs(model, kept, batches_by_length(kept)):
            for row, log_probs in batch.items():
                means[row] = Loss(-float(log_probs.double().mean()), len(log_probs))
            advance(len(batch))
    return [means[row] for row in range(len(rows))]
