"""Measure a suite on scores that a test chooses, without a model."""

import random
from functools import cache

from command import config

from alignlab.config import extensions
from alignlab.evaluation.metrics import score_records
from alignlab.evaluation.protocol import Context
from alignlab.evaluation.replies import ChoiceScore, Reply
from alignlab.evaluation.scores import interval


@cache
def context(name, *overrides):
    """The context of one suite."""
    chosen = config(f"measure=[{name}]", *overrides)
    return Context(chosen, None, settings=chosen.measure[name])


def items(name, *overrides):
    return list(extensions.load("measures", name).items(context(name, *overrides)))


def at_random(item):
    """Scores that look like log-probabilities, the same for the same question."""
    stream = random.Random(f"{item.prompt} {item.choices}")
    return [stream.gauss(-0.8 * len(choice), 8) for choice in item.choices]


def replied(item, scores):
    """A reply with these scores; a quarter of the text's length counts as its tokens."""
    pairs = zip(scores, item.choices, strict=True)
    return Reply(item, (), tuple(ChoiceScore(score, 1 + len(text) // 4) for score, text in pairs))


def values(name, asked, scores, *overrides):
    """The values of a suite's metrics by name."""
    module = extensions.load("measures", name)
    replies = [replied(*pair) for pair in zip(asked, scores, strict=True)]
    records = list(module.score(replies, context(name, *overrides)))
    metrics = module.METRICS(records) if callable(module.METRICS) else module.METRICS
    return {metric: interval(scores, 0.95).value for metric, scores in score_records(metrics, records).items()}
