"""How surprising the held-out demonstrations' answers are to a model: exp of the mean loss a token.

The mean is over tokens of completions, end-of-turn token included, as the loss of supervised fine-tuning is; the
interval is over rows, since the tokens of one answer are not independent. It says how well a model speaks the
data's language, not how well it behaves: alignment may raise it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alignlab.chat import Encoded
from alignlab.config.schema import Config
from alignlab.evaluation.scores import Scores

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from alignlab.evaluation import Subject

TOKENS = 8192  # in one forward pass, so that the logits of a large vocabulary fit into memory


class Loss(NamedTuple):
    """The mean negative log-likelihood of a completion, in nats a token, and its number of tokens."""

    mean: float
    tokens: int


def applies(config: Config) -> str:
    """Both kinds of data set hold demonstrations."""
    return ""


def measure(subject: "Subject") -> list[Scores]:
    """Read the held-out demonstrations, as many of each kind as prompts are answered."""
    from alignlab.chat import encode
    from alignlab.data import view
    from alignlab.evaluation import spread

    settings = subject.config.evaluation
    rows = spread(
        list(view(subject.config.dataset, "demonstrations", subject.config.evaluation.split)), settings.prompts
    )
    encoded = [encode(subject.tokenizer, row["prompt"], row["completion"]) for row in rows]
    found = losses(subject.model, encoded)
    values, weights = (np.array(column, float) for column in zip(*found, strict=True))
    ids = tuple(row["id"] for row in rows)
    return [Scores("eval/perplexity", values, ids, False, "lower", weights, exponential=True)]


def losses(model: "PreTrainedModel", rows: Sequence[Encoded]) -> list[Loss]:
    """The loss of each completion, in the order given; rows of like length share a forward pass.

    A row that is longer than the model's context loses the beginning of its prompt, then the end of its completion.
    """
    from alignlab.runtime.progress import progress

    context = getattr(model.config, "max_position_embeddings", None) or max(map(size, rows))
    fitted = [fit(row, context) for row in rows]
    order = sorted(range(len(fitted)), key=lambda row: size(fitted[row]))
    found: dict[int, Loss] = {}
    with progress(len(rows), "perplexity", "rows") as advance:
        while order:
            longest = size(fitted[order[-1]])
            count = max(1, TOKENS // longest)
            part, order = order[-count:], order[:-count]
            found.update(zip(part, batch_losses(model, [fitted[row] for row in part]), strict=True))
            advance(len(part))
    return [found[row] for row in range(len(rows))]


def size(row: Encoded) -> int:
    """The number of tokens of a row."""
    return len(row.prompt) + len(row.completion)


def fit(row: Encoded, context: int) -> Encoded:
    """Cut a row to a number of tokens; one token of the prompt stays, to predict the first of the completion."""
    completion = row.completion[: context - 1]
    return Encoded(row.prompt[-(context - len(completion)) :], completion)


def batch_losses(model: "PreTrainedModel", rows: Sequence[Encoded]) -> list[Loss]:
    """Losses of rows that fit into one forward pass; padding is on the right and masked."""
    import torch

    if model.config.is_encoder_decoder:
        return decoder_losses(model, rows)

    width = max(map(size, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for place, row in enumerate(rows):
        ids[place, : size(row)] = torch.tensor([*row.prompt, *row.completion])
        mask[place, : size(row)] = 1
        labels[place, len(row.prompt) : size(row)] = torch.tensor(row.completion)
    with torch.inference_mode():
        logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
        sums = summed_losses(logits, labels.to(model.device))
    return means(sums, rows)


def decoder_losses(model: "PreTrainedModel", rows: Sequence[Encoded]) -> list[Loss]:
    """The same for an encoder-decoder: the encoder reads the prompt, the decoder writes the completion."""
    import torch

    prompts, completions = ([torch.tensor(ids) for ids in side] for side in zip(*rows, strict=True))
    pad = torch.nn.utils.rnn.pad_sequence
    ids, labels = pad(prompts, batch_first=True), pad(completions, batch_first=True, padding_value=-100)
    mask = pad([torch.ones_like(prompt) for prompt in prompts], batch_first=True)
    ids, mask, labels = (tensor.to(model.device) for tensor in (ids, mask, labels))
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask, labels=labels).logits
        return means(summed_losses(logits, labels, shift=0), rows)


def means(sums: "torch.Tensor", rows: Sequence[Encoded]) -> list[Loss]:
    """The loss a token, from each row's sum."""
    counts = [len(row.completion) for row in rows]
    return [Loss(total / count, count) for total, count in zip(sums.tolist(), counts, strict=True)]


def summed_losses(logits: "torch.Tensor", labels: "torch.Tensor", shift: int = 1) -> "torch.Tensor":  # [batch]
    """Negative log-likelihood summed over each row's labels that are not -100; logits [batch, width, vocabulary].

    A decoder's logit is about the next place (shift 1), an encoder-decoder's about its own (shift 0).
    """
    from torch.nn.functional import cross_entropy

    about = logits[:, : logits.shape[1] - shift].transpose(1, 2).float()
    each = cross_entropy(about, labels[:, shift:], reduction="none", ignore_index=-100)
    return each.double().sum(dim=1)
