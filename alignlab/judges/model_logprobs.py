"""A causal language model as a judge: read from its log-probabilities, so that no answer of it has to be parsed.

`choice` asks which of two answers is better, in both orders, and averages the log-odds, which cancels a preference for
the first place. `critique` asks for a critique of each answer; the log-odds are the difference of the
log-probabilities of a critique that finds nothing wrong. `both` combines the two. `principles=all` asks under every
principle instead of the item's. Each question's log-odds are scaled to the same root mean square before they are
averaged, so that no question outweighs the others.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from alignlab.chat import Turn
from alignlab.config.constitution import Constitution, Principle
from alignlab.config.judge import LocalJudge
from alignlab.judges.protocol import Item, Verdict
from alignlab.models.log_probs import summed_log_probs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LogOdds = tuple[float, float]  # of the first answer over the second: with the first shown first, and shown second


class Estimate(NamedTuple):
    """The log-odds of every item by one question under one principle, and their weight."""

    weight: float
    log_odds: list[LogOdds]


def verdicts(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    items: Sequence[Item],
    constitution: Constitution,
    settings: LocalJudge,
) -> list[Verdict]:
    """Judge every item of two answers; labels are rescaled and clamped, and none is left out."""
    log_odds = combined(list(estimates(model, tokenizer, items, constitution, settings)))
    labels = map(sigmoid, rescaled([(first + second) / 2 for first, second in log_odds], settings.spread))
    return [
        Verdict(label, sigmoid(first), sigmoid(second)).clamped(*settings.clamp)
        for label, (first, second) in zip(labels, log_odds, strict=True)
    ]


def estimates(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    items: Sequence[Item],
    constitution: Constitution,
    settings: LocalJudge,
) -> Iterator[Estimate]:
    """Yield an estimate for each question, and with `principles=all` for each principle that asks it differently."""
    for compare, field in QUESTIONS[settings.kind]:
        principles = distinct_principles(constitution, field) if settings.principles == "all" else [(None, 1.0)]
        for principle, weight in principles:
            asked = items if principle is None else [item._replace(principle=principle) for item in items]
            yield Estimate(weight, compare(model, tokenizer, asked, constitution, settings.batch_size))


def distinct_principles(constitution: Constitution, field: str) -> Sequence[tuple[Principle | None, float]]:
    """Return the principles that differ in a field, each with the weight of all that share its value."""
    weights: dict[str, tuple[Principle, float]] = {}
    for principle in constitution.principles:
        value = getattr(principle, field)
        first, weight = weights.get(value, (principle, 0.0))
        weights[value] = (first, weight + principle.weight)
    return list(weights.values())


def combined(estimates: Sequence[Estimate]) -> list[LogOdds]:
    """Return the weighted mean of estimates, each scaled to their mean size; a single one is returned as it is."""
    sizes = [root_mean_square([(a + b) / 2 for a, b in estimate.log_odds]) for estimate in estimates]
    mean_size, weights = sum(sizes) / len(sizes), sum(estimate.weight for estimate in estimates)
    scales = [
        estimate.weight / weights * (mean_size / size if size else 0.0)
        for estimate, size in zip(estimates, sizes, strict=True)
    ]
    return [
        (
            sum(scale * first for scale, (first, _) in zip(scales, item, strict=True)),
            sum(scale * second for scale, (_, second) in zip(scales, item, strict=True)),
        )
        for item in zip(*(estimate.log_odds for estimate in estimates), strict=True)
    ]


def rescaled(log_odds: Sequence[float], size: float | None) -> list[float]:
    """Scale log-odds to a root mean square; None leaves them.

    Neither which answer is preferred nor which verdict is surer than which changes.
    """
    current = root_mean_square(log_odds)
    return [value * size / current for value in log_odds] if size and current else list(log_odds)


def root_mean_square(values: Sequence[float]) -> float:
    """Return the root mean square; 0 for no values."""
    return math.sqrt(sum(value * value for value in values) / max(1, len(values)))


def by_choice(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    items: Sequence[Item],
    constitution: Constitution,
    batch_size: int,
) -> list[LogOdds]:
    """Return the log-odds of the first answer over the second, with the first shown first and with it shown second."""
    shown = [choice_question(constitution, item, *item.answers) for item in items]
    reversed_order = [choice_question(constitution, item, *reversed(item.answers)) for item in items]
    log_probs = [
        summed_log_probs(model, tokenizer, requests, [choice] * len(items), batch_size)
        for requests in (shown, reversed_order)
        for choice in constitution.choices
    ]
    return [(a - b, d - c) for a, b, c, d in zip(*log_probs, strict=True)]


def choice_question(constitution: Constitution, item: Item, first: str, second: str) -> list[Turn]:
    """Return the question which of two answers is better, as a conversation."""
    prompt = "\n\n".join(turn["content"] for turn in item.prompt)
    question = principle_of(item).preference_question.format(prompt=prompt, first=first, second=second)
    return [*examples(constitution), {"role": "user", "content": question}]


def by_critique(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    items: Sequence[Item],
    constitution: Constitution,
    batch_size: int,
) -> list[LogOdds]:
    """Return the log-odds of the first answer over the second; there is no order, so both are the same."""
    good = [principle_of(item).good for item in items]
    first, second = (
        summed_log_probs(
            model,
            tokenizer,
            [critique_request(constitution, item.prompt, item.answers[place], principle_of(item)) for item in items],
            good,
            batch_size,
        )
        for place in (0, 1)
    )
    return [(a - b, a - b) for a, b in zip(first, second, strict=True)]


Compare = Callable[["PreTrainedModel", "PreTrainedTokenizerBase", Sequence[Item], Constitution, int], list[LogOdds]]
QUESTIONS: dict[str, tuple[tuple[Compare, str], ...]] = {  # of each kind, with the field of a principle that they ask
    "choice": ((by_choice, "preference_question"),),
    "critique": ((by_critique, "critique_request"),),
    "both": ((by_critique, "critique_request"), (by_choice, "preference_question")),
}


def principle_of(item: Item) -> Principle:
    """Return the principle that an item is judged by."""
    assert item.principle is not None
    return item.principle


def critique_request(
    constitution: Constitution, prompt: Sequence[Turn], answer: str, principle: Principle
) -> list[Turn]:
    """Return a conversation that asks for a critique of an answer."""
    return [
        *examples(constitution),
        *prompt,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": principle.critique_request},
    ]


def examples(constitution: Constitution) -> list[Turn]:
    """Return the turns of the few-shot conversations."""
    return [{"role": turn.role, "content": turn.content} for chat in constitution.examples for turn in chat]


def sigmoid(x: float) -> float:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
