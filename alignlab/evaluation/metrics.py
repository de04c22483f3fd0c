"""Metrics: the numbers of a measurement, each a function of column sums over its records.

A mean, a rate, a ratio of two columns and any other function of sums get their intervals and paired differences by the
same code (`alignlab.evaluation.statistics`). A record that lacks a column of a metric does not count in it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from alignlab.evaluation.statistics import mean_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alignlab.evaluation.statistics import Interval, OfSums

    Floats = NDArray[np.float64]

Better = Literal["lower", "higher", "neither"]
Bounds = tuple[float, float]  # the lowest and the highest value that a metric can have
RULES = "pocket's rules"  # the scorer of measures that the pocket world's own rules decide
ONE = "1"  # the column that is 1 in every record
UNBOUNDED: Bounds = (-inf, inf)
SHARE: Bounds = (0.0, 1.0)
BALANCE: Bounds = (-1.0, 1.0)  # of a difference of shares, or a correlation


class Record(NamedTuple):
    """The values of one item, or of one of its completions, by column.

    Records of one cluster are not independent: the samples of a prompt, the two readings of a pair. `shown` is the text
    that was judged.
    """

    id: str
    cluster: str
    kind: str
    values: Mapping[str, float]
    shown: str = ""


class Metric(NamedTuple):
    """A number by its name: `of` computes it from the sums of `columns` over the records, [..., columns].

    `rate` says that the first column is 0 or 1 and the metric its mean, which has better intervals. With `by_kind`, the
    metric is also computed for each kind of record, as `name/kind`; with `"only"`, just so. `before` and `previous`
    name metrics of the same records that it is compared with, in place of those of other models. `interval` replaces
    the interval of the sums; it gets the columns, the confidence and the clusters. No interval leaves the `bounds`.
    """

    name: str
    better: Better
    columns: tuple[str, ...]
    of: "OfSums" = mean_of
    rate: bool = False
    by_kind: bool | Literal["only"] = False
    before: str = ""
    previous: str = ""
    interval: "Callable[[Floats, float, Sequence[str]], Interval] | None" = None
    bounds: Bounds = UNBOUNDED


def mean(
    name: str, better: Better = "neither", by_kind: bool | Literal["only"] = False, bounds: Bounds = UNBOUNDED
) -> Metric:
    """Return the metric that is the mean of the column of its name."""
    return Metric(name, better, (name, ONE), by_kind=by_kind, bounds=bounds)


def rate(name: str, better: Better = "neither", by_kind: bool | Literal["only"] = False) -> Metric:
    """Return the metric that is the share of records whose column of its name is 1 (the others are 0)."""
    return Metric(name, better, (name, ONE), rate=True, by_kind=by_kind)


def ratio(
    name: str,
    numerator: str,
    denominator: str,
    better: Better = "neither",
    by_kind: bool | Literal["only"] = False,
    bounds: Bounds = UNBOUNDED,
) -> Metric:
    """Return the metric that is the sum of one column over the sum of another; 0 where the second sum is 0."""
    return Metric(name, better, (numerator, denominator), ratio_of, by_kind=by_kind, bounds=bounds)


def ratio_of(sums: "Floats") -> "Floats":
    """Compute the first sum over the second; 0 where the second is 0."""
    part, whole = sums[..., 0], sums[..., 1]
    value: Floats = np.where(whole == 0, 0.0, part / np.where(whole == 0, 1.0, whole))
    return value


class Scores(NamedTuple):
    """One metric of one model: the columns of each record that has them, [n, k].

    Scores of another `version` of the measurement must not be compared with these. `scorer` names what told the values.
    """

    metric: Metric
    name: str
    columns: "Floats"
    ids: tuple[str, ...]
    clusters: tuple[str, ...]
    version: int = 1
    scorer: str = ""

    @property
    def values(self) -> "Floats":
        """Return the first column, [n]: of a mean or a rate, the value of each record."""
        first: Floats = self.columns[:, 0]
        return first


def score_records(metrics: Sequence[Metric], records: Sequence[Record]) -> dict[str, Scores]:
    """Return the scores of the metrics that any record has the columns of, by name."""
    return {scores.name: scores for metric in metrics for scores in of_metric(metric, records)}


def of_metric(metric: Metric, records: Sequence[Record]) -> Iterator[Scores]:
    """Yield the scores of a metric over all its records, and over those of each kind if it is by kind."""
    columns = [name for name in metric.columns if name != ONE]
    counted = [record for record in records if all(name in record.values for name in columns)]
    if metric.by_kind != "only":
        yield from of_records(metric, metric.name, counted)
    if metric.by_kind:
        for kind in sorted({record.kind for record in counted} - {""}):
            yield from of_records(metric, f"{metric.name}/{kind}", [one for one in counted if one.kind == kind])


def of_records(metric: Metric, name: str, records: Sequence[Record]) -> Iterator[Scores]:
    """Yield the scores of some records; nothing where there are none."""
    if records:
        values = [[float(one.values.get(column, 1.0)) for column in metric.columns] for one in records]
        ids, clusters = (tuple(column) for column in zip(*((one.id, one.cluster) for one in records), strict=True))
        yield Scores(metric, name, np.array(values), ids, clusters)
