"""A data set from files: read, clean, deduplicate, mask, validate, split, mix and augment its rows, once per cache.

The format of each file is detected by the fields of its rows (`row_formats`), or named by `dataset.format`. Rows are
streamed through the steps into one Arrow file per split. Beside the Arrow files, rejects.jsonl lists the broken rows
and report.json holds the ledger of the steps. `views` selects from the Arrow files what a method needs.
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
    mixture,
    pii,
    readers,
    rejects,
    row_formats,
    splits,
    validate,
    views,
)
from alignlab.data.arrow_writers import arrow_writers
from alignlab.data.file_rows import read_rows
from alignlab.data.ledger import Ledger, Row, Step, Tally, check_balance, run_step
from alignlab.data.prepared import Prepared, splits_in
from alignlab.data.readers import Source, list_sources
from alignlab.data.rejects import RejectLog, write_rejects
from alignlab.data.splits import SPLITS, Split
from alignlab.errors import mistake
from alignlab.pocket import dialogues
from alignlab.pocket.world import data_folder
from alignlab.runtime.files import building, cache_root, digest, digest_files, write_text
from alignlab.runtime.run_files import REJECTS
from alignlab.runtime.source_hash import hash_modules, hash_with_imports

if TYPE_CHECKING:
    from datasets import Dataset

FORMS = ("prompts", "demonstrations", "pairs", "rankings", "text")
PATH_SETTINGS = {"path", "test_path"}  # the content of the files is hashed, not their paths
MODULES = (
    augment, clean, deduplicate, file_rows, hh_rlhf, json_array, jsonl, ledger, mixture, pii, readers, rejects,
    row_formats, splits, validate,
)  # fmt: skip


class Report(NamedTuple):
    """What each step did, the number of rows by split and by form, the format of each file, and rejects by reason."""

    steps: dict[str, dict[str, Any]]
    rows: dict[str, int]
    forms: dict[str, int]
    files: dict[str, str]
    rejects: dict[str, int]


def content(dataset: FileData) -> str:
    """Hash the files' bytes and names, the settings, and the code that prepares them."""
    sources = [
        [(source.label, digest_files([source.path])) for source in side] for side in train_and_test_sources(dataset)
    ]
    settings = dataset.model_dump(mode="json", exclude=PATH_SETTINGS)
    code = hash_modules(__name__, *(module.__name__ for module in MODULES))
    if dataset.format in {None, *FORMATS}:
        return digest(sources, settings, code)
    return digest(sources, settings, code, hash_with_imports(extensions.name_of("formats", str(dataset.format))))


def view(dataset: FileData, name: str, split: str) -> "Dataset":
    """Return one view of one split, with the columns that `alignlab.data.view` lists."""
    from datasets import Dataset

    folder = prepare(dataset)
    available = views.available_views(read_report(dataset).forms)
    if name not in available:
        now = f"take a method that needs one of: {', '.join(available) or 'nothing'}"
        raise mistake("dataset", f"its rows hold no {name}", now)
    return views.VIEWS[name](Dataset.from_file(str(folder / f"{split}.arrow")))


def read_report(dataset: FileData) -> Report:
    """Return the report of a prepared data set; prepare it first if needed."""
    return Report(**json.loads((prepare(dataset) / "report.json").read_text(encoding="utf-8")))


def prepare(dataset: FileData) -> Path:
    """Prepare the data set if it is not cached; return its folder."""
    final = cache_root() / "data" / content(dataset)
    if final.exists():
        return final
    with building(final) as folder:
        if folder is not None:
            write_splits(dataset, folder)
    return final


def prepared(dataset: FileData) -> Prepared:
    """Return the prepared data set for its card."""
    report, folder = read_report(dataset), prepare(dataset)
    return Prepared(splits_in(folder), report.steps, report.files, folder / REJECTS)


def write_splits(dataset: FileData, folder: Path) -> None:
    """Run every row through the steps and write the splits, rejects.jsonl and report.json."""
    from datasets import Features, List, Value

    text, number = Value("string"), Value("float64")
    turns = List({"role": text, "content": text})
    features = Features(
        id=text, kind=text, made_by=text, prompt=turns, completions=List(text), label=number, weight=number
    )
    logs = {name: RejectLog(dataset.on_broken, dataset.max_rejects) for name in ("train", "test")}
    ledger: Ledger = {}
    formats: dict[str, str] = {}
    counts: Counter[str] = Counter()
    forms: Counter[str] = Counter()
    with arrow_writers(folder, features) as write:
        for row in prepared_rows(dataset, logs, ledger, formats):
            write(row.split, {name: getattr(row, name) for name in features})
            counts[row.split] += 1
            forms[row_form(row)] += 1
    for log in logs.values():
        log.check()
    check_balance(ledger)
    steps = {name: tally.as_dict() for name, tally in ledger.items()}
    rows = {split: counts[split] for split in SPLITS}
    report = Report(steps, rows, dict(forms), formats, write_rejects(logs.values(), folder))
    write_text(folder / "report.json", json.dumps(report._asdict(), indent=1))


def prepared_rows(
    dataset: FileData, logs: dict[str, RejectLog], ledger: Ledger, formats: dict[str, str]
) -> Iterable[Row]:
    """Return the rows of all files after all steps; fill the logs, the ledger and the formats while they are read."""
    tally = ledger["read"] = Tally()
    train, test = train_and_test_sources(dataset)

    def read(sources: list[Source], split: Split) -> Iterator[Row]:
        for source in sources:
            yield from read_rows(source, split, dataset, logs[split], tally, formats)

    rows: Iterable[Row] = chain(read(test, "test"), read(train, "train"))
    for name, step in enabled_steps(dataset, logs):
        rows = run_step(rows, name, step, ledger)
    return rows


def enabled_steps(dataset: FileData, logs: dict[str, RejectLog]) -> Iterator[tuple[str, Step]]:
    """Yield the names and the functions of the steps that the settings turn on, in order."""
    steps = {
        "clean": clean.clean(dataset.clean),
        "deduplicate": deduplicate.deduplicate(dataset.deduplicate),
        "mask": pii.mask(dataset.mask),
        "validate": validate.validate(logs),
        "split": assign_splits(dataset),
        "mix": mixture.mix(train_paths(dataset), dataset.weights),
        "augment": augment.augment(dataset.augment),
    }
    yield from ((name, step) for name, step in steps.items() if step is not None)


def assign_splits(dataset: FileData) -> Step:
    """Return the step that splits training files by opening; rows of test files stay test rows."""
    test = 0.0 if dataset.test_path else dataset.test

    def step(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
        for row in rows:
            if row.split == "train":
                opening = splits.opening(row.prompt) or row.completions[0]
                row = row._replace(split=splits.split_of(opening, dataset.validation, test))
            tally.notes[row.split] += 1
            yield row

    return step


def row_form(row: Row) -> str:
    """Return the form of a row, by its prompt and the number of its completions."""
    return FORMS[min(len(row.completions), 3)] if row.prompt else "text"


def train_and_test_sources(dataset: FileData) -> tuple[list[Source], list[Source]]:
    """Return the sources of the training rows and of the test rows; raise a mistake if they share a file."""
    root = world_folder(dataset)
    train = list_sources(train_paths(dataset), dataset.train_split)
    test = list_sources([root / path for path in dataset.test_path or ()], dataset.test_split)
    if both := {source.path.resolve() for source in train} & {source.path.resolve() for source in test}:
        raise mistake("dataset.test_path", f"{min(both)} is among the training files too", "give each its own files")
    return train, test


def train_paths(dataset: FileData) -> list[Path]:
    """Return the training paths, relative to the folder of the world if the config names one."""
    root = world_folder(dataset)
    return [root / path for path in dataset.path]


def world_folder(dataset: FileData) -> Path:
    """Return the folder that paths are relative to: that of the world, or the current folder."""
    if dialogue_world := dataset.dialogue_world:
        return dialogues.folder(dialogue_world)
    return data_folder(dataset.pocket_world) if dataset.pocket_world else Path()
