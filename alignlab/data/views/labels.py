"""Single completions that are labelled good or bad: `prompt`, `completion` and `desirable`.

There is a column `harms` (the kinds of harm) if any row names one, `weight` if the weights differ (scaled to a mean of
1), and `finished` if any completion was cut off.

With `dataset.label_pairs`, pairs and rankings give two labels each: the best completion is good, the worst bad. The
label p of a pair, the probability that the first completion is better, weighs them by 2p - 1.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from alignlab.config.dataset import DataSettings
from alignlab.data.prepared_columns import add_finished, simplify_weights
from alignlab.errors import mistake

if TYPE_CHECKING:
    from datasets import Dataset

FORMS = ("good_answers", "bad_answers", "pairs", "rankings")
COMPLETIONS = ("completion",)


def of_rows(rows: "Dataset", dataset: DataSettings) -> "Dataset":
    """Return the labelled completions."""
    from_pairs = bool(getattr(dataset, "label_pairs", False))
    is_ranked = [len(completions) > 1 for completions in rows["completions"]]
    kept = [place for place, rated in enumerate(rows["rated"]) if rated or (from_pairs and is_ranked[place])]
    if not kept and any(is_ranked) and not from_pairs:
        raise unlabelled()
    return with_labels(rows.select(kept), labels_of_row)


def of_pairs(rows: "Dataset", dataset: DataSettings) -> "Dataset":
    """Return the completions of pairs: the chosen ones are good, the rejected ones bad."""
    if not getattr(dataset, "label_pairs", False):
        raise unlabelled()
    return with_labels(rows, labels_of_pair)


def unlabelled() -> Exception:
    """Build the mistake for pairs where labels are needed."""
    now = "set dataset.label_pairs=true: chosen completions are then good, rejected ones bad"
    return mistake("dataset", "its rows hold pairs, and no labels", now)


def with_labels(rows: "Dataset", labels: Any) -> "Dataset":
    """Return the rows that `labels` yields for each row."""
    from datasets import Dataset, Features, List, Value

    text = Value("string")
    names = ["id", *(name for name in ("kind", "made_by") if name in rows.column_names)]
    columns: dict[str, list[Any]] = {
        name: [] for name in (*names, "prompt", "completion", "desirable", "weight", "finished", "harms")
    }
    for row in rows:
        for label in labels(row):
            for name, column in columns.items():
                column.append(label[name])
    weights, finished, harms = (columns.pop(name) for name in ("weight", "finished", "harms"))
    turns = List({"role": text, "content": text})
    features = Features(**dict.fromkeys(names, text), prompt=turns, completion=text, desirable=Value("bool"))
    view = Dataset.from_dict(columns, features=features)
    if any(harms):
        view = view.add_column("harms", harms)
    return add_finished(simplify_weights(view, weights), {"finished": finished})


def labels_of_row(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the label of a labelled completion, or those of the best and the worst completion of a pair or ranking."""
    if len(row["completions"]) == 1:
        finished = 0 not in row["cut_off"]
        yield {**row, "completion": row["completions"][0], "desirable": row["label"] > 0, "finished": finished}
        return
    weight = row["weight"] * (2 * row["label"] - 1)
    if weight > 0:
        last = len(row["completions"]) - 1
        for place, name in ((0, "chosen"), (last, "rejected")):
            label = {"completion": row["completions"][place], "desirable": place == 0, "weight": weight}
            yield {**row, **label, "id": f"{row['id']}/{name}", "finished": place not in row["cut_off"]}


def labels_of_pair(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the labels of a pair's two completions."""
    for name in ("chosen", "rejected"):
        label = {"completion": row[name], "desirable": name == "chosen", "id": f"{row['id']}/{name}"}
        yield {**row, **label, "weight": 1.0, "finished": True, "harms": []}
