"""Columns of prepared rows, from which views are built: rows of a prompt and its completions, best first."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset, Features

DETAILS = ("label", "weight", "cut_off", "context", "rated", "harms")  # columns that say how a row is learned


def prepared_features() -> "Features":
    """Return the columns of prepared rows, with their types."""
    from datasets import Features, List, Value

    text, number, place = Value("string"), Value("float64"), Value("int64")
    return Features(
        id=text,
        kind=text,
        made_by=text,
        prompt=List({"role": text, "content": text}),
        completions=List(text),
        label=number,
        weight=number,
        cut_off=List(place),
        context=List(place),
        rated=Value("bool"),
        harms=List(text),
    )


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


def simplify_weights(rows: "Dataset", weights: list[float]) -> "Dataset":
    """Add the weights, scaled to a mean of 1, unless all are equal."""
    if len(set(weights)) < 2:
        return rows
    mean = sum(weights) / len(weights)
    return rows.add_column("weight", [weight / mean for weight in weights])


def drop_details(rows: "Dataset", *more: str) -> "Dataset":
    """Drop the columns that say how a row is learned, and `more` columns."""
    return rows.remove_columns([*DETAILS, *more])
