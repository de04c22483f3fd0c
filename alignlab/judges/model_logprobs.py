"""A causal language model as a judge: read from its log-probabilities, so that no answer of it has to be parsed.

`choice` asks which of two answers is better, in both orders, and averages the log-odds of the two: a liking for the
first place adds to one and takes from the other, and is gone. `critique` asks for a critique of each answer and takes
the log-odds from how likely a critique is that finds it good. `both` hears the two, and `principles=all` hears every
principle instead of one drawn at random: each voice is scaled to the same size, so that none outshouts the others.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from alignlab.chat import Turn
from alignlab.config.constitution import Constitution, Principle
from alignlab.config.judge import LocalJudge

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Item(NamedTuple):
    """Two answers to one prompt, and the principle to compare them by."""

    prompt: list[Turn]
    first: str
    second: str
    principle: Principle


class Verdict(NamedTuple):
    """The probability that the first answer is better: the label, and as said with it in first and in second place."""

    label: float
    first: float
    second: float


Odds = tuple[float, float]  # of the first answer over the second: with the first named first, and named second


class Voice(NamedTuple):
    """What one way of asking says of every item, and how much it counts."""

    weight: float
    odds: list[Odds]


def verdicts(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    items: Sequence[Item],
    constitution: Constitution,
    settings: LocalJudge,
) -> list[Verdict]:
    """Judge every item; labels are spread and clamped, and none is left out."""
    both = heard(list(voices(model, tokenizer, items, constitution, settings)))
    low, high = settings.clamp
    labels = map(sigmoid, spread([(one + other) / 2 for one, other in both], settings.spread))
    return [
        Verdict(min(max(label, low), high), sigmoid(one), sigmoid(other))
        for label, (one, other) in zip(labels, both, strict=True)
    ]


def voices(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    items: Sequence[Item],
    constitution: Constitution,
    settings: LocalJudge,
) -> Iterator[Voice]:
    """Every way of asking, under every principle that is to be heard; the same question is asked once."""
    for compare, field in WAYS[settings.kind]:
        for principle, weight in asks(constitution, field) if settings.principles == "all" else ((None, 1.0),):
            put = items if principle is None else [item._replace(principle=principle) for item in items]
            yield Voice(weight, compare(model, tokenizer, put, constitution, settings.batch_size))


def asks(constitution: Constitution, field: str) -> list[tuple[Principle, float]]:
    """The principles that differ in a field, each with the weight of all that share it."""
    found: dict[str, tuple[Principle, float]] = {}
    for principle in constitution.principles:
        key = getattr(principle, field)
        first, weight = found.get(key, (principle, 0.0))
        found[key] = (first, weight + principle.weight)
    return list(found.values())


def heard(found: Sequence[Voice]) -> list[Odds]:
    """The weighted mean of several voices, each scaled to their mean size; one alone stays as it is."""
    sizes = [size([(one + other) / 2 for one, other in voice.odds]) for voice in found]
    common, whole = sum(sizes) / len(sizes), sum(voice.weight for voice in found)
    scales = [voice.weight / whole * (common / own if own else 0.0) for voice, own in zip(found, sizes, strict=True)]
    return [
        (
            sum(scale * one for scale, (one, _) in zip(scales, said, strict=True)),
            sum(scale * other for scale, (_, other) in zip(scales, said, strict=True)),
        )
        for said in zip(*(voice.odds for voice in found), strict=True)
    ]


def spread(odds: Sequence[float], wanted: float | None) -> list[float]:
    """Scale log-odds so that their root mean square is as wanted: a judge that is right but shy says so loudly.

    Which answer is preferred does not change, nor which verdict is surer than which.
    """
    own = size(odds)
    return [one * wanted / own for one in odds] if wanted and own else list(odds)


def size(odds: Sequence[float]) -> float:
    """The root mean square of log-odds."""
    return math.sqrt(sum(one * one for one in odds) / max(1, len(odds)))


def by_choice(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    items: Sequence[Item],
    constitution: Constitution,
    batch_size: int,
) -> list[Odds]:
    """Log-odds of the first answer over the second, with the first named first and with it named second."""
    from alignlab.models.log_probs import summed_log_probs

    shown = [asked(constitution, item, item.first, item.second) for item in items]
    turned = [asked(constitution, item, item.second, item.first) for item in items]
    logps = [
        summed_log_probs(model, tokenizer, requests, [choice] * len(items), batch_size)
        for requests in (shown, turned)
        for choice in constitution.choices
    ]
    return [(a - b, d - c) for a, b, c, d in zip(*logps, strict=True)]


def asked(constitution: Constitution, item: Item, first: str, second: str) -> list[Turn]:
    """The question which of two answers is better, as a conversation."""
    said = [turn["content"] for turn in item.prompt]
    question = item.principle.preference_question.format(prompt="\n\n".join(said), first=first, second=second)
    return [*shots(constitution), {"role": "user", "content": question}]


def by_critique(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    items: Sequence[Item],
    constitution: Constitution,
    batch_size: int,
) -> list[Odds]:
    """Log-odds of the first answer over the second; there is no order, so both are the same."""
    from alignlab.models.log_probs import summed_log_probs

    good = [item.principle.good for item in items]
    first, second = (
        summed_log_probs(
            model,
            tokenizer,
            [
                criticised(constitution, item.prompt, text, item.principle)
                for item, text in zip(items, texts, strict=True)
            ],
            good,
            batch_size,
        )
        for texts in ([item.first for item in items], [item.second for item in items])
    )
    return [(a - b, a - b) for a, b in zip(first, second, strict=True)]


WAYS = {  # each kind's ways of comparing, and the field of a principle that they put
    "choice": ((by_choice, "preference_question"),),
    "critique": ((by_critique, "critique_request"),),
    "both": ((by_critique, "critique_request"), (by_choice, "preference_question")),
}


def criticised(constitution: Constitution, prompt: Sequence[Turn], answer: str, principle: Principle) -> list[Turn]:
    """A conversation in which an answer's critique is asked for."""
    return [
        *shots(constitution),
        *prompt,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": principle.critique_request},
    ]


def shots(constitution: Constitution) -> list[Turn]:
    """The turns of the conversations that show a model what is wanted."""
    return [{"role": said.role, "content": said.content} for chat in constitution.examples for said in chat]


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), whatever the size of x."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
