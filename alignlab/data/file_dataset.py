"""A data set from files: read, clean, deduplicate, mask, validate, split, mix and augment its rows, once per cache.

The format of each file is detected by the fields of its rows (`row_formats`), or named by `dataset.format`. Rows are
streamed through the steps into one Arrow file per split. Beside the Arrow files, rejects.jsonl lists the broken rows
and report.json holds the ledger of the steps. A view (`alignlab.data.views`) selects what a method needs.
"""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.config import extensions
from alignlab.config.dataset import FORMATS, FileData
from alignlab.data import (
    augment,
    clean,
    deduplicate,
    file_rows,
    hh_rlhf,
    json_array,
    jsonl,
    ledger,
    media,
    message_trees,
    mixture,
    pii,
    preference_formats,
    prompts,
    qualifiers,
    readers,
    rejects,
    row_chunks,
    row_fields,
    row_formats,
    select_rows,
    sources,
    splits,
    transcripts,
    turns,
    unread_fields,
    validate,
    verdicts,
)
from alignlab.data.arrow_writers import arrow_writers
from alignlab.data.ledger import check_balance
from alignlab.data.prepared import Prepared, describe_unread, splits_in
from alignlab.data.prepared_columns import prepared_features
from alignlab.data.rejects import RejectLog, write_rejects
from alignlab.data.row_chunks import Totals
from alignlab.data.sources import Source, sources_by_split
from alignlab.data.splits import SPLITS, SplitKeys
from alignlab.data.views import gives, load_view, view_names
from alignlab.errors import mistake
from alignlab.runtime.cache import building, is_intact, state_of
from alignlab.runtime.files import cache_root, digest, digest_files, write_text
from alignlab.runtime.run_files import REJECTS
from alignlab.runtime.source_hash import hash_modules, hash_with_imports

if TYPE_CHECKING:
    from datasets import Dataset

# The files are hashed by content; which turns SFT learns, and whether pairs give labels, change no row.
NOT_HASHED = {"path", "test_path", "learn", "label_pairs"}
MODULES = (
    augment, clean, deduplicate, file_rows, hh_rlhf, json_array, jsonl, ledger, media, message_trees, mixture, pii,
    preference_formats, prompts, qualifiers, readers, rejects, row_chunks, row_fields, row_formats, select_rows,
    sources, splits, transcripts, turns, unread_fields, validate, verdicts,
)  # fmt: skip


class Report(NamedTuple):
    """What each step did; rows by split and form; formats by file; rejects by reason; rows by unread field."""

    steps: dict[str, dict[str, Any]]
    rows: dict[str, int]
    forms: dict[str, int]
    files: dict[str, str]
    rejects: dict[str, int]
    unread: dict[str, int]


def content(dataset: FileData) -> str:
    """Hash the files' bytes and names, the settings, and the code that prepares them."""
    hashes = [[(source.label, hash_source(source)) for source in side] for side in sources_by_split(dataset).values()]
    settings = dataset.model_dump(mode="json", exclude=NOT_HASHED)
    code = hash_modules(__name__, *(module.__name__ for module in MODULES))
    if dataset.format in {None, *FORMATS}:
        return digest(hashes, settings, code)
    return digest(hashes, settings, code, hash_with_imports(extensions.name_of("formats", str(dataset.format))))


def hash_source(source: Source) -> str:
    """Hash the contents of a source; they are read once while its files have the same sizes and times of change."""
    return _hash_contents(source.path, tuple(map(state_of, source.files())))


@lru_cache(maxsize=256)
def _hash_contents(path: Path, _: tuple[tuple[int, int] | None, ...]) -> str:
    return digest_files([path])


def view(dataset: FileData, name: str, split: str) -> "Dataset":
    """Return one view of one split, with the columns that `alignlab.data.view` lists."""
    from datasets import Dataset

    folder = prepare(dataset)
    forms = report_in(folder).forms
    if not gives(forms, name):
        now = f"take a method that needs one of: {', '.join(v for v in view_names() if gives(forms, v)) or 'nothing'}"
        raise mistake("dataset", f"its rows hold no {name}", now)
    return load_view(name).of_rows(Dataset.from_file(str(folder / f"{split}.arrow")), dataset)


def read_report(dataset: FileData) -> Report:
    """Return the report of a prepared data set; prepare it first if needed."""
    return report_in(prepare(dataset))


def report_in(folder: Path) -> Report:
    """Return the report in the folder of a prepared data set."""
    return Report(**json.loads((folder / "report.json").read_text(encoding="utf-8")))


def plan_lines(dataset: FileData) -> Iterator[str]:
    """Yield what a plan says of the rows: numbers by split, formats, faults that were counted, unread fields."""
    report = read_report(dataset)
    rows = ", ".join(f"{count:,} {split}" for split, count in report.rows.items())
    yield f"rows: {rows}; read as {', '.join(dict.fromkeys(report.files.values()))}"
    yield from (f"{reason}: {count:,} rows" for reason, count in report.steps["read"]["notes"].items())
    yield from describe_unread(report.unread)


def prepare(dataset: FileData) -> Path:
    """Prepare the data set if it is not cached; return its folder."""
    final = cache_root() / "data" / content(dataset)
    if is_intact(final):
        return final
    with building(final) as folder:
        if folder is not None:
            write_splits(dataset, folder)
    return final


def prepared(dataset: FileData) -> Prepared:
    """Return the prepared data set for its card."""
    folder = prepare(dataset)
    report = report_in(folder)
    return Prepared(splits_in(folder), report.steps, report.files, folder / REJECTS, report.unread)


def write_splits(dataset: FileData, folder: Path) -> None:
    """Run every row through the steps and write the splits, rejects.jsonl and report.json.

    The rows are read again if their keys leave a split empty that the rows are enough for.
    """
    keys: SplitKeys | None = split_keys(dataset)
    while keys:
        report, logs = write_rows(dataset, folder, keys)
        keys = keys.improved()
    rejected = write_rejects(logs.values(), folder)
    write_text(folder / "report.json", json.dumps(report._replace(rejects=rejected)._asdict(), indent=1))


def write_rows(dataset: FileData, folder: Path, keys: SplitKeys) -> tuple[Report, dict[str, RejectLog]]:
    """Write one Arrow file per split; return the report, and the logs of the rejects."""
    totals = Totals(dataset)
    with (
        arrow_writers(folder, prepared_features()) as writers,
        row_chunks.outcomes(dataset, keys, totals) as outcomes,
    ):
        for outcome in outcomes:
            totals.add(outcome)
            keys.counts.update(outcome.keys)
            for split, table in outcome.tables.items():
                writers[split].write_table(table)
    for log in totals.logs.values():
        log.check()
    check_balance(totals.ledger)
    steps = {name: tally.as_dict() for name, tally in totals.ledger.items()}
    rows = {split: totals.rows[split] for split in SPLITS}
    unread = dict(totals.unread.most_common())
    return Report(steps, rows, dict(totals.forms), totals.format_names(), {}, unread), totals.logs


def split_keys(dataset: FileData) -> SplitKeys:
    """Return the keys that split the training files; a split that has files of its own gets no share of them."""
    by_split = sources_by_split(dataset)
    test = 0.0 if by_split["test"] else dataset.test
    return SplitKeys(0.0 if by_split["validation"] else dataset.validation, test)
