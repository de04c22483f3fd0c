"""Views of prepared rows: the columns that a method needs, built from prompts and their completions, best first.

The pairs view has a `label` column if any label is soft, a `weight` column if the weights differ, and columns
`chosen_finished` and `rejected_finished` if any answer was cut off. The demonstrations view has `finished` in that
case, and `context` if any of its earlier answers is not to be learned. Weights are scaled to a mean of 1. The pairs
of a ranking share the weight of one prompt: each has 1/C(n, 2) of it (Ouyang et al. 2022, section 3.5).
"""

from collections.abc import Callable, Iterator
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any

from alignlab.data.hh_rlhf import first_positions, format_transcript

if TYPE_CHECKING:
    from datasets import Dataset


def available_views(forms: dict[str, int]) -> list[str]:
    """List the views that rows of these forms (counts by form) can give."""
    present = {name for name, count in forms.items() if count}
    sources = {
        "demonstrations": present & {"demonstrations", "pairs", "rankings"},
        "pairs": present & {"pairs", "rankings"},
        "rankings": present & {"pairs", "rankings"},
        "prompts": present - {"text"},
        "text": present - {"prompts", "bad_answers"},
    }
    return [name for name, forms_of_view in sources.items() if forms_of_view]


def demonstrations(dataset: "Dataset") -> "Dataset":
    """Return prompts and their best completions."""
    rows = filter_rows(dataset, 1)
    finished, context = {"finished": finished_column(rows, 0)}, rows["context"][:]
    rows = drop_pair_columns(rows)
    rows = rows.remove_columns(["completions"]).add_column("completion", completion_column(rows, 0))
    return add_finished(rows.add_column("context", context) if any(context) else rows, finished)


def pairs(dataset: "Dataset") -> "Dataset":
    """Return pairs of completions; a ranking gives every pair that it implies."""
    from datasets import Dataset

    rows = filter_rows(dataset, 2)
    if all(len(texts) == 2 for texts in rows["completions"]):
        chosen, rejected = completion_column(rows, 0), completion_column(rows, 1)
        both = rows.add_column("chosen", chosen).add_column("rejected", rejected)
        finished = {"chosen_finished": finished_column(rows, 0), "rejected_finished": finished_column(rows, 1)}
        return add_finished(simplify_labels(both.remove_columns(["completions", "cut_off", "context"])), finished)
    ranked = Dataset.from_list([pair for row in rows.to_list() for pair in ranking_pairs(row)])
    finished = {name: ranked[name][:] for name in ("chosen_finished", "rejected_finished")}
    return add_finished(simplify_labels(ranked.remove_columns(list(finished))), finished)


def ranking_pairs(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the pairs that a ranking implies."""
    shared = {name: value for name, value in row.items() if name not in ("completions", "cut_off", "context")}
    shared["weight"] = row["weight"] / comb(len(row["completions"]), 2)
    for better, worse in combinations(range(len(row["completions"])), 2):
        chosen, rejected = row["completions"][better], row["completions"][worse]
        ends = {"chosen_finished": better not in row["cut_off"], "rejected_finished": worse not in row["cut_off"]}
        yield shared | {"id": f"{row['id']}/{better}-{worse}", "chosen": chosen, "rejected": rejected} | ends


def prompts(dataset: "Dataset") -> "Dataset":
    """Return the distinct prompts."""
    rows = drop_pair_columns(filter_rows(dataset, 0)).remove_columns(["completions"])
    return rows.select(first_positions([{"prompt": prompt} for prompt in rows["prompt"]]))


def text(dataset: "Dataset") -> "Dataset":
    """Return conversations as transcripts, and plain text unchanged."""
    rows = drop_pair_columns(filter_rows(dataset, 1, needs_prompt=False))
    texts = [
        format_transcript(prompt, best) if prompt else best
        for prompt, best in zip(rows["prompt"], completion_column(rows, 0), strict=True)
    ]
    return rows.remove_columns(["prompt", "completions"]).add_column("text", texts)


VIEWS: dict[str, Callable[["Dataset"], "Dataset"]] = {
    "demonstrations": demonstrations,
    "pairs": pairs,
    "rankings": lambda dataset: drop_pair_columns(filter_rows(dataset, 2)),
    "prompts": prompts,
    "text": text,
}


def filter_rows(dataset: "Dataset", least: int, needs_prompt: bool = True) -> "Dataset":
    """Return the rows with at least `least` completions, and with a prompt if one is needed."""
    import pyarrow.compute as arrow
    from datasets import Dataset
    from datasets.table import InMemoryTable

    table = dataset.data.table
    number = arrow.list_value_length(table["completions"])
    keep = arrow.greater_equal(number, least)
    if least == 1:  # a single answer that is marked as bad is no demonstration
        keep = arrow.and_(keep, arrow.invert(arrow.and_(arrow.equal(number, 1), arrow.equal(table["label"], 0.0))))
    if needs_prompt:
        keep = arrow.and_(keep, arrow.greater(arrow.list_value_length(table["prompt"]), 0))
    return Dataset(InMemoryTable(table.filter(keep)))


def completion_column(rows: "Dataset", rank: int) -> list[str]:
    """Return the completion of a rank (0 is the best) of every row."""
    import pyarrow.compute as arrow

    return list(arrow.list_element(rows.data.table["completions"], rank).to_pylist()) if len(rows) else []


def finished_column(rows: "Dataset", rank: int) -> list[bool]:
    """Return whether the completion of a rank (0 is the best) of every row ended by itself."""
    return [rank not in places for places in rows["cut_off"]]


def add_finished(rows: "Dataset", columns: dict[str, list[bool]]) -> "Dataset":
    """Add columns that say whether completions ended by themselves, unless all did."""
    if all(all(column) for column in columns.values()):
        return rows
    for name, column in columns.items():
        rows = rows.add_column(name, column)
    return rows


def simplify_labels(rows: "Dataset") -> "Dataset":
    """Drop the labels if all are hard and the weights if all are equal; else scale the weights to a mean of 1."""
    weights = rows["weight"][:]
    if set(rows["label"]) <= {1.0}:
        rows = rows.remove_columns(["label"])
    rows = rows.remove_columns(["weight"])
    if len(set(weights)) < 2:
        return rows
    mean = sum(weights) / len(weights)
    return rows.add_column("weight", [weight / mean for weight in weights])


def drop_pair_columns(rows: "Dataset") -> "Dataset":
    """Drop the columns that only pairs use, and those that say how a row is learned."""
    return rows.remove_columns(["label", "weight", "cut_off", "context"])
