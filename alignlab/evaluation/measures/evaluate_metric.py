"""Any metric of Hugging Face's `evaluate`, by its name or folder, of completions and the held-out answers.

It is computed for each completion by itself, against the answer to the same prompt, and averaged: values have
intervals and paired differences as all others. A metric of a whole corpus (BLEU) has another value than the mean of
its rows.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from alignlab.config.evaluation import EvaluateMetric
from alignlab.config.schema import Config
from alignlab.errors import failure
from alignlab.evaluation.items import references
from alignlab.evaluation.metrics import Metric, Record, mean
from alignlab.evaluation.replies import prompt_hash
from alignlab.runtime.worker_errors import must_reach_run

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.replies import Reply

VERSION = 1
VIEW = "demonstrations"  # the held-out rows that it needs
SETTING = "measure.evaluate_metric.metric"


def metrics(records: "Sequence[Record]") -> list[Metric]:
    """Return the mean of each number that the metric returns; its direction is not known."""
    return [mean(name) for name in dict.fromkeys(name for record in records for name in record.values)]


METRICS = metrics


def applies(config: Config) -> str:
    """Return why the metric is not computed; empty where one is named."""
    settings = config.measure.get("evaluate_metric")
    assert isinstance(settings, EvaluateMetric)
    return "" if settings.metric else "measure.evaluate_metric.metric names no metric"


def score(replies: "Sequence[Reply]", context: "Context") -> Iterator[Record]:
    """Compute the metric of each completion whose prompt has a held-out answer."""
    settings = context.settings
    assert isinstance(settings, EvaluateMetric)
    metric, answers = load(settings), references(context)
    for reply in replies:
        if expected := answers.get(prompt_hash(reply.item.prompt)):
            result = metric.compute(predictions=[reply.text], references=[expected[0]], **settings.options)
            numbers = {name: value for name, value in result.items() if isinstance(value, int | float)}
            yield reply.record({f"evaluate_metric/{name}": float(value) for name, value in numbers.items()})


def load(settings: EvaluateMetric) -> Any:
    """Load the metric; raises a `Failure` where it cannot be loaded."""
    import evaluate

    try:
        return evaluate.load(str(settings.metric))
    except Exception as error:  # the metric's own code, or the hub's client
        if must_reach_run(error):
            raise
        what = f"{settings.metric} cannot be loaded ({type(error).__name__}: {error})"
        raise failure(SETTING, what, "give the folder or the file of a metric, or a name on the hub") from error
