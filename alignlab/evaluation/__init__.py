"""Measure what a model does on items that no stage has trained on.

`evaluate` asks a model what the measurements of the config ask (see `protocol`), and returns their scores.
`measurements` compares a model's scores with those of the models that it came from, in the form of `result.json`. All
models of a run get the same items and the same random streams, so that they are compared item by item.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from alignlab.chat import Turn
from alignlab.evaluation.metrics import Record, Scores, score_records
from alignlab.evaluation.protocol import Context, Of, measurements_with_rows
from alignlab.evaluation.replies import Reply
from alignlab.evaluation.scores import measurements as measurements
from alignlab.evaluation.uncontaminated import uncontaminated


class Sample(NamedTuple):
    """A completion that a model gave to an item."""

    id: str
    kind: str
    prompt: list[Turn]
    completion: str
    finished: bool
    tokens: int


class Evaluated(NamedTuple):
    """The scores of one model by name, its records by measurement, and all completions that it gave."""

    scores: dict[str, Scores]
    records: dict[str, list[Record]]
    samples: list[Sample]

    def add(self, other: "Evaluated") -> "Evaluated":
        """Return the scores and records of both, and these samples."""
        return Evaluated(self.scores | other.scores, self.records | other.records, self.samples)


NOTHING = Evaluated({}, {}, [])


def evaluate(context: Context, of: Of = "policy") -> Evaluated:
    """Measure a model by every measurement of the config that has rows; of a policy, or of a finished stage."""
    scores: dict[str, Scores] = {}
    records: dict[str, list[Record]] = {}
    samples: dict[str, Sample] = {}
    for chosen in measurements_with_rows(context.config, of):
        replies, records[chosen.name] = chosen.measure(context)
        own = score_records(chosen.metrics(records[chosen.name]), records[chosen.name])
        if context.config.evaluation.contamination:
            own |= uncontaminated(chosen, replies, records[chosen.name], context.config)
        scores |= {name: chosen.label(one, context.config) for name, one in own.items()}
        samples |= {sample.id: sample for sample in completions(replies)}
    context.subject.release()
    return Evaluated(scores, {name: rows for name, rows in records.items() if rows}, list(samples.values()))


def completions(replies: Iterable[Reply]) -> Iterator[Sample]:
    """Yield the completions of replies; those of one item but the first have its number in their id."""
    for reply in replies:
        item = reply.item
        for number, one in enumerate(reply.completions):
            name = f"{item.id}#{number}" if number else item.id
            yield Sample(name, item.kind, item.turns, one.text, one.finished, len(one.tokens))


def values_by_id(evaluated: Evaluated) -> dict[str, dict[str, float]]:
    """Return the values of each record by its id: those of the columns that are measures of their own."""
    values: dict[str, dict[str, float]] = {}
    names = {scores.metric.name for scores in evaluated.scores.values()}
    for rows in evaluated.records.values():
        for record in rows:
            own = {name: float(value) for name, value in record.values.items() if name in names}
            values[record.id] = values.get(record.id, {}) | own
    return values
