"""Parse the records of files into the rows of a data set.

A record that does not match the format of its file is added to the reject log and left out.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import NamedTuple

from alignlab.config import extensions
from alignlab.config.dataset import FileData
from alignlab.data import message_trees, readers
from alignlab.data.jsonl import Record
from alignlab.data.ledger import Row, Tally
from alignlab.data.message_trees import Assembled
from alignlab.data.qualifiers import SOFT, qualify
from alignlab.data.rejects import Reject, RejectLog
from alignlab.data.row_fields import Broken, Draft, LeftOut, RowFields
from alignlab.data.row_formats import CATCH_ALL, FORMATS, RowFormat, detect, format_of, misspelt_field
from alignlab.data.sources import Source
from alignlab.data.splits import Split
from alignlab.data.transcripts import WITH_MARKERS, holds_markers
from alignlab.data.turns import take_reasoning, think
from alignlab.data.unread_fields import MOST_NAMES, OTHERS, ignored_names, refuse_media, texts_of, unread_fields
from alignlab.errors import Failure, failure, mistake

DETECTION_ROWS = 50  # rows by which the format of a file is detected
TURNS = (("role", "content"), ("from", "value"))  # fields of a row that is one turn
NOT_A_FIELD = "no format reads a field of this name"
READ_BESIDE = ("kind",)  # fields that are read from every row


class Chunk(NamedTuple):
    """Some records of a source, in order, and the name of the format of most of its rows.

    `room` is the number of rows after which no more records are read; None reads all.
    """

    source: Source
    split: Split
    row_format: str
    records: Iterable[Assembled]
    room: int | None


class Counts(NamedTuple):
    """What is recorded while records are read: the step's tally, formats in their order, unread fields by name.

    `lines` are those of the records.
    """

    tally: Tally
    formats: list[str]
    unread: Counter[str]
    lines: list[int]


class Parsed(NamedTuple):
    """The drafts of one record, the name of its format, and the fields that were not read."""

    drafts: list[Draft]
    row_format: str
    unread: list[str]


def read_rows(chunk: Chunk, dataset: FileData, log: RejectLog, counts: Counts) -> Iterator[Row]:
    """Yield the rows of a chunk; record what is not read in `counts`."""
    main, tally, records = named_format(chunk.row_format), counts.tally, iter(chunk.records)
    while (chunk.room is None or log.kept < chunk.room) and (assembled := next(records, None)):
        record, size = assembled
        tally.rows_in += size
        tally.dropped[message_trees.JOINED] += size - 1
        counts.lines.append(record.line)
        try:
            parsed = parse_record(main, record, dataset)
        except LeftOut as reason:
            tally.dropped[str(reason)] += 1
            continue
        if isinstance(parsed, Reject):
            log.add(parsed)
            tally.dropped[parsed.label] += 1
            continue
        assert isinstance(record, Record)
        if parsed.row_format not in counts.formats:
            counts.formats.append(parsed.row_format)
        counts.unread.update(parsed.unread)
        tally.added["one row an instance"] += len(parsed.drafts) - 1
        for number, draft in enumerate(parsed.drafts):
            log.kept += 1
            tally.rows_out += 1
            row = build_row(draft, record, number, chunk.source, chunk.split, dataset.mask.truth)
            if draft.notes:
                tally.notes.update(draft.notes)
            tally.notes[SOFT] += row.label not in (0, 1)
            yield row


def count_unread(unread: Counter[str], more: Mapping[str, int]) -> None:
    """Add counts of rows with a field that was not read; of many fields only the first are named."""
    for name, count in more.items():
        unread[name if name in unread or len(unread) < MOST_NAMES else OTHERS] += count


def detect_format(source: Source, name: str | None, ignored: frozenset[str]) -> tuple[RowFormat, Iterator[Assembled]]:
    """Return the format of a file, which is named or that of most rows, and all its records."""
    records = readers.read_records(source.path)
    first = list(islice(records, DETECTION_ROWS))
    fields = [RowFields(record.fields, ignored) for record in first if isinstance(record, Record)]
    everything = chain(first, records)
    if name in (None, "message_tree") and fields and sum(map(message_trees.is_flat, fields)) * 2 > len(fields):
        return FORMATS["message_tree"], message_trees.assemble(everything)
    row_format = named_format(name) if name else detect(fields)
    if row_format is None and fields:
        raise unknown_format(source, fields[0], len(fields) == 1)
    return row_format or FORMATS["prompt_completion"], (Assembled(record, 1) for record in everything)


def unknown_format(source: Source, fields: RowFields, is_alone: bool) -> Failure:
    """Build the failure for rows without a known format: single turns, a misspelt field, lists of rows, or others."""
    if any(set(turn) <= set(fields) for turn in TURNS):
        what = "each row is one turn, and nothing says which turns are one conversation"
        return failure(str(source.path), what, "write one row a conversation, with its turns as a list in `messages`")
    names = ", ".join(str(name)[:30] for name in list(fields)[:8]) or "none"
    what = f"rows with the fields {names} have no known format"
    if misspelt := misspelt_field(fields):
        return failure(str(source.path), what, f"rename {misspelt[0]} to {misspelt[1]}")
    lists = [
        name for name in fields if isinstance(rows := fields.peek(name), list) and rows and isinstance(rows[0], dict)
    ]
    if conversations := [name for name in lists if any(set(turn) <= set(fields.peek(name)[0]) for turn in TURNS)]:
        return failure(str(source.path), f"{what}, and {conversations[0]} holds turns", "rename it to messages")
    if lists and is_alone:
        what = f"the rows lie in lists inside an object: {', '.join(lists[:5])}"
        return failure(str(source.path), what, "write each list as a file of its own")
    known = "; ".join(map(str, FORMATS.values()))
    return failure(str(source.path), what, f"known are {known}; docs/data.md lists their fields")


def named_format(name: str) -> RowFormat:
    """Return a format by its name: a built-in one, or `FORMAT` of a user's own `formats/<name>.py`."""
    if name in FORMATS:
        return FORMATS[name]
    module = extensions.load("formats", name)
    row_format = getattr(module, "FORMAT", None)
    if not isinstance(row_format, RowFormat):
        now = "see docs/extending.md for what a data format declares"
        raise mistake("dataset.format", f"{module.__name__} declares no FORMAT", now)
    return row_format._replace(name=name)


def parse_record(main: RowFormat, record: Record | Reject, dataset: FileData) -> Parsed | Reject:
    """Parse a record in the format of its fields, or in the one that `dataset.format` names; a fault gives a reject."""
    if isinstance(record, Reject):
        return record
    fields = RowFields(record.fields, ignored_names(dataset.ignore))
    row_format = main if dataset.format else format_of(fields, main) or main
    try:
        for names in row_format.required:
            if not fields.names.among(names):
                raise Broken(names[0], "the field is missing", f"{' or '.join(names)}, for {row_format.name}")
        drafts = [_complete(draft, fields) for draft in row_format.parse(fields)]
        for name in (*READ_BESIDE, dataset.mask.truth):
            fields.get(name or "")
        drafts = refuse_media(fields, drafts)
        unread = unread_fields(fields, drafts, row_format.name in CATCH_ALL)
        if row_format.name in CATCH_ALL and misspelt_field(fields):
            raise Broken("", NOT_A_FIELD, "")
    except Broken as error:
        return build_reject(record, fields, error)
    if any(holds_markers(text) for draft in drafts for text in texts_of(draft)):
        fields.notes.append(WITH_MARKERS)
    notes = tuple(dict.fromkeys(fields.all_notes()))
    if drafts and notes:
        drafts[0] = drafts[0]._replace(notes=(*drafts[0].notes, *notes))
    return Parsed(drafts, row_format.name, unread)


def build_reject(record: Record, fields: RowFields, error: Broken) -> Reject:
    """Build the reject of a row that does not match its format; a misspelt field is the likely cause, and is named."""
    if misspelt := misspelt_field(fields):
        field, meant = misspelt
        return Reject(record.file, record.line, field, NOT_A_FIELD, meant, f"rename it to {meant}")
    return Reject(record.file, record.line, error.field, error.reason, error.expected, error.remedy)


def _complete(draft: Draft, fields: RowFields) -> Draft:
    """Add what the row says of a draft beside its texts: reasoning, label and weight."""
    if len(draft.completions) == 1 and draft.prompt and (reasoning := take_reasoning(fields)):
        draft = draft._replace(completions=[think(reasoning, draft.completions[0])])
    return qualify(draft, fields)


def build_row(draft: Draft, record: Record, number: int, source: Source, split: Split, truth: str | None) -> Row:
    """Build a row from a draft, which is the `number`-th of its record; `truth` names the field of known truth."""
    kind = record.fields.get("kind")
    return Row(
        id=f"{source.label}:{record.line}" + (f"#{number + 1}" if number else ""),
        prompt=draft.prompt,
        completions=draft.completions,
        split=split,
        kind=kind if isinstance(kind, str) else "",
        made_by="",
        file=source.path,
        line=record.line,
        truth=str(record.fields.get(truth) or "") if truth else "",
        label=draft.label,
        weight=draft.weight,
        cut_off=draft.cut_off,
        context=draft.context,
        rated=draft.rated,
        harms=draft.harms,
    )
