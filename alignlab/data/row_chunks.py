"""Pass the rows of files through the steps in chunks, which several processes share.

The main process reads the records of the files, finds repeated rows, and adds up what the chunks record. A worker
parses the records of a chunk, passes the rows through the steps, and builds the columns of those that are left. Chunks
are added up in the order of the files, so that the number of workers changes no row, no count and no error.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.config.dataset import FileData
from alignlab.data import augment, clean, deduplicate, mixture, pii, select_rows, validate
from alignlab.data.deduplicate import Find, Repeats
from alignlab.data.file_rows import Chunk, Counts, count_unread, detect_format, read_rows
from alignlab.data.jsonl import Record
from alignlab.data.ledger import Ledger, Row, Step, Tally, run_step
from alignlab.data.message_trees import Assembled
from alignlab.data.prepared_columns import prepared_features
from alignlab.data.rejects import RejectLog
from alignlab.data.sources import Source, sources_by_split, train_paths
from alignlab.data.splits import Split, SplitKeys
from alignlab.data.unread_fields import ignored_names
from alignlab.runtime.worker_pool import in_order, worker_count

if TYPE_CHECKING:
    from pyarrow import Table

CHUNK_ROWS = 500
CHUNK_CHARACTERS = 1 << 22  # a chunk of long rows ends sooner
FORMS = ("prompts", "demonstrations", "pairs", "rankings", "text", "good_answers", "bad_answers")


class Outcome(NamedTuple):
    """What a chunk gives: the rows of each split as a table, and what was recorded on the way.

    `row_format` is the format of most rows of the source, `formats` are those of the rows that were read. `forms`
    counts the rows by form, and `keys` by the hash of the key that splits them.
    """

    source: Source
    split: Split
    row_format: str
    tables: "dict[Split, Table]"
    log: RejectLog
    ledger: Ledger
    formats: list[str]
    unread: Counter[str]
    forms: Counter[str]
    keys: Counter[float]


class Totals:
    """What all chunks so far have recorded: rejects, the ledger, rows by split and form, formats, unread fields."""

    def __init__(self, dataset: FileData) -> None:
        self.logs = {name: RejectLog(dataset.on_broken, dataset.max_rejects) for name in ("train", "test")}
        self.ledger: Ledger = {}
        self.rows: Counter[str] = Counter()
        self.forms: Counter[str] = Counter()
        self.main_formats: dict[str, str] = {}  # by source
        self.formats: dict[str, list[str]] = {}
        self.unread: Counter[str] = Counter()

    def log_of(self, split: str) -> RejectLog:
        """Return the log of the training files or of the test files."""
        return self.logs["test" if split == "test" else "train"]

    def add(self, outcome: Outcome) -> None:
        """Add the outcome of the next chunk; raise a failure if its rejects end the run."""
        self.log_of(outcome.split).merge(outcome.log)
        for name, tally in outcome.ledger.items():
            self.ledger.setdefault(name, Tally()).add(tally)
        self.rows.update({split: len(table) for split, table in outcome.tables.items()})
        self.forms.update(outcome.forms)
        self.main_formats[outcome.source.label] = outcome.row_format
        formats = self.formats.setdefault(outcome.source.label, [])
        formats += [name for name in outcome.formats if name not in formats]
        count_unread(self.unread, outcome.unread)

    def format_names(self) -> dict[str, str]:
        """Return the names of the formats of each source; that of most rows where every row is a reject."""
        return {label: ", ".join(self.formats[label]) or main for label, main in self.main_formats.items()}


def outcomes(dataset: FileData, keys: SplitKeys, totals: Totals) -> AbstractContextManager[Iterator[Outcome]]:
    """Iterate over the outcomes of all chunks in the order of the files; add each to `totals` before the next."""
    sources = [source for side in sources_by_split(dataset).values() for source in side]
    limited = dataset.max_rows is not None  # each chunk then depends on the rows that were kept before it
    workers = 1 if limited else worker_count(sum(source.size() for source in sources))
    work = partial(prepare_chunk, dataset, keys)
    return in_order(work, chunks(dataset, totals), workers, answer=Repeats().find)


def chunks(dataset: FileData, totals: Totals) -> Iterator[Chunk]:
    """Yield the records of all files in chunks: those of the test, of the training and of the validation files."""
    by_split = sources_by_split(dataset)
    splits: tuple[Split, ...] = ("test", "train", "validation")
    for split in splits:
        limit = dataset.max_rows if split == "train" else None
        for source in by_split[split]:
            yield from chunks_of(source, split, dataset, limit, totals.log_of(split))


def chunks_of(source: Source, split: Split, dataset: FileData, limit: int | None, log: RejectLog) -> Iterator[Chunk]:
    """Yield the records of a source in chunks, until the log has `limit` rows.

    An error while reading is raised after the records before it were yielded. With a limit, a chunk is read while it is
    processed, and no further than the limit.
    """
    row_format, everything = detect_format(source, dataset.format, ignored_names(dataset.ignore))
    errors: list[Exception] = []
    records = until_error(everything, errors)
    while (limit is None or log.kept < limit) and (first := next(records, None)):
        chunk = Chunk(source, split, row_format.name, take(first, records), limit and limit - log.kept)
        yield chunk if limit else chunk._replace(records=list(chunk.records))
    if errors:
        raise errors[0]


def until_error(records: Iterator[Assembled], errors: list[Exception]) -> Iterator[Assembled]:
    """Yield records up to an error, which is appended to `errors`."""
    try:
        yield from records
    except Exception as error:
        errors.append(error)


def take(first: Assembled, records: Iterator[Assembled]) -> Iterator[Assembled]:
    """Yield a record and those behind it, as many as a chunk has."""
    characters = 0
    for count, assembled in enumerate(chain([first], records), 1):
        yield assembled
        if isinstance(assembled.record, Record):
            characters += count_characters(assembled.record.fields)
        if count == CHUNK_ROWS or characters > CHUNK_CHARACTERS:
            return


def count_characters(value: Any) -> int:
    """Return the characters of the texts inside a value, however deep it is nested; another value counts as one."""
    total, waiting = 0, [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        else:
            total += len(value) if isinstance(value, str) else 1
    return total


def prepare_chunk(dataset: FileData, keys: SplitKeys, chunk: Chunk, find: Find) -> Outcome:
    """Pass the records of a chunk through all steps."""
    from pyarrow import Table

    log, counts = RejectLog("reject", 1.0), Counts(Tally(), [], Counter(), [])
    ledger: Ledger = {}
    keys = keys.uncounted()
    features = prepared_features()
    forms: Counter[str] = Counter()
    by_split: dict[Split, list[Row]] = {}
    for row in chunk_rows(dataset, chunk, keys, find, log, counts, ledger):
        by_split.setdefault(row.split, []).append(row)
        forms[row_form(row)] += 1
    tables = {}
    for split, rows in by_split.items():
        columns = dict(zip(Row._fields, zip(*rows, strict=True), strict=True))
        tables[split] = Table.from_pydict({name: columns[name] for name in features}, schema=features.arrow_schema)
    order = {line: place for place, line in enumerate(counts.lines)} if log.rejects else {}
    log.rejects.sort(key=lambda reject: order[reject.line])  # the step `validate` has added its own behind the others
    return Outcome(
        chunk.source,
        chunk.split,
        chunk.row_format,
        tables,
        log,
        ledger,
        counts.formats,
        counts.unread,
        forms,
        keys.counts,
    )


def chunk_rows(
    dataset: FileData, chunk: Chunk, keys: SplitKeys, find: Find, log: RejectLog, counts: Counts, ledger: Ledger
) -> Iterable[Row]:
    """Return the rows of a chunk after all steps; fill the log, the counts and the ledger while they are read."""
    ledger["read"] = counts.tally
    rows: Iterable[Row] = read_rows(chunk, dataset, log, counts)
    for name, step in enabled_steps(dataset, log, keys, find):
        rows = run_step(rows, name, step, ledger)
    return rows


def enabled_steps(dataset: FileData, log: RejectLog, keys: SplitKeys, find: Find) -> Iterator[tuple[str, Step]]:
    """Yield the names and the functions of the steps that the settings turn on, in order."""
    steps = {
        "clean": clean.clean(dataset.clean),
        "deduplicate": deduplicate.deduplicate(dataset.deduplicate, find),
        "mask": pii.mask(dataset.mask),
        "validate": validate.validate(log),
        "select": select_rows.select(train_paths(dataset), dataset.select),
        "split": assign_splits(keys),
        "mix": mixture.mix(train_paths(dataset), dataset.weights),
        "augment": augment.augment(dataset.augment),
    }
    yield from ((name, step) for name, step in steps.items() if step is not None)


def assign_splits(keys: SplitKeys) -> Step:
    """Return the step that splits training files by opening; rows of held-out files keep their split."""

    def step(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
        for row in rows:
            if row.split == "train":
                split = keys.split(row.prompt, row.completions[0] if row.completions else "")
                row = row if split == "train" else row._replace(split=split)
            tally.notes[row.split] += 1
            yield row

    return step


def row_form(row: Row) -> str:
    """Return the form of a row, by its prompt, the number of its completions, and the label of a single one."""
    if row.prompt and row.rated:
        return "good_answers" if row.label else "bad_answers"
    return FORMS[min(len(row.completions), 3)] if row.prompt else "text"
