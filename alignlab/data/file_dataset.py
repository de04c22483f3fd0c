"""Rows from any files: read → clean → deduplicate → mask → validate → split → mix → augment, once, into the cache.

The shape of each file's rows is recognised by their fields (see `shapes`), or named by `dataset.format`. Rows stream
through the steps into one Arrow file a split; beside them lie rejects.jsonl, a broken row a line, and report.json:
the ledger of what every step did. `views` cuts from the Arrow files what a method asks for.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.config.dataset import DialogueData, FileData
from alignlab.data import (
    augment,
    clean,
    deduplicate,
    hh_rlhf,
    jsonl,
    ledger,
    mixture,
    pii,
    readers,
    row_formats,
    splits,
    validate,
    views,
)
from alignlab.data.jsonl import Account, Record, Reject
from alignlab.data.ledger import Ledger, Row, Split, Step, Tally, check, through
from alignlab.data.readers import Source
from alignlab.errors import failure, mistake
from alignlab.pocket import dialogues
from alignlab.pocket.world import data_folder
from alignlab.runtime.files import building, cache_root, digest, digest_files, write_text
from alignlab.runtime.source_hash import hash_modules

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FORMS = ("prompts", "demonstrations", "pairs", "rankings", "text")
FIRST_ROWS = 50  # rows by which a file's shape is recognised
TOGETHER = 100  # rows that are written at once
PLACES = {"path", "test_path"}  # settings that name files: their content counts instead
MODULES = (augment, clean, deduplicate, hh_rlhf, mixture, pii, readers, jsonl, ledger, row_formats, splits, validate)


class Report(NamedTuple):
    """How a data set was made: the ledger, rows a split, rows by form, files with their shapes, and rejects."""

    steps: dict[str, dict[str, Any]]
    rows: dict[str, int]
    forms: dict[str, int]
    files: dict[str, str]
    rejects: dict[str, int]


def files(dataset: FileData) -> tuple[list[Source], list[Source]]:
    """The sources to train on and to measure on."""
    root = world_folder(dataset)
    train = readers.sources(train_paths(dataset), dataset.train_split)
    test = readers.sources([root / path for path in dataset.test_path or ()], dataset.test_split)
    if both := {source.path.resolve() for source in train} & {source.path.resolve() for source in test}:
        raise mistake("dataset.test_path", f"{min(both)} is among the training files too", "give each its own files")
    return train, test


def train_paths(dataset: FileData) -> list[Path]:
    """The paths to train on, under the folder of the world that the config names."""
    root = world_folder(dataset)
    return [root / path for path in dataset.path]


def world_folder(dataset: FileData) -> Path:
    """The folder that paths are in: that of the world that the rows are drawn from, or the current one."""
    match dataset.world:
        case None:
            return Path()
        case DialogueData():
            return dialogues.folder(dataset.world)
        case _:
            return data_folder(dataset.world)


def content(dataset: FileData) -> str:
    """Hash the data by content: the files' bytes and names, what is done with them, and how."""
    sources = [[(source.label, digest_files([source.path])) for source in side] for side in files(dataset)]
    settings = dataset.model_dump(mode="json", exclude=PLACES)
    code = hash_modules(__name__, *(module.__name__ for module in MODULES))
    return digest(sources, settings, code)


def report(dataset: FileData) -> Report:
    """Tell how the data set was made."""
    return Report(**json.loads((prepare(dataset) / "report.json").read_text(encoding="utf-8")))


def prepare(dataset: FileData) -> Path:
    """Make the data set where it is not in the cache yet; give its folder."""
    final = cache_root() / "data" / content(dataset)
    if final.exists():
        return final
    with building(final) as folder:
        if folder is not None:
            write(dataset, folder)
    return final


def write(dataset: FileData, folder: Path) -> None:
    """Send every row through the steps and write what comes out."""
    accounts = {name: Account(dataset.on_broken, dataset.max_rejects) for name in ("train", "test")}
    train, test = files(dataset)
    ledger: Ledger = {"read": Tally()}
    shapes_of: dict[str, str] = {}

    def read(sources: Sequence[Source], split: Split) -> Iterator[Row]:
        for source in sources:
            limit = dataset.max_rows if split == "train" else None
            shape, found = recognised(source, dataset.format)
            shapes_of[source.label] = shape.name
            yield from rows_of(source, shape, found, split, accounts[split], ledger["read"], limit, dataset.mask.truth)

    stream: Iterable[Row] = chain(read(test, "test"), read(train, "train"))
    for name, step in steps(dataset, accounts):
        stream = through(stream, name, step, ledger)
    count: Counter[str] = Counter()
    forms: Counter[str] = Counter()
    with tables(folder) as put:
        for row in stream:
            put(row)
            count[row.split] += 1
            forms[form(row)] += 1
    for account in accounts.values():
        account.close()
    check(ledger)
    tell(accounts, Report(tallies(ledger), {s: count[s] for s in SPLITS}, dict(forms), shapes_of, {}), folder)


def steps(dataset: FileData, accounts: dict[str, Account]) -> Iterator[tuple[str, Step]]:
    """The steps that the settings turn on, in their order."""
    optional = {
        "clean": clean.clean(dataset.clean),
        "deduplicate": deduplicate.deduplicate(dataset.deduplicate),
        "mask": pii.mask(dataset.mask),
        "validate": validate.validate(accounts),
        "split": splitting(dataset),
        "mix": mixture.mix(train_paths(dataset), dataset.weights),
        "augment": augment.augment(dataset.augment),
    }
    yield from ((name, step) for name, step in optional.items() if step is not None)


def splitting(dataset: FileData) -> Step:
    """The step that sets rows aside by their first question; test files stay what they are."""
    test = 0.0 if dataset.test_path else dataset.test

    def step(found: Iterable[Row], tally: Tally) -> Iterator[Row]:
        for row in found:
            if row.split == "train":
                asked = splits.opening(row.prompt) or row.completions[0]
                row = row._replace(split=splits.split_of(asked, dataset.validation, test))
            tally.notes[row.split] += 1
            yield row

    return step


def recognised(source: Source, named: str | None) -> tuple[row_formats.Shape, Iterator[Record | Reject]]:
    """The shape of a file's rows, named or recognised, and the rows from the first one on."""
    found = readers.read(source.path)
    first = list(islice(found, FIRST_ROWS))
    fields = [row.fields for row in first if isinstance(row, Record)]
    shape = row_formats.SHAPES[named] if named else row_formats.recognise(fields)
    if shape is None and fields:
        names = ", ".join(str(name)[:30] for name in list(fields[0])[:8]) or "none"
        known = "; ".join(map(str, row_formats.SHAPES.values()))
        raise failure(str(source.path), f"rows with the fields {names} have no known shape", f"known are {known}")
    return shape or row_formats.SHAPES["prompt_completion"], chain(first, found)


def rows_of(
    source: Source,
    shape: row_formats.Shape,
    found: Iterator[Record | Reject],
    split: Split,
    account: Account,
    tally: Tally,
    limit: int | None,
    truth: str | None,
) -> Iterator[Row]:
    """Turn a file's records into rows, keeping account of those that are broken."""
    for record in found:
        if limit is not None and account.kept >= limit:
            return
        tally.rows_in += 1
        drafts = drafted(shape, record)
        if isinstance(drafts, Reject):
            account.reject(drafts)
            tally.dropped[": ".join(filter(None, (drafts.field, drafts.reason)))] += 1
            continue
        assert isinstance(record, Record)
        tally.added["one row an instance"] += len(drafts) - 1
        for number, draft in enumerate(drafts):
            account.kept += 1
            tally.rows_out += 1
            tally.notes.update(draft.notes)
            name = f"{source.label}:{record.line}" + (f"#{number + 1}" if number else "")
            known = str(record.fields.get(truth) or "") if truth else ""
            kind = record.fields.get("kind")
            label, weight = judged(record.fields) if len(draft.completions) == 2 else (1.0, 1.0)
            tally.notes["soft label"] += label != 1
            yield Row(
                name, draft.prompt, draft.completions, split, kind if isinstance(kind, str) else "",
                "", source.path, record.line, known, label, weight,
            )  # fmt: skip


def judged(fields: Mapping[str, Any]) -> tuple[float, float]:
    """The label and the weight of a pair, where its row has some: a probability, and a number above 0."""
    label, weight = fields.get("label"), fields.get("weight")
    return (
        label if isinstance(label, float) and 0 <= label <= 1 else 1.0,
        weight if isinstance(weight, float) and 0 < weight < inf else 1.0,
    )


def drafted(shape: row_formats.Shape, record: Record | Reject) -> list[row_formats.Draft] | Reject:
    """Read a record as its file's shape, or say what is wrong with it."""
    if isinstance(record, Reject):
        return record
    try:
        for names in shape.needs:
            if not any(name in record.fields for name in names):
                raise row_formats.Broken(names[0], "the field is missing", f"{' or '.join(names)}, for {shape.name}")
        return shape.read(record.fields)
    except row_formats.Broken as error:
        return Reject(record.file, record.line, error.field, error.reason, error.expected)


def form(row: Row) -> str:
    """What a row is good for, by its prompt and the number of its completions."""
    return FORMS[min(len(row.completions), 3)] if row.prompt else "text"


def tallies(ledger: Ledger) -> dict[str, dict[str, Any]]:
    """The ledger as JSON."""
    return {name: tally.as_dict() for name, tally in ledger.items()}


def tell(accounts: dict[str, Account], found: Report, folder: Path) -> None:
    """Write rejects.jsonl and report.json."""
    rejects = [reject for account in accounts.values() for reject in account.rejects]
    write_text(folder / "rejects.jsonl", "".join(json.dumps(r._asdict(), default=str) + "\n" for r in rejects))
    reasons = Counter(": ".join(filter(None, (reject.field, reject.reason))) for reject in rejects)
    write_text(folder / "report.json", json.dumps(found._replace(rejects=dict(reasons))._asdict(), indent=1))


@contextmanager
def tables(folder: Path) -> Iterator[Callable[[Row], None]]:
    """Open one Arrow file a split; yields the function that adds a row to its own."""
    from datasets import Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    text = Value("string")
    turns = List({"role": text, "content": text})
    number = Value("float64")
    features = Features(
        id=text, kind=text, made_by=text, prompt=turns, completions=List(text), label=number, weight=number
    )
    writers = {
        split: ArrowWriter(path=str(folder / f"{split}.arrow"), features=features, writer_batch_size=TOGETHER)
        for split in SPLITS
    }

    def put(row: Row) -> None:
        writers[row.split].write({name: getattr(row, name) for name in features})

    try:
        yield put
        for writer in writers.values():
            writer.finalize()
    finally:
        for writer in writers.values():
            with suppress(OSError):  # what cannot be written any more has been said already
                writer.close()


def view(dataset: FileData, name: str, split: str) -> "Dataset":
    """Give one view of one split, with the columns that `alignlab.data.view` names."""
    from datasets import Dataset

    folder = prepare(dataset)
    offered = views.offers(report(dataset).forms)
    if name not in offered:
        raise mistake(
            "dataset", f"its rows hold no {name}", f"take a method that needs one of: {', '.join(offered) or 'nothing'}"
        )
    return views.VIEWS[name](Dataset.from_file(str(folder / f"{split}.arrow")))
