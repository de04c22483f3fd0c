"""A data set from files: read, clean, deduplicate, mask, validate, split, mix and augment its rows, once per cache.

The format of each file is detected by the fields of its rows (`row_formats`), or named by `dataset.format`. Rows are
streamed through the steps into one Arrow file per split. Beside the Arrow files, rejects.jsonl lists the broken rows
and report.json holds the ledger of the steps. A view (`alignlab.data.views`) selects what a method needs.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
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
from alignlab.data.file_rows import Counts, read_rows
from alignlab.data.ledger import Ledger, Row, Step, Tally, check_balance, run_step
from alignlab.data.prepared import Prepared, describe_unread, splits_in
from alignlab.data.prepared_columns import prepared_features
from alignlab.data.rejects import RejectLog, write_rejects
from alignlab.data.sources import Source, list_sources
from alignlab.data.splits import SPLITS, Split, SplitKeys
from alignlab.data.views import gives, load_view, view_names
from alignlab.errors import failure, mistake
from alignlab.pocket import dialogues
from alignlab.pocket.world import data_folder
from alignlab.runtime.cache import building, is_intact
from alignlab.runtime.files import cache_root, digest, digest_files, write_text
from alignlab.runtime.run_files import REJECTS
from alignlab.runtime.source_hash import hash_modules, hash_with_imports

if TYPE_CHECKING:
    from datasets import Dataset

FORMS = ("prompts", "demonstrations", "pairs", "rankings", "text", "good_answers", "bad_answers")
# The files are hashed by content; which turns SFT learns, and whether pairs give labels, change no row.
NOT_HASHED = {"path", "test_path", "learn", "label_pairs"}
MODULES = (
    augment, clean, deduplicate, file_rows, hh_rlhf, json_array, jsonl, ledger, media, message_trees, mixture, pii,
    preference_formats, prompts, qualifiers, readers, rejects, row_fields, row_formats, select_rows, sources, splits,
    transcripts, turns, unread_fields, validate, verdicts,
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
    hashes = [
        [(source.label, digest_files([source.path])) for source in side] for side in sources_by_split(dataset).values()
    ]
    settings = dataset.model_dump(mode="json", exclude=NOT_HASHED)
    code = hash_modules(__name__, *(module.__name__ for module in MODULES))
    if dataset.format in {None, *FORMATS}:
        return digest(hashes, settings, code)
    return digest(hashes, settings, code, hash_with_imports(extensions.name_of("formats", str(dataset.format))))


def view(dataset: FileData, name: str, split: str) -> "Dataset":
    """Return one view of one split, with the columns that `alignlab.data.view` lists."""
    from datasets import Dataset

    folder = prepare(dataset)
    forms = read_report(dataset).forms
    if not gives(forms, name):
        now = f"take a method that needs one of: {', '.join(v for v in view_names() if gives(forms, v)) or 'nothing'}"
        raise mistake("dataset", f"its rows hold no {name}", now)
    return load_view(name).of_rows(Dataset.from_file(str(folder / f"{split}.arrow")), dataset)


def read_report(dataset: FileData) -> Report:
    """Return the report of a prepared data set; prepare it first if needed."""
    return Report(**json.loads((prepare(dataset) / "report.json").read_text(encoding="utf-8")))


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
    report, folder = read_report(dataset), prepare(dataset)
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
    features = prepared_features()
    logs = {name: RejectLog(dataset.on_broken, dataset.max_rejects) for name in ("train", "test")}
    ledger: Ledger = {}
    read = Counts(Tally(), {}, Counter())
    counts: Counter[str] = Counter()
    forms: Counter[str] = Counter()
    with arrow_writers(folder, features) as write:
        for row in prepared_rows(dataset, logs, ledger, read, keys):
            write(row.split, {name: getattr(row, name) for name in features})
            counts[row.split] += 1
            forms[row_form(row)] += 1
    for log in logs.values():
        log.check()
    check_balance(ledger)
    steps = {name: tally.as_dict() for name, tally in ledger.items()}
    rows = {split: counts[split] for split in SPLITS}
    return Report(steps, rows, dict(forms), read.formats, {}, dict(read.unread.most_common())), logs


def prepared_rows(
    dataset: FileData, logs: dict[str, RejectLog], ledger: Ledger, counts: Counts, keys: SplitKeys
) -> Iterable[Row]:
    """Return the rows of all files after all steps; fill the logs, the ledger and the counts while they are read."""
    ledger["read"] = counts.tally
    by_split = sources_by_split(dataset)

    def read(split: Split) -> Iterator[Row]:
        for source in by_split[split]:
            yield from read_rows(source, split, dataset, logs["test" if split == "test" else "train"], counts)

    rows: Iterable[Row] = chain(read("test"), read("train"), read("validation"))
    for name, step in enabled_steps(dataset, logs, keys):
        rows = run_step(rows, name, step, ledger)
    return rows


def enabled_steps(dataset: FileData, logs: dict[str, RejectLog], keys: SplitKeys) -> Iterator[tuple[str, Step]]:
    """Yield the names and the functions of the steps that the settings turn on, in order."""
    steps = {
        "clean": clean.clean(dataset.clean),
        "deduplicate": deduplicate.deduplicate(dataset.deduplicate),
        "mask": pii.mask(dataset.mask),
        "validate": validate.validate(logs),
        "select": select_rows.select(train_paths(dataset), dataset.select),
        "split": assign_splits(keys),
        "mix": mixture.mix(train_paths(dataset), dataset.weights),
        "augment": augment.augment(dataset.augment),
    }
    yield from ((name, step) for name, step in steps.items() if step is not None)


def split_keys(dataset: FileData) -> SplitKeys:
    """Return the keys that split the training files; a split that has files of its own gets no share of them."""
    by_split = sources_by_split(dataset)
    test = 0.0 if by_split["test"] else dataset.test
    return SplitKeys(0.0 if by_split["validation"] else dataset.validation, test)


def assign_splits(keys: SplitKeys) -> Step:
    """Return the step that splits training files by opening; rows of held-out files keep their split."""

    def step(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
        for row in rows:
            if row.split == "train":
                row = row._replace(split=keys.split(row.prompt, row.completions[0] if row.completions else ""))
            tally.notes[row.split] += 1
            yield row

    return step


def row_form(row: Row) -> str:
    """Return the form of a row, by its prompt, the number of its completions, and the label of a single one."""
    if row.prompt and row.rated:
        return "good_answers" if row.label else "bad_answers"
    return FORMS[min(len(row.completions), 3)] if row.prompt else "text"


def sources_by_split(dataset: FileData) -> dict[Split, list[Source]]:
    """Return the sources of each split: by the setting, and in folders by the names of the files.

    Raise a mistake if a file would be trained and measured on, and a failure if a folder holds held-out rows alone.
    """
    root = world_folder(dataset)
    read = list_sources(train_paths(dataset), dataset.train_split)
    named = list_sources([root / path for path in dataset.test_path or ()], dataset.test_split)
    by_split: dict[Split, list[Source]] = {"train": [], "validation": [], "test": []}
    for source in read:
        by_split[source.split or "train"].append(source)
    if dataset.test_path:
        by_split["test"] = [s for s in named if s.split == "test"] or [s for s in named if s.split != "train"] or named
    if not by_split["train"]:
        what = "the folder holds files of held-out splits alone"
        raise failure(str(dataset.path[0]), what, f"give the file itself to train on it: {read[0].path}")
    if both := {s.path.resolve() for s in by_split["train"]} & {s.path.resolve() for s in by_split["test"]}:
        raise mistake("dataset.test_path", f"{min(both)} is among the training files too", "give each its own files")
    return by_split


def train_paths(dataset: FileData) -> list[Path]:
    """Return the training paths, relative to the folder of the world if the config names one."""
    root = world_folder(dataset)
    return [root / path for path in dataset.path]


def world_folder(dataset: FileData) -> Path:
    """Return the folder that paths are relative to: that of the world, or the current folder."""
    if dialogue_world := dataset.dialogue_world:
        return dialogues.folder(dialogue_world)
    return data_folder(dataset.pocket_world) if dataset.pocket_world else Path()
