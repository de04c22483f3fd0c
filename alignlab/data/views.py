"""Views of prepared rows: the columns that a method needs, cut from prompts and their completions, best first.

Pairs have a `label` where any is soft, and a `weight` where weights differ. A ranking's pairs share the weight of one
prompt: each has 1/C(n, 2) of it (Ouyang et al. 2022, section 3.5). Weights are scaled to a mean of 1.
"""

from collections.abc import Callable, Iterator
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any

from alignlab.data.hh_rlhf import first_of_each, transcript

if TYPE_CHECKING:
    from datasets import Dataset


def offers(forms: dict[str, int]) -> list[str]:
    """The views that rows of these forms can give."""
    has = {name for name, count in forms.items() if count}
    given = {
        "demonstrations": has & {"demonstrations", "pairs", "rankings"},
        "pairs": has & {"pairs", "rankings"},
        "rankings": has & {"pairs", "rankings"},
        "prompts": has - {"text"},
        "text": has - {"prompts"},
    }
    return [name for name, found in given.items() if found]


def cut(whole: "Dataset", least: int, asked: bool = True) -> "Dataset":
    """The rows that have at least so many completions, and a prompt where one is asked for."""
    import pyarrow.compute as arrow
    from datasets import Dataset
    from datasets.table import InMemoryTable

    table = whole.data.table
    fits = arrow.greater_equal(arrow.list_value_length(table["completions"]), least)
    if asked:
        fits = arrow.and_(fits, arrow.greater(arrow.list_value_length(table["prompt"]), 0))
    return Dataset(InMemoryTable(table.filter(fits)))


def column(found: "Dataset", place: int) -> list[str]:
    """One completion of every row."""
    import pyarrow.compute as arrow

    return list(arrow.list_element(found.data.table["completions"], place).to_pylist()) if len(found) else []


def demonstrations(whole: "Dataset") -> "Dataset":
    """The prompt and the best completion."""
    found = bare(cut(whole, 1))
    return found.remove_columns(["completions"]).add_column("completion", column(found, 0))


def pairs(whole: "Dataset") -> "Dataset":
    """Two completions; a ranking gives every pair that it implies."""
    from datasets import Dataset

    found = cut(whole, 2)
    if all(len(texts) == 2 for texts in found["completions"]):
        both = found.add_column("chosen", column(found, 0)).add_column("rejected", column(found, 1))
        return telling(both.remove_columns(["completions"]))
    return telling(Dataset.from_list([pair for row in found.to_list() for pair in pairs_of(row)]))


def telling(found: "Dataset") -> "Dataset":
    """Pairs without a label where none is soft, without a weight where all are the same, else with a mean of 1."""
    weights = found["weight"][:]
    if set(found["label"]) <= {1.0}:
        found = found.remove_columns(["label"])
    found = found.remove_columns(["weight"])
    if len(set(weights)) < 2:
        return found
    mean = sum(weights) / len(weights)
    return found.add_column("weight", [weight / mean for weight in weights])


def bare(found: "Dataset") -> "Dataset":
    """Rows without what is said of pairs alone."""
    return found.remove_columns(["label", "weight"])


def pairs_of(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pairs that a ranking implies."""
    kept = {name: value for name, value in row.items() if name != "completions"}
    kept["weight"] = row["weight"] / comb(len(row["completions"]), 2)
    for better, worse in combinations(range(len(row["completions"])), 2):
        chosen, rejected = row["completions"][better], row["completions"][worse]
        yield kept | {"id": f"{row['id']}/{better}-{worse}", "chosen": chosen, "rejected": rejected}


def prompts(whole: "Dataset") -> "Dataset":
    """Every prompt once."""
    found = bare(cut(whole, 0)).remove_columns(["completions"])
    return found.select(first_of_each([{"prompt": prompt} for prompt in found["prompt"]]))


def text(whole: "Dataset") -> "Dataset":
    """Conversations as transcripts, and plain text as it is."""
    found = bare(cut(whole, 1, asked=False))
    said = [
        transcript(prompt, best) if prompt else best
        for prompt, best in zip(found["prompt"], column(found, 0), strict=True)
    ]
    return found.remove_columns(["prompt", "completions"]).add_column("text", said)


VIEWS: dict[str, Callable[["Dataset"], "Dataset"]] = {
    "demonstrations": demonstrations,
    "pairs": pairs,
    "rankings": lambda whole: bare(cut(whole, 2)),
    "prompts": prompts,
    "text": text,
}
