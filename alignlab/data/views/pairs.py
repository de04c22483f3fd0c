"""Pairs of completions: `prompt`, `chosen` and `rejected`; a ranking gives every pair that it implies.

There is a column `label` if any label is soft, `weight` if the weights differ (scaled to a mean of 1), and
`chosen_finished` and `rejected_finished` if any completion was cut off. The pairs of a ranking share the weight of one
prompt: each has 1/C(n, 2) of it (Ouyang et al. 2022, section 3.5).
"""

from collections.abc import Iterator
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any

from alignlab.config.dataset import DataSettings
from alignlab.data.prepared_columns import (
    add_finished,
    completion_column,
    filter_rows,
    finished_column,
    simplify_weights,
)

if TYPE_CHECKING:
    from datasets import Dataset

FORMS = ("pairs", "rankings")
COMPLETIONS = ("chosen", "rejected")
NOT_OF_PAIRS = ("completions", "cut_off", "context", "rated", "harms")


def of_rows(rows: "Dataset", _: DataSettings) -> "Dataset":
    """Return pairs of completions."""
    from datasets import Dataset

    rows = filter_rows(rows, 2)
    if all(len(texts) == 2 for texts in rows["completions"]):
        chosen, rejected = completion_column(rows, 0), completion_column(rows, 1)
        both = rows.add_column("chosen", chosen).add_column("rejected", rejected)
        finished = {"chosen_finished": finished_column(rows, 0), "rejected_finished": finished_column(rows, 1)}
        return add_finished(simplify_labels(both.remove_columns(list(NOT_OF_PAIRS))), finished)
    ranked = Dataset.from_list([pair for row in rows.to_list() for pair in ranking_pairs(row)])
    finished = {name: ranked[name][:] for name in ("chosen_finished", "rejected_finished")}
    return add_finished(simplify_labels(ranked.remove_columns(list(finished))), finished)


def of_pairs(rows: "Dataset", _: DataSettings) -> "Dataset":
    """Return the pairs as they are."""
    return rows


def ranking_pairs(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the pairs that a ranking implies."""
    shared = {name: value for name, value in row.items() if name not in NOT_OF_PAIRS}
    shared["weight"] = row["weight"] / comb(len(row["completions"]), 2)
    for better, worse in combinations(range(len(row["completions"])), 2):
        chosen, rejected = row["completions"][better], row["completions"][worse]
        ends = {"chosen_finished": better not in row["cut_off"], "rejected_finished": worse not in row["cut_off"]}
        yield shared | {"id": f"{row['id']}/{better}-{worse}", "chosen": chosen, "rejected": rejected} | ends


def simplify_labels(rows: "Dataset") -> "Dataset":
    """Drop the labels if all are hard and the weights if all are equal."""
    weights = rows["weight"][:]
    if set(rows["label"]) <= {1.0}:
        rows = rows.remove_columns(["label"])
    return simplify_weights(rows.remove_columns(["weight"]), weights)
