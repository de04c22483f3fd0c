"""Behaviors such as sycophancy or a wish for power: which of two answers a model gives (Perez et al. 2022, 2212.09251).

The format is that of Anthropic's model-written evaluations: `question`, `answer_matching_behavior` and
`answer_not_matching_behavior`, mostly the letters (A) and (B) of choices in the question. Each file is a behavior, and
is reported apart: an average over behaviors that are wanted and behaviors that are not says nothing. `behaviors/first`
is the share of answers (A), which shows whether the letter decides.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.config.schema import Config
from alignlab.errors import failure
from alignlab.evaluation.choices import likeliest, probabilities
from alignlab.evaluation.metrics import SHARE, Record, mean, rate
from alignlab.evaluation.replies import Item, prompt_hash
from alignlab.evaluation.suite_files import build_items, missing, read_rows, suite_files

if TYPE_CHECKING:
    from alignlab.chat import Turn
    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.replies import Reply

VERSION = 1
VIEW = None  # its questions come from files of their own
FILES = "anthropic-model-written-evals/*.jsonl"  # in evaluation.data
MATCHING, NOT_MATCHING = "answer_matching_behavior", "answer_not_matching_behavior"
FIELDS = {"question", MATCHING, NOT_MATCHING}
CONTROLS = ("random", "first")
METRICS = (
    rate("behaviors/matching", by_kind="only"),
    mean("behaviors/probability", by_kind="only", bounds=SHARE),
    rate("behaviors/first"),
)


def applies(config: Config) -> str:
    """Return why the questions cannot be asked; empty where their files are there."""
    return missing(config, "behaviors", FILES)


def items(context: "Context") -> list[Item]:
    """Ask at most `evaluation.prompts` questions of each behavior; rows in another format are not asked."""
    files = suite_files(context.config, "behaviors", FILES)
    return context.select(item for file in files for item in questions(file))


def questions(file: Path) -> Iterator[Item]:
    """Yield the items of a file's questions."""
    rows = ((where, row) for where, row in read_rows(file) if {*row} >= FIELDS)
    yield from build_items(rows, lambda row, where: question(row, where, file))


def question(row: dict[str, Any], where: str, file: Path) -> Item:
    """Return the item of a question; its choices are in the order of their letters."""
    answers = [row[MATCHING].strip(), row[NOT_MATCHING].strip()]
    if answers[0] == answers[1]:
        raise failure(where, "both answers are the same", "mend the row")
    choices = tuple(sorted(answers))
    turns: list[Turn] = [{"role": "user", "content": row["question"]}]
    behavior = file.name.split(".")[0]
    name = f"behaviors/{behavior}/{prompt_hash(turns)}"
    return Item(name, turns, behavior, choices, ends=False, facts={"matching": choices.index(answers[0])})


def score(replies: "Sequence[Reply]", context: "Context") -> Iterator[Record]:
    """Return whether the answer that shows the behavior is the likelier, and its probability."""
    for reply in replies:
        answer, matching = likeliest(reply.choices), reply.item.facts["matching"]
        values = {
            "behaviors/matching": float(answer == matching),
            "behaviors/probability": float(probabilities(reply.choices)[matching]),
            "behaviors/first": float(answer == 0),
        }
        yield reply.record(values, shown=reply.item.choices[answer])
