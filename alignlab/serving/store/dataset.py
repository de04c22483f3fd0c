"""The data set `feedback`: a snapshot of the store, as pairs, demonstrations and labels.

A snapshot is a folder of the cache, named after the hash of the feedback and of the settings: the exported rows, one
Arrow file per split, report.json with what was set aside, and a card. A command and the processes that it starts read
one snapshot, though the server writes on; `dataset.snapshot` names one again later.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.config.dataset import FeedbackData
from alignlab.data.arrow_writers import arrow_writers
from alignlab.data.prepared import Prepared, splits_in, step_record
from alignlab.data.prepared_columns import prepared_features
from alignlab.data.splits import SPLITS, Split, SplitKeys
from alignlab.data.views import gives, load_view, view_names
from alignlab.errors import failure, mistake
from alignlab.pocket.parse import parse_prompt
from alignlab.preferences import consensus, feedback
from alignlab.preferences.feedback import Item, Judgement
from alignlab.runtime.cache import building, is_intact
from alignlab.runtime.files import cache_root, digest, write_text
from alignlab.runtime.run_files import CARD
from alignlab.runtime.source_hash import hash_modules

if TYPE_CHECKING:
    from datasets import Dataset

FORMS = ("preference", "unpaired_preference")  # a demonstration is a correction or a good answer, which these hold
NOT_HASHED = {"store", "store_env", "snapshot", "label_pairs"}
PINNED = "ALIGNLAB_SNAPSHOT_"  # the variable that holds the snapshot of a command, for the processes that it starts
DEMONSTRATIONS = ("correction/", "verdict/")  # the ids of rows that show a good answer; a better one may still be bad


class Report(NamedTuple):
    """What a snapshot holds: feedback read and set aside by reason, users, and rows by split and by form."""

    feedback: int
    users: int
    aside: dict[str, int]
    rows: dict[str, int]
    forms: dict[str, int]
    sources: dict[str, int]


def content(dataset: FeedbackData) -> str:
    """Return the name of the snapshot, a hash of the feedback, of the settings and of the code that prepares it."""
    return snapshot(dataset).name


def view(dataset: FeedbackData, name: str, split: str) -> "Dataset":
    """Return one view of one split, with the columns that `alignlab.data.view` lists."""
    from datasets import Dataset

    forms = read_report(dataset).forms
    if not gives(forms, name):
        known = ", ".join(each for each in view_names() if gives(forms, each))
        raise mistake(
            "dataset", f"the feedback holds no {name}", f"take a method that needs one of: {known or 'nothing'}"
        )
    rows = Dataset.from_file(str(snapshot(dataset) / f"{split}.arrow"))
    if name in ("demonstrations", "text"):
        rows = rows.select([place for place, row_id in enumerate(rows["id"]) if row_id.startswith(DEMONSTRATIONS)])
        rows = rows.remove_columns("weight").add_column("weight", [1.0] * len(rows))
    return load_view(name).of_rows(rows, dataset)


def prepared(dataset: FeedbackData) -> Prepared:
    """Return the snapshot for its card."""
    report, folder = read_report(dataset), snapshot(dataset)
    read = step_record(sum(report.rows.values()), report.aside, {})
    return Prepared(splits_in(folder), {"read": read}, {dataset.store: "feedback"}, None)


def plan_lines(dataset: FeedbackData) -> Iterator[str]:
    """Yield what a plan says of the rows."""
    report = read_report(dataset)
    rows = ", ".join(f"{count:,} {split}" for split, count in report.rows.items())
    yield f"feedback: {report.feedback:,} records of {report.users:,} users; rows: {rows}"
    yield from (f"set aside: {count:,} {reason}" for reason, count in report.aside.items())
    yield f"snapshot {snapshot(dataset).name}; dataset.snapshot={snapshot(dataset).name} reads it again"


def read_report(dataset: FeedbackData) -> Report:
    """Return the report of a snapshot."""
    return Report(**json.loads((snapshot(dataset) / "report.json").read_text(encoding="utf-8")))


def fetch(dataset: FeedbackData) -> None:
    """Take this command's snapshot, unless there is one; `launch.run` restores the environment after the command."""
    if not dataset.snapshot and variable_of(dataset) not in os.environ:
        os.environ[variable_of(dataset)] = take(dataset, cache_root() / "feedback").name


def variable_of(dataset: FeedbackData) -> str:
    """Return the name of the environment variable that holds a command's snapshot."""
    return PINNED + digest(dataset.model_dump(mode="json")).upper()


def snapshot(dataset: FeedbackData) -> Path:
    """Return the folder of this command's snapshot; take one if there is none yet."""
    fetch(dataset)
    folder = cache_root() / "feedback" / (dataset.snapshot or os.environ[variable_of(dataset)])
    if not is_intact(folder):
        now = "leave dataset.snapshot out, or copy the folder to this cache"
        raise failure("dataset.snapshot", f"{folder} is not there", now)
    return folder


def take(dataset: FeedbackData, folder: Path) -> Path:
    """Write a snapshot of the store, unless there is one of the same feedback; return its folder."""
    rows = read_store(dataset)
    settings = dataset.model_dump(mode="json", exclude=NOT_HASHED)
    final = folder / digest(rows, settings, hash_modules(__name__, feedback.__name__, consensus.__name__))
    with building(final) as partial:
        if partial is not None:
            write_snapshot(dataset, rows, partial)
    return final


def read_store(dataset: FeedbackData) -> list[dict[str, Any]]:
    """Return the exported rows of the store, the oldest first."""
    from alignlab.serving.store.database import connect
    from alignlab.serving.store.export import rows

    place = os.environ[dataset.store_env] if dataset.store_env else dataset.store
    if "://" not in place and not Path(place).exists():
        now = "give the file of task.store, or a database URL"
        raise failure("dataset.store", f"{place} is not there", now)
    engine = connect(place)
    try:
        with engine.connect() as connection:
            exported = [row for form in FORMS for row in rows(connection, form)]
    finally:
        engine.dispose()
    if not exported:
        raise failure("dataset.store", f"{place} holds no feedback that can be learned from", "collect some first")
    return exported


def write_snapshot(dataset: FeedbackData, exported: list[dict[str, Any]], folder: Path) -> None:
    """Write the exported rows, one Arrow file per split, report.json and the card."""
    write_text(folder / "feedback.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in exported))
    aside: Counter[str] = Counter()
    judgements = feedback.judgements_of(exported)
    users = {judgement.user for judgement in judgements}
    judgements = feedback.drop_repeats(judgements, aside)
    if dataset.outliers:
        judgements = feedback.drop_users(judgements, feedback.outliers(judgements), aside)
    judgements = feedback.cap_users(judgements, dataset.max_share, aside)
    rows, counts, forms, sources = [], Counter[str](), Counter[str](), Counter[str]()
    for split, items in split_items(dataset, judgements, aside).items():
        labels = feedback.agree(items, dataset.consensus)
        for name, item in items.items():
            if labels[name] == 0.5:
                aside["on which users are of two minds"] += len(item.judgements)
                continue
            row = feedback.row_of(name, item, labels[name], kind_of(dataset, item))
            rows.append((split, row))
            counts[split] += 1
            sources[row["id"].partition("/")[0]] += 1
            forms[form_of(row)] += 1
    with arrow_writers(folder, prepared_features()) as writers:
        for split, row in rows:
            writers[split].write(row)
    by_split = {split: counts[split] for split in SPLITS}
    report = Report(len(exported), len(users), dict(+aside), by_split, dict(forms), dict(sources))
    write_text(folder / "report.json", json.dumps(report._asdict(), indent=1))
    write_text(folder / CARD, "\n".join(card(dataset, report)))


def kind_of(dataset: FeedbackData, item: Item) -> str:
    """Return the kind of an item's prompt, which only the prompts of a pocket world have."""
    kind = parse_prompt(item.judgements[0].prompt[-1]["content"]) if dataset.world else None
    return kind[0] if kind else ""


def form_of(row: dict[str, Any]) -> str:
    """Return the form of a prepared row (`alignlab.data.row_chunks.FORMS`)."""
    return ("good_answers" if row["label"] else "bad_answers") if row["rated"] else "pairs"


def split_items(dataset: FeedbackData, judgements: list[Judgement], aside: Counter[str]) -> dict[str, dict[str, Item]]:
    """Return the items of each split: held out are some prompts, and on all prompts the users that are held out."""
    held_out = feedback.held_out_users({judgement.user for judgement in judgements}, dataset.held_out_users)
    keys: SplitKeys | None = SplitKeys(dataset.validation, dataset.test)
    splits: list[Split] = []
    while keys:
        splits = [keys.split(judgement.prompt, "") for judgement in judgements]  # type: ignore[arg-type]
        keys = keys.improved()
    by_split: dict[str, list[Judgement]] = {split: [] for split in SPLITS}
    for split, judgement in zip(splits, judgements, strict=True):
        if judgement.user in held_out and split != "test":
            aside["of a held-out user, on prompts that are trained on"] += 1
        else:
            by_split[split].append(judgement)
    return {split: feedback.items_of(each) for split, each in by_split.items()}


def card(dataset: FeedbackData, report: Report) -> Iterator[str]:
    """Yield the card of a snapshot in Markdown."""
    yield "# Feedback of people on answers, as training data"
    yield f"\n{report.feedback:,} records of {report.users:,} users; withdrawn feedback is left out."
    yield "\n| what | rows |\n|---|---|"
    yield from (f"| {name} | {count:,} |" for name, count in {**report.rows, **report.sources}.items())
    yield "\nSet aside: " + (", ".join(f"{count:,} {why}" for why, count in report.aside.items()) or "nothing") + "."
    yield f"\nOne label from several people: {dataset.consensus}. A user has at most {dataset.max_share:.0%} of all."
    yield "Each row of feedback.jsonl has `feedback_id` and `annotator`, a pseudonym, for a withdrawal later.\n"
