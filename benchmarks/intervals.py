"""Measure how often intervals cover, how often a model seems worse than itself, and the power at the printed effect.

`python benchmarks/intervals.py` prints tables of simulations without a model; it takes some minutes on one core
(ALIGNLAB_BENCH_RUNS changes the number of simulations of a cell). A short version stands in `tests/test_statistics.py`
and `tests/test_decisions.py`.
"""

import os
from collections.abc import Callable, Iterator

import numpy as np

from alignlab.evaluation.decisions import detectable, detectable_rate, holm
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

RUNS = int(os.environ.get("ALIGNLAB_BENCH_RUNS", "2000"))
FAMILIES = (1, 8, 19)  # numbers of primary measures
LEVELS = {"rate of 10%": 0.1, "rate of 30%": 0.3, "rate of 80%": 0.8}
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
    """Yield how often a change of the printed detectable size is seen, alone and as one of some primary measures.

    The size is that which a comparison of a model with itself prints. In brackets stands its mean, in standard errors
    of a mean, and in points of a rate. Half of the rows of a rate are the same for both models.
    """
    yield "| prompts | " + " | ".join(f"{what}, of {tests}" for what in (*LEVELS, "mean") for tests in FAMILIES) + " |"
    yield "|---|" + "---|" * (len(FAMILIES) * (1 + len(LEVELS)))
    for n in (20, 60, 300):
        cells = [power_of_rate(n, level, tests) for level in LEVELS.values() for tests in FAMILIES]
        cells += [power_of_mean(n, tests) for tests in FAMILIES]
        yield f"| {n} | {' | '.join(cells)} |"


def power_of_mean(n: int, tests: int) -> str:
    """Return how often a change of a mean of normal values is seen, and the size of the change."""
    generator, seen, sizes = np.random.default_rng(n + tests), 0, []
    for _ in range(RUNS):
        sizes.append(detectable(mean_difference(*generator.normal(0, 1, (2, n)), 0.95).error, n, 0.95, tests))
        p = mean_difference(generator.normal(sizes[-1], 1, n), generator.normal(0, 1, n), 0.95).p
        seen += holm([p, *generator.random(tests - 1)])[0] < 0.05
    return f"{100 * seen / RUNS:.1f} ({np.mean(sizes) / np.sqrt(2 / n):.1f})"


def power_of_rate(n: int, level: float, tests: int) -> str:
    """Return how often a change of a rate is seen, and the size of the change; of those sizes that are possible."""
    generator, seen, sizes = np.random.default_rng(n + tests), 0, []
    for _ in range(RUNS):
        table = rate_difference(*pair_of_rates(generator, n, level, level), 0.95).table
        size = detectable_rate(table, 0.95, tests)
        now = level + (size if table[0] + table[2] <= n / 2 else -size)
        if not 0 <= now <= 1:
            continue
        sizes.append(size)
        p = rate_difference(*pair_of_rates(generator, n, now, level), 0.95).p
        seen += holm([p, *generator.random(tests - 1)])[0] < 0.05
    return f"{100 * seen / len(sizes):.1f} ({100 * np.mean(sizes):.0f})" if len(sizes) > RUNS / 4 else "none"


def pair_of_rates(generator: np.random.Generator, n: int, now: float, then: float) -> np.ndarray:  # [2, n]
    """Return 0/1 rows of two models, half of which come from the same numbers."""
    drawn = generator.random((2, n))
    drawn[1] = np.where(generator.random(n) < 0.5, drawn[0], drawn[1])
    return (drawn < [[now], [then]]).astype(float)


def covers(interval: Interval, truth: float) -> bool:
    """Return whether an interval holds the truth."""
    return interval.low <= truth <= interval.high


if __name__ == "__main__":
    main()
