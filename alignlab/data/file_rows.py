"""Parse the records of files into the rows of a data set.

A record that does not match the format of its file is added to the reject log and left out.
"""

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from math import inf
from typing import Any

from alignlab.config import extensions
from alignlab.config.dataset import FileData
from alignlab.data import readers
from alignlab.data.jsonl import Record
from alignlab.data.ledger import Row, Tally
from alignlab.data.readers import Source
from alignlab.data.rejects import Reject, RejectLog
from alignlab.data.row_formats import FORMATS, Broken, Draft, RowFormat, detect
from alignlab.data.splits import Split
from alignlab.errors import failure, mistake

DETECTION_ROWS = 50  # rows by which the format of a file is detected


def read_rows(
    source: Source, split: Split, dataset: FileData, log: RejectLog, tally: Tally, formats: dict[str, str]
) -> Iterator[Row]:
    """Yield the rows of a source, at most `max_rows` in training; record the name of its format in `formats`."""
    row_format, records = detect_format(source, dataset.format)
    formats[source.label] = row_format.name
    limit = dataset.max_rows if split == "train" else None
    for record in records:
        if limit is not None and log.kept >= limit:
            return
        tally.rows_in += 1
        drafts = parse_record(row_format, record)
        if isinstance(drafts, Reject):
            log.add(drafts)
            tally.dropped[drafts.label] += 1
            continue
        assert isinstance(record, Record)
        tally.added["one row an instance"] += len(drafts) - 1
        for number, draft in enumerate(drafts):
            log.kept += 1
            tally.rows_out += 1
            row = build_row(draft, record, number, source, split, dataset.mask.truth)
            tally.notes.update(draft.notes)
            tally.notes["soft label"] += row.label != 1
            yield row


def detect_format(source: Source, name: str | None) -> tuple[RowFormat, Iterator[Record | Reject]]:
    """Return the format of a file, which is named or detected, and all its records."""
    records = readers.read_records(source.path)
    first = list(islice(records, DETECTION_ROWS))
    fields = [record.fields for record in first if isinstance(record, Record)]
    row_format = named_format(name) if name else detect(fields)
    if row_format is None and fields:
        names = ", ".join(str(name)[:30] for name in list(fields[0])[:8]) or "none"
        known = "; ".join(map(str, FORMATS.values()))
        raise failure(str(source.path), f"rows with the fields {names} have no known format", f"known are {known}")
    return row_format or FORMATS["prompt_completion"], chain(first, records)


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


def parse_record(row_format: RowFormat, record: Record | Reject) -> list[Draft] | Reject:
    """Parse a record in the format of its file; return a reject if it does not match the format."""
    if isinstance(record, Reject):
        return record
    try:
        for names in row_format.required:
            if not any(name in record.fields for name in names):
                raise Broken(names[0], "the field is missing", f"{' or '.join(names)}, for {row_format.name}")
        return row_format.parse(record.fields)
    except Broken as error:
        return Reject(record.file, record.line, error.field, error.reason, error.expected)


def build_row(draft: Draft, record: Record, number: int, source: Source, split: Split, truth: str | None) -> Row:
    """Build a row from a draft, which is the `number`-th of its record; `truth` names the field of known truth."""
    kind = record.fields.get("kind")
    label, weight = label_and_weight(record.fields) if len(draft.completions) == 2 else (1.0, 1.0)
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
        label=label,
        weight=weight,
    )


def label_and_weight(fields: Mapping[str, Any]) -> tuple[float, float]:
    """Return the label (a probability) and the weight (above 0) of a pair; 1 where the row has none."""
    label, weight = fields.get("label"), fields.get("weight")
    return (
        label if isinstance(label, float) and 0 <= label <= 1 else 1.0,
        weight if isinstance(weight, float) and 0 < weight < inf else 1.0,
    )
