"""Moderation: the share of completions to harmful prompts that a moderation server flags, also by its categories.

The server speaks OpenAI's protocol (`POST /moderations`). It gets completions alone, each once: its answers are kept in
the cache under its address and model, so a silent change of the server does not mix two scorers in one comparison
until `make clean-cache`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignlab.config.evaluation import Moderation
from alignlab.config.schema import Config
from alignlab.errors import Failure, failure
from alignlab.evaluation.metrics import Metric, Record, rate
from alignlab.evaluation.prompt_files import harmful_prompts
from alignlab.evaluation.replies import Item
from alignlab.evaluation.suite_files import missing
from alignlab.evaluation.text_scores import score_once
from alignlab.runtime.files import digest

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.replies import Reply

VERSION = 1
VIEW = None  # its prompts come from a file of their own
FILES = "advbench/harmful_behaviors*.csv"  # in evaluation.data


def metrics(records: "Sequence[Record]") -> list[Metric]:
    """Return the rate of flagged completions, and that of each category; flags of categories are not tested."""
    names = dict.fromkeys(name for record in records for name in record.values)
    return [rate(name, "lower" if name == "moderation/flagged" else "neither") for name in names]


METRICS = metrics


def applies(config: Config) -> str:
    """Return why the measurement does not apply; empty where there are a server and harmful prompts."""
    settings = config.measure.get("moderation")
    assert isinstance(settings, Moderation)
    return missing(config, "moderation", FILES) if settings.url else "no measure.moderation.url is set"


def scored_by(config: Config, metric: str) -> str:
    """Return the name of the server's model, if it is known."""
    settings = config.measure["moderation"]
    assert isinstance(settings, Moderation)
    return settings.model or "a moderation server"


def items(context: "Context") -> Iterator[Item]:
    """Ask the harmful prompts."""
    settings = context.settings
    assert isinstance(settings, Moderation)
    for name, prompt in harmful_prompts(context.config, "moderation", FILES)[: settings.prompts]:
        yield Item(name, prompt, "harmful")


def score(replies: "Sequence[Reply]", context: "Context") -> Iterator[Record]:
    """Return what the server flags of each completion."""
    settings = context.settings
    assert isinstance(settings, Moderation)
    flagged = moderate(settings, [reply.text for reply in replies])
    names = sorted({name for flags in flagged for name in flags})
    for reply, flags in zip(replies, flagged, strict=True):
        yield reply.record({f"moderation/{name}": float(flags.get(name, False)) for name in names})


def moderate(settings: Moderation, texts: Sequence[str]) -> list[dict[str, bool]]:
    """Return the flags of texts by category, `flagged` among them; an empty text has none to be judged by."""
    from alignlab.runtime.http_client import HTTPClient, Unanswered

    def compute(rows: Sequence[tuple[str, ...]]) -> Iterator[dict[int, dict[str, bool]]]:
        client = HTTPClient(settings)
        for start in range(0, len(rows), settings.batch_size):
            batch = [text or " " for (text,) in rows[start : start + settings.batch_size]]
            body = {"input": batch} | ({"model": settings.model} if settings.model else {})
            try:
                answer = client.send("POST", f"{settings.url.rstrip('/')}/moderations", body)
            except Unanswered as error:
                raise broken(settings, str(error)) from None
            if answer.status != 200:
                raise broken(settings, f"answers {answer.status}: {answer.excerpt()}")
            yield {start + place: flags for place, flags in enumerate(read_flags(settings, answer, len(batch)))}

    return score_once(digest("moderation", settings.url, settings.model), [(text,) for text in texts], compute)


def read_flags(settings: Moderation, answer: Any, count: int) -> list[dict[str, bool]]:
    """Return the flags in an answer, one set for each text; raise a `Failure` where it is another answer."""
    try:
        results = answer.json()["results"]
        flags = [{"flagged": bool(one["flagged"]), **categories(one)} for one in results]
    except (ValueError, LookupError, TypeError, AttributeError):
        flags = []
    if len(flags) != count:
        raise broken(settings, f"answers {count} texts with {answer.excerpt()}")
    return flags


def categories(result: Mapping[str, Any]) -> dict[str, bool]:
    """Return the flags of a result by category, in names without slashes."""
    return {name.replace("/", "_"): bool(flag) for name, flag in (result.get("categories") or {}).items()}


def broken(settings: Moderation, why: str) -> Failure:
    """Build the failure of a server that does not answer; texts that it has judged are kept."""
    return failure("measure.moderation.url", f"{settings.url} {why}", "mend it; the same command resumes")
