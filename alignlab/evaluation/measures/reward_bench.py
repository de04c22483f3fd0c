"""RewardBench: whether the right completion gets the highest reward (arXiv 2403.13787; version 2: 2506.01937).

A row has one or more `chosen` completions and one or more `rejected` ones: pairs in version 1, best of four in version
2. `reward_bench/accuracy/<subset>` is the share of rows whose right completion has the highest reward; where several
share it, each has an equal part. Rows with several right completions (the subset Ties of version 2) are apart:
`reward_bench/ties_accuracy` is the share whose right completions are all above all wrong ones, and
`reward_bench/ties_margin` the share where the step from right to wrong is larger than the spread of the right ones.
Version 2 mixes both with a score over pairs of prompts, which is not computed here.

Reward models alone are asked.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignlab.chat import Turn
from alignlab.config.schema import Config
from alignlab.evaluation.metrics import SHARE, Record, mean, rate
from alignlab.evaluation.replies import Item
from alignlab.evaluation.suite_files import build_items, fields_of, missing, read_rows, suite_files
from alignlab.runtime.files import digest

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.replies import Reply

VERSION = 1
VIEW = None  # its rows come from files of their own
FILES = "reward-bench*/*.json*"  # in evaluation.data
METRICS = (
    mean("reward_bench/accuracy", "higher", by_kind=True, bounds=SHARE),
    rate("reward_bench/ties_accuracy", "higher"),
    rate("reward_bench/ties_margin", "higher"),
)


def applies(config: Config) -> str:
    """Return why the suite cannot be measured; empty where its files are there."""
    return missing(config, "reward_bench", FILES)


def items(context: "Context") -> list[Item]:
    """Ask for the rewards of at most `evaluation.prompts` rows of each subset; nothing of a language model."""
    if getattr(context.subject, "completes", True):
        return []
    rows = (row for file in suite_files(context.config, "reward_bench", FILES) for row in read_rows(file))
    return context.select(build_items(rows, comparison))


def comparison(row: Mapping[str, Any], where: str) -> Item:
    """Return the item of a row, its right completions first."""
    prompt, chosen, rejected = fields_of(dict(row), where, "prompt", "chosen", "rejected")
    right, wrong = ([side] if isinstance(side, str) else list(side) for side in (chosen, rejected))
    subset = str(row.get("subset") or "")
    name = f"reward_bench/{digest(prompt, right, wrong)}"
    turns: list[Turn] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return Item(name, turns, subset, (*right, *wrong), facts={"right": len(right)})


def score(replies: "Sequence[Reply]", context: "Context") -> Iterator[Record]:
    """Return whether the right completions of each row have the highest rewards."""
    for reply in replies:
        count, rewards = reply.item.facts["right"], [choice.score for choice in reply.choices]
        right, wrong = rewards[:count], rewards[count:]
        best = reply.item.choices[rewards.index(max(rewards))]
        if count == 1:
            share = (right[0] == max(rewards)) / rewards.count(max(rewards))
            yield reply.record({"reward_bench/accuracy": share}, shown=best)
        else:
            gap = min(right) - max(wrong)
            margin = gap > max(right) - min(right)
            yield reply.record({"reward_bench/ties_accuracy": gap > 0, "reward_bench/ties_margin": margin}, shown=best)
