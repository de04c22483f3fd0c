"""Accuracy, calibration and length bias of a reward model on held-out pairs, beside simple baselines.

The two baselines are fitted on the same training rows: the length of the completions, and a logistic regression on the
difference of their words and word pairs. Calibration compares a pair's probability, sigmoid(margin), with how often it
is right. The correlation with length shows whether the reward mostly measures length.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from alignlab.config.evaluation import Evaluation
from alignlab.config.schema import Config
from alignlab.data import view
from alignlab.evaluation.calibration import calibration_error
from alignlab.evaluation.scores import Better, Measurement, Scores, measurement, row_of
from alignlab.evaluation.statistics import Interval, mean_difference, measure_interval, rate_difference
from alignlab.runtime.files import write_text
from alignlab.runtime.run_files import PAIR_SCORES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Row = dict[str, Any]

STRENGTHS = (0.003, 0.03, 0.3)  # inverse regularisation of the bag of words; the validation rows choose


class Rewards(NamedTuple):
    """The rewards of both completions of each pair, and the completions' lengths in characters; all [n]."""

    chosen: "Floats"
    rejected: "Floats"
    chosen_length: "Floats"
    rejected_length: "Floats"

    @property
    def margin(self) -> "Floats":
        """Return the reward of the chosen completion minus that of the rejected one, [n]."""
        return self.chosen - self.rejected


def measure_pairs(model: Path, config: Config, place: Path) -> list[Measurement]:
    """Measure a reward model on held-out pairs; `PAIR_SCORES` in `place` gets the reward of every completion."""
    rows: list[Row] = view(config.dataset, "pairs", config.evaluation.split).to_list()
    rewards = score(model, rows, config)
    write_text(place / PAIR_SCORES, "".join(map(json_line, rows, rewards.chosen, rewards.rejected)))
    words, length = baselines(config, rows)
    right = wins(rewards.margin)
    ids = tuple(row.get("id") or str(number) for number, row in enumerate(rows))
    settings = config.evaluation

    def rate(name: str, values: "Floats", better: Better = "higher") -> Measurement:
        return measurement(Scores(name, values, ids[: len(values)], True, better), None, None, settings)

    return [
        rate("reward/accuracy", right),
        rate("baseline/bag_of_words", words),
        rate("baseline/length", length),
        row_of("reward/over_bag_of_words", difference(right, words, settings), len(rows), "higher"),
        *kinds(rows, right, rate),
        *calibration(rewards, ids, settings),
        *lengths(rewards, settings),
        rate(
            "reward/prefers_longer",
            wins(rewards.margin * np.sign(rewards.chosen_length - rewards.rejected_length)),
            "neither",
        ),
        rate("pairs/longer_chosen", wins(rewards.chosen_length - rewards.rejected_length), "neither"),
    ]


def score(model: Path, rows: "Sequence[Row]", config: Config) -> Rewards:
    """Score both completions of each pair, each separately, as in use."""
    from alignlab.rewards import load_reward_model

    judge = load_reward_model(model, config.hardware)
    prompts = [row["prompt"] for row in rows]
    chosen, rejected = (
        np.array(judge.score(prompts, [row[side] for row in rows]).total) for side in ("chosen", "rejected")
    )
    return Rewards(
        chosen, rejected, *(np.array([len(row[side]) for row in rows], float) for side in ("chosen", "rejected"))
    )


def json_line(row: "Row", chosen: float, rejected: float) -> str:
    """Return a pair and its rewards as a line of JSON."""
    return json.dumps({**row, "chosen_reward": chosen, "rejected_reward": rejected}, ensure_ascii=False) + "\n"


def wins(margin: "Floats") -> "Floats":
    """Return 1 where the margin is positive, 0 where it is negative, 0.5 where it is 0; [n]."""
    return (np.sign(margin) + 1) / 2


def difference(now: "Floats", then: "Floats", settings: Evaluation) -> Interval:
    """Compute the difference of two accuracies on the same pairs, from their `wins`."""
    ties = bool(((now == 0.5) | (then == 0.5)).any())
    return (mean_difference if ties else rate_difference)(now, then, settings.confidence).interval


def kinds(rows: "Sequence[Row]", right: "Floats", rate: Any) -> list[Measurement]:
    """Compute the accuracy for each kind of prompt, where rows have kinds."""
    of_rows = np.array([row.get("kind") or "" for row in rows])
    return [rate(f"reward/accuracy/{kind}", right[of_rows == kind]) for kind in sorted(set(of_rows) - {""})]


def calibration(rewards: Rewards, ids: tuple[str, ...], settings: Evaluation) -> list[Measurement]:
    """Compute the Brier score (0.25 without knowledge) and the calibration error of the more probable side."""
    probability = 1 / (1 + np.exp(-rewards.margin))
    brier = Scores("reward/brier", (1 - probability) ** 2, ids, False, "lower")
    confidence = np.maximum(probability, 1 - probability)
    error = calibration_error(confidence, wins(rewards.margin), settings.confidence)
    return [
        measurement(brier, None, None, settings),
        row_of("reward/calibration_error", error, len(probability), "lower"),
    ]


def lengths(rewards: Rewards, settings: Evaluation) -> list[Measurement]:
    """Compute the correlation of reward and length, Pearson's and (of ranks) Spearman's, over pairs."""
    from scipy.stats import rankdata

    scores = np.concatenate([rewards.chosen, rewards.rejected])
    sizes = np.concatenate([rewards.chosen_length, rewards.rejected_length])
    rows = []
    for name, x, y in (("pearson", scores, sizes), ("spearman", rankdata(scores), rankdata(sizes))):
        x, y = (values - values.mean() for values in (x, y))
        moments = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
        pairs = moments.reshape(2, -1, 6).sum(0)
        interval = measure_interval(pairs, pearson, settings.confidence)
        rows.append(row_of(f"reward/length_{name}", interval, len(pairs), "neither"))
    return rows


def pearson(sums: "Floats") -> "Floats":
    """Compute Pearson's correlation from the sums of 1, x, y, x², y², xy; 0 where x or y does not vary."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    spread = np.sqrt(np.maximum((n * xx - x * x) * (n * yy - y * y), 0))
    correlation: Floats = np.where(spread > 0, (n * xy - x * y) / np.where(spread > 0, spread, 1), 0.0)
    return correlation


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
