"""Measure how often intervals cover, how often a model seems worse than itself, and the power at the printed effect.

`python benchmarks/intervals.py` prints tables of simulations without a model; it takes some minutes on one core. A
short version stands in `tests/test_statistics.py` and `tests/test_decisions.py`.
"""

from collections.abc import Callable, Iterator

import numpy as np

from alignlab.evaluation.decisions import detectable, holm
from alignlab.evaluation.statistics import (
    Interval,
    mean_columns,
    mean_difference,
    mean_of,
    measure_difference,
    measure_interval,
    rate_difference,
    rate_interval,
)

RUNS = 2000
DISTRIBUTIONS: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], float]] = {
    "normal": (lambda g, n: g.normal(0, 1, n), 0.0),
    "uniform": (lambda g, n: g.random(n), 0.5),
    "exponential": (lambda g, n: g.exponential(1, n), 1.0),
    "80% zeros, else exponential": (lambda g, n: g.exponential(1, n) * (g.random(n) < 0.2), 0.2),
    "lognormal": (lambda g, n: g.lognormal(0, 1, n), float(np.exp(0.5))),
}


def main() -> None:
    """Print all tables."""
    for part in (means(), clustered(), alone_or_not(), power()):
        print("\n".join(part), end="\n\n", flush=True)


def means() -> Iterator[str]:
    """Yield the coverage of 95% intervals of means, and of the percentile bootstrap that they replace."""
    yield "| values | " + " | ".join(f"n = {n}" for n in (5, 10, 20, 60, 100)) + " |"
    yield "|---|" + "---|" * 5
    for name, (draw, truth) in DISTRIBUTIONS.items():
        cells = []
        for n in (5, 10, 20, 60, 100):
            generator, ours, bootstrap = np.random.default_rng(n), 0, 0
            for _ in range(RUNS):
                values = draw(generator, n)
                ours += covers(measure_interval(mean_columns(values), mean_of, 0.95), truth)
                resampled = values[generator.integers(0, n, (400, n))].mean(axis=1)
                low, high = np.quantile(resampled, [0.025, 0.975])
                bootstrap += low <= truth <= high
            cells.append(f"{100 * ours / RUNS:.1f} ({100 * bootstrap / RUNS:.1f})")
        yield f"| {name} | {' | '.join(cells)} |"
    yield "In brackets the percentile bootstrap."


def clustered() -> Iterator[str]:
    """Yield the coverage over 100 clusters of 1, 3 and 10 rows."""
    yield "| 100 clusters of | rate | paired rates | mean | paired means |"
    yield "|---|---|---|---|---|"
    for rows in (1, 3, 10):
        generator, hits = np.random.default_rng(rows), np.zeros(4)
        clusters = np.repeat(np.arange(100), rows).tolist()
        for _ in range(RUNS):
            level = np.repeat(generator.random(100), rows)
            now, then = ((generator.random(100 * rows) < 0.4 * level).astype(float) for _ in range(2))
            noise = generator.exponential(1, (2, 100 * rows))
            late, early = mean_columns(level + noise[1]), mean_columns(level + noise[0])
            hits += [
                covers(rate_interval(now, 0.95, clusters), 0.2),
                covers(rate_difference(now, then, 0.95, clusters).interval, 0),
                covers(measure_interval(late, mean_of, 0.95, clusters), 1.5),
                covers(measure_difference(late, early, mean_of, 0.95, clusters).interval, 0),
            ]
        yield f"| {rows} rows | {' | '.join(f'{100 * share:.1f}' for share in hits / RUNS)} |"


def alone_or_not() -> Iterator[str]:
    """Yield how often a model seems worse than itself in any measure of a family, with and without correction."""
    yield "| measures, prompts | any worse, corrected | without correction |"
    yield "|---|---|---|"
    for measures, n in ((8, 60), (19, 20), (19, 60), (19, 300)):
        generator, corrected, plain = np.random.default_rng(n), 0, 0
        for _ in range(RUNS // 2):
            level = generator.random((measures, n))
            changes = [
                rate_difference(*(generator.random((2, n)) < row).astype(float), confidence=0.95) for row in level
            ]
            p = [change.p for change in changes]
            falls = np.array([change.interval.value < 0 for change in changes])
            corrected += bool((falls & (np.array(holm(p)) < 0.05)).any())
            plain += bool((falls & (np.array(p) < 0.05)).any())
        yield f"| {measures}, {n} | {200 * corrected / RUNS:.1f}% | {200 * plain / RUNS:.1f}% |"


def power() -> Iterator[str]:
    """Yield how often a change of the detectable size is seen, alone and as one of 8, 19 and 100 primary measures.

    In brackets stands that size, in standard errors.
    """
    yield "| prompts | mean, alone | mean, of 8 | mean, of 19 | mean, of 100 | rate, alone |"
    yield "|---|---|---|---|---|---|"
    families = (1, 8, 19, 100)
    for n in (20, 60, 300):
        generator, seen = np.random.default_rng(n), np.zeros(5)
        sizes = [detectable(1, n, 0.95, tests) for tests in families]
        noise = np.sqrt(0.5)
        for _ in range(RUNS):
            for place, tests in enumerate(families):
                change = detectable(1 / np.sqrt(n), n, 0.95, tests)
                others = generator.random(tests - 1)
                p = mean_difference(generator.normal(change, noise, n), generator.normal(0, noise, n), 0.95).p
                seen[place] += holm([p, *others])[0] < 0.05
            change = detectable(np.sqrt(0.42 / n), n, 0.95)  # at a rate of 0.3 in both models
            now, then = ((generator.random(n) < rate).astype(float) for rate in (0.3 + change, 0.3))
            seen[4] += rate_difference(now, then, 0.95).p < 0.05
        power = [f"{100 * share:.1f}" for share in seen / RUNS]
        cells = [f"{one} ({size:.1f})" for one, size in zip(power[:4], sizes, strict=True)]
        yield f"| {n} | {' | '.join([*cells, power[4]])} |"


def covers(interval: Interval, truth: float) -> bool:
    """Return whether an interval holds the truth."""
    return interval.low <= truth <= interval.high


if __name__ == "__main__":
    main()
