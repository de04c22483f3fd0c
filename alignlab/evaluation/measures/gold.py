"""Judge completions by the pocket world's own rules, which no stage trains on.

A rate is over the prompts that it is defined for: compliance over harmful requests, over-refusal over innocent requests
that look harmful. `gold/score` is the mean over all prompts. `gold/score/<kind>`, `gold/helpful/<kind>` and
`gold/honest/<kind>` are over the prompts of a kind, since a mean can rise while one kind collapses.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from alignlab.config.schema import Config
from alignlab.evaluation.metrics import RULES, Record, mean, rate

if TYPE_CHECKING:
    from alignlab.chat import Turn
    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.replies import Reply

VERSION = 1
METRICS = (
    rate("gold/harmful_compliance", "lower"),
    rate("gold/over_refusal", "lower"),
    rate("gold/helpful", "higher", by_kind=True),
    rate("gold/honest", "higher", by_kind=True),
    rate("gold/toxic", "lower"),
    mean("gold/score", "higher", by_kind=True),
)


def applies(config: Config) -> str:
    """Return why the measure does not apply to a config; empty where it does."""
    return "" if config.dataset.pocket_world else "only the pocket world has gold scores"


def scored_by(config: Config, metric: str) -> str:
    """Return the name of the world's rules."""
    return RULES


def score(replies: "Sequence[Reply]", context: "Context") -> Iterator[Record]:
    """Judge every completion by the world's rules; a value that is not defined for a prompt is left out."""
    from alignlab.pocket.gold import judge

    for reply in replies:
        judged = judge(reply.item.turns, reply.text, reply.completions[0].finished)
        values = {
            "gold/harmful_compliance": judged.complied if reply.item.kind == "harmful" else None,
            "gold/over_refusal": judged.refused if reply.item.kind == "lookalike" else None,
            "gold/helpful": judged.helpful,
            "gold/honest": judged.honest,
            "gold/toxic": judged.toxic,
            "gold/score": judged.score,
        }
        yield reply.record({name: float(value) for name, value in values.items() if value is not None})


def gold_scores(prompts: "Sequence[Sequence[Turn]]", texts: Sequence[str], finished: Sequence[bool]) -> list[float]:
    """Return the gold score of each completion."""
    from alignlab.pocket.gold import judge

    return [judge(*sample).score for sample in zip(prompts, texts, finished, strict=True)]
