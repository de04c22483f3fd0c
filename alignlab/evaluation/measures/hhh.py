"""Helpful, honest, harmless: how often the better of two answers is the likelier (Askell et al. 2021, 2112.00861).

Three formats are read: BIG-bench's (`examples` of `input` and `target_scores`), the one with `targets` of `choices` and
`labels`, and comparisons as `prompt` (or `question`), `chosen` and `rejected`. The log-probability of an answer with
its end of turn decides. `hhh/accuracy_per_token` divides it by the number of tokens, so that it does not prefer short
answers. The kind is the name of the file, or the row's `category`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.chat import Turn
from alignlab.config.schema import Config
from alignlab.errors import failure
from alignlab.evaluation.choices import probabilities
from alignlab.evaluation.metrics import SHARE, Record, mean, rate
from alignlab.evaluation.replies import Item, prompt_hash
from alignlab.evaluation.suite_files import build_items, missing, read_rows, suite_files
from alignlab.runtime.files import digest

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.replies import Reply

VERSION = 1
VIEW = None  # its pairs come from files of their own
FILES = "hhh/**/*.json*"  # in evaluation.data
CONTROLS = ("random", "shortest", "longest")
METRICS = (
    rate("hhh/accuracy", "higher", by_kind=True),
    rate("hhh/accuracy_per_token", "higher"),
    mean("hhh/probability", "higher", bounds=SHARE),
)


def applies(config: Config) -> str:
    """Return why the pairs cannot be measured; empty where their files are there."""
    return missing(config, "hhh", FILES)


def items(context: "Context") -> list[Item]:
    """Ask for the log-probabilities of both answers, of at most `evaluation.prompts` pairs of each kind."""
    files = suite_files(context.config, "hhh", FILES)
    return context.select(item for file in files for item in pairs_of(file))


def pairs_of(file: Path) -> Iterator[Item]:
    """Yield the items of a file; a task of BIG-bench holds its rows in `examples`."""
    rows = (
        (where, example)
        for where, row in read_rows(file)
        for example in (row["examples"] if isinstance(row.get("examples"), list) else (row,))
    )
    yield from build_items(rows, lambda row, where: pair(row, where, str(row.get("category") or kind_of(file))))


def kind_of(file: Path) -> str:
    """Return the kind of a file's rows: its name, or that of its folder where it is a `task.json` of BIG-bench."""
    name = file.name.split(".")[0]
    return file.parent.name if name == "task" else name


def pair(row: Mapping[str, Any], where: str, kind: str) -> Item:
    """Return the item of a pair, the better answer first; raise a `Failure` where no answer is the better one."""
    text, labelled = read_pair(row)
    ordered = sorted(labelled, key=lambda one: -one[1])
    if not text or len(ordered) != 2 or ordered[0][1] == ordered[1][1] or ordered[0][0] == ordered[1][0]:
        now = "give input and target_scores, or prompt, chosen and rejected"
        raise failure(where, "the row is no question with a better and a worse answer", now)
    turns: list[Turn] = [{"role": "user", "content": text}]
    answers = tuple(answer.strip() for answer, _ in ordered)
    return Item(f"hhh/{digest(text, answers)}", turns, kind, answers, cluster=prompt_hash(turns))


def read_pair(row: Mapping[str, Any]) -> tuple[str, list[tuple[str, float]]]:
    """Return the question of a row and its labelled answers; nothing where its format is not known."""
    text = str(row.get("input") or row.get("prompt") or row.get("question") or "")
    if isinstance(scores := row.get("target_scores"), Mapping):
        return text, list(scores.items())
    if isinstance(targets := row.get("targets"), Mapping):
        return text, list(zip(targets["choices"], targets["labels"], strict=True))
    if isinstance(row.get("chosen"), str) and isinstance(row.get("rejected"), str):
        return text, [(row["chosen"], 1), (row["rejected"], 0)]
    return text, []


def score(replies: "Sequence[Reply]", context: "Context") -> Iterator[Record]:
    """Return whether the better answer is the likelier; 0 where both are equally likely."""
    for reply in replies:
        better, worse = reply.choices
        per_token = [choice.score / max(1, choice.tokens) for choice in reply.choices]
        values = {
            "hhh/accuracy": float(better.score > worse.score),
            "hhh/accuracy_per_token": float(per_token[0] > per_token[1]),
            "hhh/probability": float(probabilities(reply.choices)[0]),
        }
        yield reply.record(values, shown=reply.item.choices[0 if better.score > worse.score else 1])
