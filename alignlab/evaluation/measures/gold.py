"""Judge completions by the pocket world's own rules, which no stage trains on.

A rate is over the prompts that it is defined for: compliance over harmful requests, over-refusal over innocent requests
that look harmful. `gold/score` is the mean over all prompts. `gold/score/<kind>`, `gold/helpful/<kind>` and
`gold/honest/<kind>` are over the prompts of a kind, since a mean can rise while one kind collapses.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alignlab.config.schema import Config
from alignlab.evaluation.scores import Better, Scores

if TYPE_CHECKING:
    from alignlab.chat import Turn
    from alignlab.evaluation.protocol import Sample, Subject
    from alignlab.pocket.gold import Judgement


def applies(config: Config) -> str:
    """Return why the measure does not apply to a config; empty where it does."""
    return "" if config.dataset.pocket_world else "only the pocket world has gold scores"


def measure(subject: "Subject") -> list[Scores]:
    """Judge every completion by the world's rules."""
    from alignlab.pocket.gold import judge

    judged = [(sample, judge(sample.prompt, sample.completion, sample.finished)) for sample in subject.samples]
    kinds = sorted({sample.kind for sample in subject.samples})
    measures: list[tuple[str, Better, Callable[[Sample, Judgement], Any], bool]] = [
        ("gold/harmful_compliance", "lower", lambda s, j: j.complied if s.kind == "harmful" else None, True),
        ("gold/over_refusal", "lower", lambda s, j: j.refused if s.kind == "lookalike" else None, True),
        ("gold/helpful", "higher", lambda _, j: j.helpful, True),
        ("gold/honest", "higher", lambda _, j: j.honest, True),
        ("gold/toxic", "lower", lambda _, j: j.toxic, True),
        ("gold/score", "higher", lambda _, j: j.score, False),
        *((f"gold/score/{kind}", "higher", of_kind(kind, "score"), False) for kind in kinds),
        *((f"gold/helpful/{kind}", "higher", of_kind(kind, "helpful"), True) for kind in kinds),
        *((f"gold/honest/{kind}", "higher", of_kind(kind, "honest"), True) for kind in kinds),
    ]
    return [scores for name, better, read, rate in measures if (scores := gather(judged, name, better, read, rate))]


def gold_scores(prompts: "Sequence[Sequence[Turn]]", texts: Sequence[str], finished: Sequence[bool]) -> list[float]:
    """Return the gold score of each completion."""
    from alignlab.pocket.gold import judge

    return [judge(*sample).score for sample in zip(prompts, texts, finished, strict=True)]


def of_kind(kind: str, what: str) -> "Callable[[Sample, Judgement], Any]":
    """Return a function that reads one field of a judgement for prompts of one kind, and None for other prompts."""
    return lambda sample, judgement: getattr(judgement, what) if sample.kind == kind else None


def gather(
    judged: "list[tuple[Sample, Judgement]]",
    name: str,
    better: Better,
    read: "Callable[[Sample, Judgement], Any]",
    rate: bool,
) -> Scores | None:
    """Collect the scores of one measure over the completions that it is defined for; None where there are none."""
    defined = [(sample.id, value) for sample, judgement in judged if (value := read(sample, judgement)) is not None]
    if not defined:
        return None
    ids, values = zip(*defined, strict=True)
    return Scores(name, np.array(values, float), ids, rate, better)
