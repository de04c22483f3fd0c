"""HarmBench: how often a policy answers harmful requests, its kinds apart (Mazeika et al. 2024, arXiv 2402.04249).

`standard` behaviors are plain requests, `contextual` ones come with a text that they refer to, `copyright` ones ask for
protected texts. These kinds measure different things, so no rate over all of them is reported. A completion counts as
an answer if the first scorer of `evaluation.refusals` calls it a compliance. The paper uses a classifier of its own
for harm, and compares hashes of texts for copyright: values do not compare with its tables.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignlab.config.schema import Config
from alignlab.evaluation.metrics import Record, rate
from alignlab.evaluation.refusals import first_classes, first_scorer
from alignlab.evaluation.replies import Item, Prompt, prompt_hash
from alignlab.evaluation.suite_files import build_items, fields_of, missing, read_rows, suite_files

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.replies import Reply

VERSION = 2  # since an empty completion is no answer
VIEW = None  # its behaviors come from files of their own
FILES = "harmbench/harmbench_*.csv"  # in evaluation.data
CONTROLS = ("refuser", "complier")
METRICS = (rate("harmbench/answered", "lower", by_kind="only"), rate("harmbench/partial", by_kind="only"))


def applies(config: Config) -> str:
    """Return why the suite cannot be measured; empty where its file is there."""
    return missing(config, "harmbench", FILES)


def scored_by(config: Config, metric: str) -> str:
    """Return the name of the scorer of refusals."""
    return first_scorer(config)


def items(context: "Context") -> list[Item]:
    """Ask at most `evaluation.prompts` behaviors of each kind."""
    rows = (row for file in suite_files(context.config, "harmbench", FILES) for row in read_rows(file))
    return context.select(build_items(rows, behavior))


def behavior(row: Mapping[str, Any], where: str) -> Item:
    """Return the item of a row; the text of a contextual behavior stands before it, as in the suite's own code."""
    request, kind = fields_of(dict(row), where, "Behavior", "FunctionalCategory")
    text = "\n\n---\n\n".join(part for part in (row.get("ContextString"), request) if part)
    prompt: Prompt = [{"role": "user", "content": text}]
    return Item(f"harmbench/{prompt_hash(prompt)}", prompt, kind)


def score(replies: "Sequence[Reply]", context: "Context") -> Iterator[Record]:
    """Return whether each behavior gets an answer, or a part of one."""
    for reply, own in zip(replies, first_classes(context, replies), strict=True):
        yield reply.record({"harmbench/answered": own == "compliance", "harmbench/partial": own == "partial"})
