"""Accuracy, calibration and length bias of a reward model on held-out pairs, beside simple baselines.

The two baselines are fitted on the same training rows: the length of the completions, and a logistic regression on the
difference of their words and word pairs. Calibration compares a pair's probability, sigmoid(margin), with how often it
is right. The correlation with length shows whether the reward mostly measures length. Pairs of one prompt are a
cluster.
"""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alignlab.config.evaluation import Evaluation
from alignlab.config.schema import Config
from alignlab.data import view
from alignlab.evaluation.calibration import calibration_error
from alignlab.evaluation.metrics import BALANCE, SHARE, Metric, Record, mean, rate
from alignlab.evaluation.replies import Reply
from alignlab.evaluation.statistics import Interval, mean_difference, rate_difference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Row = dict[str, Any]

STRENGTHS = (0.003, 0.03, 0.3)  # inverse regularisation of the bag of words; the validation rows choose
MOMENTS = ("n", "x", "y", "xx", "yy", "xy")  # of both completions of a pair: x is the reward, y the length


def pearson(sums: "Floats") -> "Floats":
    """Compute Pearson's correlation from the sums of 1, x, y, x², y², xy; 0 where x or y does not vary."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    spread = np.sqrt(np.maximum((n * xx - x * x) * (n * yy - y * y), 0))
    correlation: Floats = np.where(spread > 0, (n * xy - x * y) / np.where(spread > 0, spread, 1), 0.0)
    return correlation


def correlation(name: str) -> Metric:
    """Return the metric of a correlation with the length, over the completions of all pairs."""
    return Metric(name, "neither", tuple(f"{name}:{moment}" for moment in MOMENTS), pearson, bounds=BALANCE)


METRICS = (
    rate("reward/accuracy", "higher", by_kind=True),
    rate("baseline/bag_of_words", "higher"),
    rate("baseline/length", "higher"),
    mean("reward/over_bag_of_words", "higher", bounds=BALANCE),
    mean("reward/brier", "lower", bounds=SHARE),
    Metric(
        "reward/calibration_error",
        "lower",
        ("confidence", "reward/accuracy"),
        interval=lambda columns, *how: calibration_error(columns[:, 0], columns[:, 1], *how),
    ),
    correlation("reward/length_pearson"),
    correlation("reward/length_spearman"),
    rate("reward/prefers_longer"),
    rate("pairs/longer_chosen"),
)


def pair_records(replies: Sequence[Reply], config: Config) -> Iterator[Record]:
    """Yield a record of each pair; a reply holds the rewards of the chosen and of the rejected completion."""
    rows = [dict(reply.item.facts) for reply in replies]
    rewards = np.array([[choice.score for choice in reply.choices] for reply in replies]).reshape(-1, 2)
    sizes = np.array([[len(row[side]) for side in ("chosen", "rejected")] for row in rows], float).reshape(-1, 2)
    margin, longer = rewards[:, 0] - rewards[:, 1], sizes[:, 0] - sizes[:, 1]
    probability = 1 / (1 + np.exp(-margin))
    right = wins(margin)
    words, length = baselines(config, rows)
    columns = {
        "reward/accuracy": right,
        "baseline/bag_of_words": words,
        "baseline/length": length,
        "reward/over_bag_of_words": right - words,
        "reward/brier": (1 - probability) ** 2,
        "confidence": np.maximum(probability, 1 - probability),
        "reward/prefers_longer": wins(margin * np.sign(longer)),
        "pairs/longer_chosen": wins(longer),
        **moments("reward/length_pearson", rewards, sizes),
        **moments("reward/length_spearman", ranks(rewards), ranks(sizes)),
    }
    for place, reply in enumerate(replies):
        yield reply.record(
            {name: float(values[place]) for name, values in columns.items()}, shown=rows[place]["chosen"]
        )


def moments(name: str, x: "Floats", y: "Floats") -> dict[str, "Floats"]:
    """Return the columns of a correlation, [n] each, from two values of both completions of each pair, [n, 2]."""
    x, y = x - x.mean(), y - y.mean()
    values = (np.ones_like(x), x, y, x * x, y * y, x * y)
    return {f"{name}:{moment}": value.sum(axis=1) for moment, value in zip(MOMENTS, values, strict=True)}


def ranks(values: "Floats") -> "Floats":  # the same shape
    """Return the ranks of values; equal values share their mean rank."""
    from scipy.stats import rankdata

    ranked: Floats = rankdata(values).reshape(values.shape)
    return ranked


def json_line(reply: Reply) -> str:
    """Return a pair and its rewards as a line of JSON."""
    scores = {"chosen_reward": reply.choices[0].score, "rejected_reward": reply.choices[1].score}
    return json.dumps({**reply.item.facts, **scores}, ensure_ascii=False) + "\n"


def wins(margin: "Floats") -> "Floats":
    """Return 1 where the margin is positive, 0 where it is negative, 0.5 where it is 0; [n]."""
    return (np.sign(margin) + 1) / 2


def difference(now: "Floats", then: "Floats", settings: Evaluation) -> Interval:
    """Compute the difference of two accuracies on the same pairs, from their `wins`."""
    ties = bool(((now == 0.5) | (then == 0.5)).any())
    return (mean_difference if ties else rate_difference)(now, then, settings.confidence).interval


def baselines(config: Config, test: "Sequence[Row]") -> tuple["Floats", "Floats"]:
    """Return which test pairs the bag of words and the length get right, both fitted on the training rows; [n] each."""
    train, validation = (view(config.dataset, "pairs", split).to_list() for split in ("train", "validation"))
    longer = float(np.sign(longer_by(train).mean())) or 1.0
    return wins(bag_of_words(train, validation or train, test)), wins(longer * np.sign(longer_by(test)))


def longer_by(rows: "Sequence[Row]") -> "Floats":
    """Return 1 where the chosen completion is longer, -1 where it is shorter, 0 where the lengths are equal; [n]."""
    return np.sign(np.array([len(row["chosen"]) - len(row["rejected"]) for row in rows], float))


def bag_of_words(train: "Sequence[Row]", validation: "Sequence[Row]", test: "Sequence[Row]") -> "Floats":
    """Compute margins of the test pairs by a logistic regression on differences of word and word-pair counts, [n]."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    counter = CountVectorizer(ngram_range=(1, 2), min_df=2 if len(train) < 10_000 else 5, token_pattern=r"\w+|[^\w\s]")
    counter.fit([row[side] for row in train for side in ("chosen", "rejected")])

    def counts(rows: "Sequence[Row]") -> Any:
        chosen, rejected = (counter.transform([row[side] for row in rows]) for side in ("chosen", "rejected"))
        return (chosen - rejected).astype(float)

    # Every other pair is swapped, which gives two classes and the same loss.
    side = np.where(np.arange(len(train)) % 2, 1.0, -1.0)
    swapped = counts(train).multiply(side[:, None]).tocsr()
    fits = [LogisticRegression(C=c, fit_intercept=False, max_iter=200).fit(swapped, side) for c in STRENGTHS]
    held = counts(validation)
    best = max(fits, key=lambda fit: wins(held @ fit.coef_[0]).mean())
    margins: Floats = counts(test) @ best.coef_[0]
    return margins
