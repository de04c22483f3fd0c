"""HH-RLHF (Bai et al. 2022, arXiv 2204.05862): pairs of transcripts that end in a chosen and a rejected completion.

A row holds `chosen` and `rejected`, two texts of the form "\\n\\nHuman: …\\n\\nAssistant: …". Both become one prompt
(a list of turns) and two completions. Real rows have faults:

- Left out and counted: the prompts differ, a completion is empty, both completions are the same, a transcript does
  not begin with the human or does not end with the assistant.
- Joined and counted: consecutive turns of one speaker.
- Kept and counted: an empty turn inside, a transcript of over 4,000 characters (a method's `max_length` keeps its end).

Rows are prepared once and cached by the content of the files, one Arrow file per split. Validation rows are chosen by
their first human turn, so that no opening is in two splits.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from alignlab.chat import Turn
from alignlab.config.dataset import HhRlhfData
from alignlab.data import jsonl, rejects
from alignlab.data.arrow_writers import arrow_writers
from alignlab.data.jsonl import Record
from alignlab.data.prepared import Prepared, splits_in, step_record
from alignlab.data.rejects import Reject, RejectLog, write_rejects
from alignlab.data.splits import SPLITS
from alignlab.data.views import load_view, view_names
from alignlab.errors import mistake
from alignlab.runtime.cache import building, is_intact
from alignlab.runtime.files import cache_root, digest, digest_files, write_text
from alignlab.runtime.run_files import REJECTS
from alignlab.runtime.source_hash import hash_modules

if TYPE_CHECKING:
    from datasets import Dataset

ROLES: dict[str, Literal["user", "assistant"]] = {"Human": "user", "Assistant": "assistant"}
SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}
READ = {"chosen", "rejected"}
MOST_NAMES = 20  # fields of a row that are named
LONG = 4000  # characters from which a transcript is counted as long


class Transcript(NamedTuple):
    """A conversation as a prompt and its completion; `notes` are faults that were tolerated."""

    prompt: list[Turn]
    completion: str
    notes: tuple[str, ...]


class Pair(NamedTuple):
    """A prompt and two completions; `id` is the file's name and line."""

    prompt: list[Turn]
    chosen: str
    rejected: str
    id: str
    notes: tuple[str, ...]


class Report(NamedTuple):
    """Rows kept per split, rejects by reason, and tolerated faults by kind."""

    rows: dict[str, int]
    rejects: dict[str, int]
    notes: dict[str, int]


def content(dataset: HhRlhfData) -> str:
    """Hash the files' bytes, the settings, and the code that reads them."""
    settings = (dataset.max_rows, dataset.validation, dataset.on_broken, dataset.max_rejects)
    train, test = (digest_files(jsonl.list_files(paths)) for paths in (dataset.train, dataset.test))
    sources = hash_modules(__name__, jsonl.__name__, rejects.__name__)
    return digest(train, test, settings, sources)


def view(dataset: HhRlhfData, name: str, split: str) -> "Dataset":
    """Return one view of one split, with the columns that `alignlab.data.view` lists."""
    from datasets import Dataset

    of_pairs = getattr(load_view(name), "of_pairs", None)
    if of_pairs is None:
        known = ", ".join(name for name in view_names() if hasattr(load_view(name), "of_pairs"))
        raise mistake("dataset", f"hh_rlhf has no {name}", f"take a method that needs one of: {known}")
    rows: Dataset = of_pairs(Dataset.from_file(str(prepare(dataset) / f"{split}.arrow")), dataset)
    return rows


def first_positions(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the positions of the rows whose prompt occurs for the first time."""
    positions: dict[str, int] = {}
    for position, row in enumerate(rows):
        positions.setdefault(json.dumps(row["prompt"]), position)
    return list(positions.values())


def read_report(dataset: HhRlhfData) -> Report:
    """Return the report of a prepared data set; prepare it first if needed."""
    return Report(**json.loads((prepare(dataset) / "report.json").read_text(encoding="utf-8")))


def prepare(dataset: HhRlhfData) -> Path:
    """Read the files once and write the prepared rows to the cache; return their folder."""
    train, test = jsonl.list_files(dataset.train), jsonl.list_files(dataset.test)
    if both := {file.resolve() for file in train} & {file.resolve() for file in test}:
        raise mistake("dataset.test", f"{min(both)} is among the training files too", "give each set its own files")
    final = cache_root() / "data" / content(dataset)
    if is_intact(final):
        return final
    with building(final) as folder:
        if folder is not None:
            write_splits(dataset, train, test, folder)
    return final


def prepared(dataset: HhRlhfData) -> Prepared:
    """Return the prepared data set for its card."""
    report, folder = read_report(dataset), prepare(dataset)
    read = step_record(sum(report.rows.values()), report.rejects, report.notes)
    files = {str(path): "hh_rlhf" for path in (*dataset.train, *dataset.test)}
    return Prepared(splits_in(folder), {"read": read}, files, folder / REJECTS)


def write_splits(dataset: HhRlhfData, train: Sequence[Path], test: Sequence[Path], folder: Path) -> None:
    """Write one Arrow file per split, rejects.jsonl and report.json."""
    from datasets import Features, List, Value

    text = Value("string")
    features = Features(prompt=List({"role": text, "content": text}), chosen=text, rejected=text, id=text)
    logs = {name: RejectLog(dataset.on_broken, dataset.max_rejects) for name in ("train", "test")}
    rows: Counter[str] = Counter()
    openings: set[bytes] = set()
    with arrow_writers(folder, features) as writers:
        for pair in read_pairs(test, logs["test"], None):
            openings.add(hash_opening(pair.prompt))
            rows["test"] += 1
            writers["test"].write({name: getattr(pair, name) for name in features})
        for pair in read_pairs(train, logs["train"], dataset.max_rows):
            split = "validation" if is_validation(pair.prompt, dataset.validation) else "train"
            logs["train"].notes["the opening is in the test files too"] += hash_opening(pair.prompt) in openings
            rows[split] += 1
            writers[split].write({name: getattr(pair, name) for name in features})
    reasons = write_rejects(logs.values(), folder)
    notes = +sum((log.notes for log in logs.values()), Counter())
    report = Report({split: rows[split] for split in SPLITS}, reasons, dict(notes))
    write_text(folder / "report.json", json.dumps(report._asdict(), indent=2))


def read_pairs(files: Sequence[Path], log: RejectLog, limit: int | None) -> Iterator[Pair]:
    """Yield at most `limit` pairs of the files; add broken rows to the log."""
    for file in files:
        for record in jsonl.read_records(file):
            if limit is not None and log.kept >= limit:
                return log.check()
            pair = parse_pair(record) if isinstance(record, Record) else record
            if isinstance(pair, Reject):
                log.add(pair)
                continue
            log.kept += 1
            log.notes.update(pair.notes)
            assert isinstance(record, Record)
            log.notes.update(f"the field {name} is not read" for name in sorted({*record.fields} - READ)[:MOST_NAMES])
            yield pair
    log.check()


def parse_pair(record: Record) -> Pair | Reject:
    """Parse one row; the docstring of this file lists what is rejected."""
    sides: dict[str, Transcript] = {}
    for field in ("chosen", "rejected"):
        side = parse_transcript(record.fields.get(field))
        if isinstance(side, str):
            return Reject(record.file, record.line, field, side)
        sides[field] = side
    chosen, rejected = sides["chosen"], sides["rejected"]
    if chosen.prompt != rejected.prompt:
        return Reject(record.file, record.line, "chosen, rejected", "the two conversations differ before the last turn")
    if chosen.completion == rejected.completion:
        return Reject(record.file, record.line, "chosen, rejected", "the two completions are the same")
    notes = tuple(sorted({*chosen.notes, *rejected.notes}))
    return Pair(chosen.prompt, chosen.completion, rejected.completion, f"{record.file.name}:{record.line}", notes)


def parse_transcript(text: object) -> Transcript | str:
    """Split a transcript into turns; return the reason instead if it is not a transcript."""
    if text is None:
        return "the field is missing"
    if not isinstance(text, str):
        return "the field is not text"
    before, *parts = split_speakers(text)
    if before.strip() or not parts or parts[0] != "Human":
        return "the text does not begin with a human turn"
    if parts[-2] != "Assistant":
        return "the text does not end with an assistant turn"
    if not parts[-1].strip():
        return "the completion is empty"
    turns: list[Turn] = [
        {"role": ROLES[speaker], "content": content.strip()}
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    joined = join_turns(turns)
    notes = {
        "turns of one speaker in a row, joined": len(joined) < len(turns),
        "an empty turn before the last": any(not turn["content"] for turn in joined),
        f"over {LONG:,} characters": len(text) > LONG,
    }
    return Transcript(joined[:-1], joined[-1]["content"], tuple(note for note, applies in notes.items() if applies))


def split_speakers(text: str) -> list[str]:
    """Split a text before each speaker: what stands before the first, then each speaker and what follows it.

    A speaker begins the text or follows an empty line. A regular expression would take several times as long.
    """
    start = text.lstrip()
    text = f"\n\n{start}" if start.startswith(("Human:", "Assistant:")) else text
    parts: list[str] = []
    for place, piece in enumerate(text.split("\n\nHuman:")):
        first, *answers = piece.split("\n\nAssistant:")
        parts += ["Human", first] if place else [first]
        for answer in answers:
            parts += ["Assistant", answer]
    return parts


def join_turns(turns: Sequence[Turn]) -> list[Turn]:
    """Join consecutive turns of one speaker, since chat templates require speakers to alternate."""
    joined: list[Turn] = []
    for turn in turns:
        if joined and joined[-1]["role"] == turn["role"]:
            both = f"{joined[-1]['content']}\n\n{turn['content']}".strip()
            joined[-1] = {"role": turn["role"], "content": both}
        else:
            joined.append(turn)
    return joined


def hash_opening(prompt: Sequence[Turn]) -> bytes:
    """Hash the first human turn without case and spacing."""
    return hashlib.sha256(" ".join(prompt[0]["content"].casefold().split()).encode("utf-8", "surrogatepass")).digest()


def is_validation(prompt: Sequence[Turn], share: float) -> bool:
    """Return whether a prompt belongs to the validation split, which has `share` of the openings."""
    return int.from_bytes(hash_opening(prompt)[:8]) < share * 2**64


def format_transcript(prompt: Sequence[Turn], completion: str) -> str:
    """Write a conversation in HH-RLHF's format."""
    turns = [f"\n\n{SPEAKERS[turn['role']]}: {turn['content']}" for turn in prompt]
    return "".join([*turns, f"\n\nAssistant: {completion}"])
