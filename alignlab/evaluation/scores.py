"""What measurements are made of: one value a prompt, and what becomes of them in `result.json`.

Every file of this package that measures something returns `Scores`. Two models that were measured on the same
prompts are compared row by row, so that what the prompts have in common does not blur the difference.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from alignlab.config.evaluation import Evaluation

if TYPE_CHECKING:
    import numpy as np

    from alignlab.evaluation.statistics import Interval

Better = Literal["lower", "higher", "neither"]


class Scores(NamedTuple):
    """One measure of one model: a value for each prompt that it applies to.

    `rate` says that values are 0 or 1. `weights` (tokens of a row) make the mean a weighted one. `exponential`
    reports exp(mean), as perplexity does.
    """

    name: str
    values: "np.ndarray"  # [n]
    ids: tuple[str, ...]  # [n]
    rate: bool
    better: Better
    weights: "np.ndarray | None" = None  # [n]
    exponential: bool = False


def measurements(
    now: Mapping[str, Scores],
    before: Mapping[str, Scores] | None,
    previous: Mapping[str, Scores] | None,
    settings: Evaluation,
) -> list[dict[str, Any]]:
    """The rows of `result.json`: each measure of a model beside the models that it came from.

    `before` is the model that the chain started from, `previous` the one that this stage started from; either is
    left out of a row where it was not measured.
    """
    return [
        measurement(scores, (before or {}).get(name), (previous or {}).get(name), settings)
        for name, scores in now.items()
    ]


def measurement(now: Scores, before: Scores | None, previous: Scores | None, settings: Evaluation) -> dict[str, Any]:
    """One row of `result.json`."""
    others = {name: scores for name, scores in (("before", before), ("previous", previous)) if scores is not None}
    return {
        "name": now.name,
        **interval(now, settings)._asdict(),
        "n": len(now.values),
        "rate": now.rate,
        "better": now.better,
        **{name: interval(scores, settings)._asdict() for name, scores in others.items()},
        "difference": {name: difference(now, scores, settings)._asdict() for name, scores in others.items()},
    }


def scored(scores: Mapping[str, Scores], sample: str) -> dict[str, float]:
    """What every measure that has a value for each answer gave one of them, by name."""
    found = {name: of_sample(one, sample) for name, one in scores.items() if not one.exponential}  # not of answers
    return {name: value for name, value in found.items() if value is not None}


def of_sample(scores: Scores, sample: str) -> float | None:
    """The value of one sample; None where the measure does not apply to it."""
    places = _places(scores.ids)
    return float(scores.values[places[sample]]) if sample in places else None


@lru_cache(maxsize=64)
def _places(ids: tuple[str, ...]) -> dict[str, int]:
    return {one: place for place, one in enumerate(ids)}


def completions(samples: Sequence[Mapping[str, Any]], count: int) -> tuple[list[str], list[list[Any]]]:
    """A table to read, as columns and rows: of each kind `count` prompts, the answers, and what each was worth."""
    taken: Counter[str] = Counter()
    kept = [sample for sample in samples if (taken.update([sample["kind"]]) or taken[sample["kind"]]) <= count]
    names = [name for name in dict.fromkeys(n for s in kept for n in s["scores"]) if name.count("/") == 1]
    columns = ["kind", "prompt", "before", "previous", "after", *names]
    rows = [
        [s["kind"], s["prompt"][-1]["content"], s["before"], s["previous"], s["after"], *map(s["scores"].get, names)]
        for s in kept
    ]
    return columns, rows


def interval(scores: Scores, settings: Evaluation) -> "Interval":
    """A measure's value over all prompts, with its interval."""
    from alignlab.evaluation.statistics import bootstrap_mean, wilson

    if scores.rate:
        return wilson(float(scores.values.sum()), len(scores.values), settings.confidence)
    return bootstrap_mean(scores.values, settings.resamples, settings.confidence, SEED, scores.weights, shown(scores))


def difference(now: Scores, then: Scores, settings: Evaluation) -> "Interval":
    """How much a measure changed between two models, prompt by prompt."""
    from alignlab.evaluation.statistics import paired_difference

    if now.ids != then.ids:
        raise ValueError(f"{now.name}: the two models were not measured on the same prompts")
    weights = None if now.weights is None or then.weights is None else (now.weights, then.weights)
    return paired_difference(
        now.values, then.values, settings.resamples, settings.confidence, SEED, now.rate, weights, shown(now)
    )


SEED = 0  # of the bootstrap: the same scores give the same interval in every run


def shown(scores: Scores) -> Any:
    """What turns a mean into the number that is reported."""
    import numpy as np

    return np.exp if scores.exponential else None
