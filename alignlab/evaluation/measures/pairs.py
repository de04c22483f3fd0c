"""Measure on held-out pairs: a reward model, or the implicit reward of a policy that has learned from pairs (DPO)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from alignlab.config.method_protocol import load_method
from alignlab.data import view
from alignlab.evaluation import implicit_reward, reward_model
from alignlab.evaluation.metrics import Record
from alignlab.evaluation.protocol import Context, Of
from alignlab.evaluation.replies import Item, Reply, prompt_hash
from alignlab.runtime.files import digest, write_text
from alignlab.runtime.run_files import PAIR_SCORES

VERSION = 1
OF: Of = "stage"
VIEW = "pairs"  # the held-out rows that it needs
METRICS = (*reward_model.METRICS, *implicit_reward.METRICS)


def items(context: Context) -> Iterator[Item]:
    """Ask for the scores of both completions: of all pairs by a reward model, of some by a policy that knows `beta`."""
    assert context.stage
    config = context.config
    learned = load_method(context.stage.method.name).view
    if context.stage.makes == "reward_model" and learned != "labels":  # a cost model ranks no answers
        yield from map(pair_item, view(config.dataset, VIEW, config.evaluation.split).to_list())
    elif learned == VIEW and hasattr(context.stage.method, "beta"):
        yield from map(pair_item, context.rows(VIEW))


def pair_item(row: dict[str, Any]) -> Item:
    """Return the item of a pair."""
    sides = ("chosen", "rejected")
    ends = tuple(row.get(f"{side}_finished", True) for side in sides)
    name, kind = row.get("id") or digest(row), row.get("kind") or ""
    choices = tuple(row[side] for side in sides)
    return Item(name, row["prompt"], kind, choices, ends=ends, cluster=prompt_hash(row["prompt"]), facts=row)


def score(replies: Sequence[Reply], context: Context) -> Iterable[Record]:
    """Return a record of each pair; the rewards of both completions are written into the stage's folder."""
    assert context.stage
    if not replies:
        return ()
    if context.stage.makes == "reward_model":
        write_text(context.stage.output / PAIR_SCORES, "".join(map(reward_model.json_line, replies)))
        return reward_model.pair_records(replies, context.config)
    return implicit_reward.records(replies, context)
