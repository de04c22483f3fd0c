"""The training rows nearest to a prompt: by the policy's own embeddings, and by words.

Prompts of one phrasing share most of their words, and all prompts share most of their hidden states. Both methods
therefore weigh rare words most, which say what a prompt is about.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import log, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.chat import Turn, encode_prompt
from alignlab.explanations.record import Explanation, Neighbour

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

COMMON = 1e-3  # of all tokens: one that is as common as this has half the weight of a rare one
CANNOT_SHOW = (
    "A near row is similar, which does not mean that it caused the answer. The order of words is not compared. Rows "
    "that say the same in quite other words are not found. Rows of the base model's training are not compared."
)


class Row(NamedTuple):
    """A training row: the stage whose data hold it, its id, its prompt, and the text that it teaches.

    `rejected` is the completion that the row teaches to avoid; None where it has none.
    """

    stage: str
    id: str
    prompt: list[Turn]
    text: str
    rejected: str | None = None


class Embedded(NamedTuple):
    """The embeddings of rows' prompts, [rows, width], and the weight of each token in them, [vocabulary]."""

    prompts: "Tensor"
    weights: "Tensor"


def by_words(prompt: Sequence[Turn], rows: Sequence[Row], count: int) -> Explanation:
    """Return the rows whose prompts have the most similar words, by the cosine of TF-IDF vectors.

    A word counts once, with the weight log(rows / rows that have it): words that all prompts share count for nothing
    (Salton and Buckley 1988).
    """
    words = [words_of(row.prompt) for row in rows]
    frequency = Counter(word for each in words for word in each)
    weight = {word: log(len(rows) / number) ** 2 for word, number in frequency.items()}
    wanted = words_of(prompt)
    similar = [cosine(wanted, each, weight) for each in words]
    shows = "Training rows whose prompts share the most words with this prompt; rare words count most (TF-IDF, cosine)."
    return explanation("nearest rows by words", shows, similar, rows, count)


def by_embeddings(
    policy: Any,
    tokenizer: "PreTrainedTokenizerBase",
    prompt: Sequence[Turn],
    rows: Sequence[Row],
    embedded: Embedded,
    count: int,
) -> Explanation:
    """Return the rows whose prompts have the most similar embeddings in the policy, by their cosine.

    The rows' mean is subtracted first, since all prompts share most of their embedding.
    """
    centre = embedded.prompts.mean(0)
    asked = weighted_means(policy, [encode_prompt(tokenizer, prompt)], embedded.weights)
    similar = (unit(embedded.prompts - centre) @ unit(asked - centre)[0]).tolist()
    shows = (
        "Training rows whose prompts lie nearest in the policy's own embeddings; rare tokens count most (SIF, cosine)."
    )
    return explanation("nearest rows by the policy's embeddings", shows, similar, rows, count)


def unit(states: "Tensor") -> "Tensor":
    """Return states of length 1."""
    return states / states.norm(dim=1, keepdim=True).clamp(min=1e-12)


def explanation(
    method: str, shows: str, similar: Sequence[float], rows: Sequence[Row], count: int, cannot_show: str = CANNOT_SHOW
) -> Explanation:
    """Return the record of the most similar rows; of rows that teach the same, one."""
    order = sorted(range(len(rows)), key=lambda place: -similar[place])
    kept: dict[tuple[str, str], Neighbour] = {}
    for place in order:
        row = rows[place]
        text = "\n".join([*(turn["content"] for turn in row.prompt), row.text]).strip()
        if len(kept) < count and (row.stage, text) not in kept:
            kept[row.stage, text] = {"similarity": similar[place], "stage": row.stage, "id": row.id, "text": text}
    figures = {"rows compared": float(len(rows))}
    neighbours = list(kept.values())
    return {"method": method, "shows": shows, "cannot_show": cannot_show, "figures": figures, "neighbours": neighbours}


def words_of(prompt: Iterable[Turn]) -> frozenset[str]:
    """Return the words of a prompt, in lower case."""
    return frozenset(re.findall(r"\w+", " ".join(turn["content"] for turn in prompt).lower()))


def cosine(one: frozenset[str], other: frozenset[str], weight: Mapping[str, float]) -> float:
    """Return the cosine of two vectors of words, whose squares are the weights; 0 where one has no known word."""
    shared, first, second = (sum(weight.get(word, 0.0) for word in words) for words in (one & other, one, other))
    return shared / sqrt(first * second) if first and second else 0.0


def embed_rows(policy: Any, tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row]) -> Embedded:
    """Embed the rows' prompts; a token that is p of all their tokens has the weight a / (a + p) (Arora et al. 2017)."""
    import torch

    ids = [encode_prompt(tokenizer, row.prompt) for row in rows]
    size = policy.get_input_embeddings().num_embeddings
    counts = torch.bincount(torch.tensor([token for row in ids for token in row]), minlength=size)
    weights = COMMON / (COMMON + counts / counts.sum())
    return Embedded(weighted_means(policy, ids, weights), weights)


def weighted_means(policy: Any, ids: Iterable[Sequence[int]], weights: "Tensor") -> "Tensor":  # [rows, width]
    """Return the mean embedding of each row's tokens by their weights, in float32 on the CPU."""
    import torch

    table, means = policy.get_input_embeddings(), []
    for row in ids:
        tokens = torch.tensor(row)
        with torch.no_grad():
            vectors = table(tokens.to(table.weight.device)).float().cpu()
        means.append(weights[tokens] @ vectors / weights[tokens].sum())
    return torch.stack(means)
