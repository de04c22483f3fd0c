"""The training rows nearest to a prompt: by the policy's own mean hidden state, and by word n-grams."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.chat import Turn, encode_prompt
from alignlab.explanations.record import Explanation, Neighbour

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

LONGEST = 3  # words of an n-gram
BATCH = 32
CANNOT_SHOW = (
    "A near row is similar, which does not mean that it caused the answer. Copies and near copies are found; rows that "
    "say the same in other words mostly are not. Rows of the base model's training are not compared."
)


class Row(NamedTuple):
    """A training row: the stage whose data hold it, its id, its prompt, and the text that it teaches."""

    stage: str
    id: str
    prompt: list[Turn]
    text: str


def by_words(prompt: Sequence[Turn], rows: Sequence[Row], count: int) -> Explanation:
    """Return the rows whose prompts share the most word n-grams of one to three words, by Jaccard's similarity."""
    wanted = ngrams(prompt)
    similar = [jaccard(wanted, ngrams(row.prompt)) for row in rows]
    shows = "Training rows whose prompts share the most sequences of one to three words with this prompt (Jaccard)."
    return explanation("nearest rows by word n-grams", shows, similar, rows, count)


def by_states(
    policy: Any,
    tokenizer: "PreTrainedTokenizerBase",
    prompt: Sequence[Turn],
    rows: Sequence[Row],
    states: "Tensor",
    count: int,
) -> Explanation:
    """Return the rows whose prompts have the most similar mean hidden state in the policy, by their cosine.

    `states` are those of the rows' prompts, [rows, width]. Their mean is subtracted first, since all prompts share most
    of their state.
    """
    centre = states.mean(0)
    asked, others = mean_states(policy, tokenizer, [prompt]) - centre, states - centre
    similar = (unit(others) @ unit(asked)[0]).tolist()
    shows = "Training rows whose prompts lie nearest in the policy's own mean hidden state of its last layer (cosine)."
    return explanation("nearest rows by hidden state", shows, similar, rows, count)


def unit(states: "Tensor") -> "Tensor":
    """Return states of length 1."""
    return states / states.norm(dim=1, keepdim=True).clamp(min=1e-12)


def explanation(method: str, shows: str, similar: Sequence[float], rows: Sequence[Row], count: int) -> Explanation:
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
    return {"method": method, "shows": shows, "cannot_show": CANNOT_SHOW, "figures": figures, "neighbours": neighbours}


def ngrams(prompt: Iterable[Turn]) -> frozenset[tuple[str, ...]]:
    """Return the sequences of one to three words of a prompt, in lower case."""
    words = re.findall(r"\w+", " ".join(turn["content"] for turn in prompt).lower())
    return frozenset(
        tuple(words[start : start + size]) for size in range(1, LONGEST + 1) for start in range(len(words) - size + 1)
    )


def jaccard(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    """Return the share of two sets that both have; 0 where both are empty."""
    return len(one & other) / len(one | other) if one or other else 0.0


def mean_states(policy: Any, tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[Sequence[Turn]]) -> "Tensor":
    """Return the mean state of the last layer over each prompt's tokens, [prompts, width]."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    states: dict[int, Tensor] = {}
    body = policy.get_encoder() if policy.config.is_encoder_decoder else getattr(policy, policy.base_model_prefix)
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        rows = [torch.tensor(ids[place], device=policy.device) for place in batch]
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        with torch.no_grad():
            hidden = body(input_ids=pad_sequence(rows, batch_first=True), attention_mask=mask).last_hidden_state.float()
        means = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        states |= dict(zip(batch, means, strict=True))
    return torch.stack([states[place] for place in range(len(ids))])
