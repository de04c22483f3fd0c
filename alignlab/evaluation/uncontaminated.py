"""Results on the items that are in no training row, nor near one (see `alignlab.data.contamination`)."""

from collections.abc import Sequence

from alignlab.config.schema import Config
from alignlab.evaluation.metrics import Metric, Record, Scores, score_records
from alignlab.evaluation.protocol import ChosenMeasurement
from alignlab.evaluation.replies import Item, Reply

SUFFIX = "/uncontaminated"  # of a measure's name

_near: dict[tuple[str, tuple[str, ...]], frozenset[str]] = {}  # of each data set and list of items: clusters


def uncontaminated(
    chosen: ChosenMeasurement, replies: Sequence[Reply], records: Sequence[Record], config: Config
) -> dict[str, Scores]:
    """Return the scores of a measurement's overall metrics without clusters of items that are near training rows.

    Nothing is returned where no item is near one, or all are. Their direction is "neither": a verdict is on all items.
    """
    near = near_clusters([reply.item for reply in replies], config)
    clean = [record for record in records if record.cluster not in near]
    if not 0 < len(clean) < len(records):
        return {}
    metrics = [renamed(one) for one in chosen.metrics(clean) if one.by_kind != "only"]
    return score_records(metrics, clean)


def renamed(metric: Metric) -> Metric:
    """Return a metric under the name of its uncontaminated part."""
    name = f"{metric.name}{SUFFIX}"
    return metric._replace(name=name, better="neither", by_kind=False, before="", previous="")


def near_clusters(items: Sequence[Item], config: Config) -> frozenset[str]:
    """Return the clusters of items that are near a training row; training rows are read once for the same items."""
    from alignlab.data import content
    from alignlab.data.contamination import near_training
    from alignlab.data.prepared import prepare

    key = content(config.dataset), tuple(item.id for item in items)
    if items and key not in _near:
        rows = ({"prompt": item.turns, "completions": list(item.choices)} for item in items)
        near = near_training(rows, prepare(config.dataset).splits["train"])
        _near[key] = frozenset(item.cluster or item.id for item, flag in zip(items, near, strict=True) if flag)
    return _near.get(key, frozenset())
