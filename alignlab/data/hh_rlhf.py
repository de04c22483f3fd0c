"""HH-RLHF (Bai et al. 2022, arXiv 2204.05862): pairs of transcripts that end in a chosen and a rejected answer.

A row holds `chosen` and `rejected`, two texts of the form "\\n\\nHuman: …\\n\\nAssistant: …". Both become one prompt
(a list of turns) and two answers. What real rows hold besides, and what becomes of it:

- contexts that differ before the last turn, an empty last answer, two equal answers, a transcript that does not
  begin with the human or end with the assistant: the row is left out and counted;
- turns of one speaker in a row: joined, counted;
- an empty turn inside, a transcript of over 4,000 characters: kept, counted (a method's `max_length` keeps its end).

Rows are prepared once and cached by the content of the files, one Arrow file a split. Rows are set aside for
validation by their first human turn, so that no opening stands on both sides.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from alignlab.chat import Turn
from alignlab.config.dataset import HhRlhfData
from alignlab.data import jsonl
from alignlab.data.jsonl import Account, Record, Reject
from alignlab.errors import mistake
from alignlab.runtime.files import building, cache_root, digest, digest_files, write_text
from alignlab.runtime.source_hash import hash_modules

if TYPE_CHECKING:
    from datasets import Dataset

VIEWS = ("demonstrations", "pairs", "prompts", "text")
SPLITS = ("train", "validation", "test")
SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
ROLES: dict[str, Literal["user", "assistant"]] = {"Human": "user", "Assistant": "assistant"}
LONG = 4000


class Transcript(NamedTuple):
    """One conversation and its last answer; `notes` are the oddities that were met and kept."""

    prompt: list[Turn]
    answer: str
    notes: tuple[str, ...]


class Row(NamedTuple):
    """One prompt and two answers; `id` is the file's name and line."""

    prompt: list[Turn]
    chosen: str
    rejected: str
    id: str
    notes: tuple[str, ...]


class Report(NamedTuple):
    """How a data set was read: rows kept a split, rows left out by reason, oddities kept."""

    rows: dict[str, int]
    rejects: dict[str, int]
    notes: dict[str, int]


def content(dataset: HhRlhfData) -> str:
    """Hash the data by content: the files' bytes, what is done with them, and how they are read."""
    settings = (dataset.max_rows, dataset.validation, dataset.on_broken, dataset.max_rejects)
    train, test = (digest_files(jsonl.files(paths)) for paths in (dataset.train, dataset.test))
    sources = hash_modules(__name__, jsonl.__name__)
    return digest(train, test, settings, sources)


def view(dataset: HhRlhfData, name: str, split: str) -> "Dataset":
    """Give one view of one split, with the columns that `alignlab.data.view` names."""
    from datasets import Dataset

    if name not in VIEWS:
        raise mistake("dataset", f"hh_rlhf has no {name}", f"take a method that needs one of: {', '.join(VIEWS)}")
    pairs = Dataset.from_file(str(prepare(dataset) / f"{split}.arrow"))
    if name == "pairs":
        return pairs
    if name == "demonstrations":
        return pairs.remove_columns(["rejected"]).rename_column("chosen", "completion")
    if name == "prompts":
        return pairs.select(first_of_each(pairs.to_list())).remove_columns(["chosen", "rejected"])
    return Dataset.from_list(
        [{"text": transcript(row["prompt"], row["chosen"]), "id": row["id"]} for row in pairs.to_list()]
    )


def first_of_each(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """List the positions at which a prompt stands for the first time."""
    seen: dict[str, int] = {}
    for position, row in enumerate(rows):
        seen.setdefault(json.dumps(row["prompt"]), position)
    return list(seen.values())


def report(dataset: HhRlhfData) -> Report:
    """Tell how the data set was read; the rejects themselves lie in rejects.jsonl beside the prepared rows."""
    return Report(**json.loads((prepare(dataset) / "report.json").read_text(encoding="utf-8")))


def prepare(dataset: HhRlhfData) -> Path:
    """Read the files once and write the prepared rows to the cache; return their folder."""
    train, test = jsonl.files(dataset.train), jsonl.files(dataset.test)
    if both := {file.resolve() for file in train} & {file.resolve() for file in test}:
        raise mistake("dataset.test", f"{min(both)} is among the training files too", "give each set its own files")
    final = cache_root() / "data" / content(dataset)
    if final.exists():
        return final
    with building(final) as folder:
        if folder is not None:
            write(dataset, train, test, folder)
    return final


def write(dataset: HhRlhfData, train: Sequence[Path], test: Sequence[Path], folder: Path) -> None:
    """Write an Arrow file a split, rejects.jsonl and report.json."""
    accounts = {name: Account(dataset.on_broken, dataset.max_rejects) for name in ("train", "test")}
    rows: Counter[str] = Counter()
    openings: set[bytes] = set()
    with tables(folder) as put:
        for row in rows_of(test, accounts["test"], None):
            openings.add(opening(row.prompt))
            rows["test"] += 1
            put("test", row)
        for row in rows_of(train, accounts["train"], dataset.max_rows):
            split = "validation" if set_aside(row.prompt, dataset.validation) else "train"
            accounts["train"].notes["the opening is in the test files too"] += opening(row.prompt) in openings
            rows[split] += 1
            put(split, row)
    tell(accounts, rows, folder)


def rows_of(files: Sequence[Path], account: Account, limit: int | None) -> Iterator[Row]:
    """Read files pair by pair, keeping account; at most `limit` pairs."""
    for file in files:
        for record in jsonl.records(file):
            if limit is not None and account.kept >= limit:
                return account.close()
            row = pair(record) if isinstance(record, Record) else record
            if isinstance(row, Reject):
                account.reject(row)
                continue
            account.kept += 1
            account.notes.update(row.notes)
            yield row
    account.close()


def pair(record: Record) -> Row | Reject:
    """Take one row apart; see the top of this file for what is refused."""
    sides: dict[str, Transcript] = {}
    for field in ("chosen", "rejected"):
        side = parse(record.fields.get(field))
        if isinstance(side, str):
            return Reject(record.file, record.line, field, side)
        sides[field] = side
    chosen, rejected = sides["chosen"], sides["rejected"]
    if chosen.prompt != rejected.prompt:
        return Reject(record.file, record.line, "chosen, rejected", "the two conversations differ before the last turn")
    if chosen.answer == rejected.answer:
        return Reject(record.file, record.line, "chosen, rejected", "the two answers are the same")
    notes = tuple(sorted({*chosen.notes, *rejected.notes}))
    return Row(chosen.prompt, chosen.answer, rejected.answer, f"{record.file.name}:{record.line}", notes)


def parse(text: object) -> Transcript | str:
    """Split a transcript into turns, or say in a few words why it is none."""
    if text is None:
        return "the field is missing"
    if not isinstance(text, str):
        return "the field is not text"
    before, *parts = SPEAKER.split(text)
    if before.strip() or not parts or parts[0] != "Human":
        return "the text does not begin with a human turn"
    if parts[-2] != "Assistant":
        return "the text does not end with an assistant turn"
    if not parts[-1].strip():
        return "the answer is empty"
    turns: list[Turn] = [
        {"role": ROLES[who], "content": said.strip()} for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    joined = join(turns)
    odd = {
        "turns of one speaker in a row, joined": len(joined) < len(turns),
        "an empty turn before the last": any(not turn["content"] for turn in joined),
        f"over {LONG:,} characters": len(text) > LONG,
    }
    return Transcript(joined[:-1], joined[-1]["content"], tuple(note for note, met in odd.items() if met))


def join(turns: Sequence[Turn]) -> list[Turn]:
    """Join turns of one speaker that follow each other: chat templates want speakers to alternate."""
    joined: list[Turn] = []
    for turn in turns:
        if joined and joined[-1]["role"] == turn["role"]:
            both = f"{joined[-1]['content']}\n\n{turn['content']}".strip()
            joined[-1] = {"role": turn["role"], "content": both}
        else:
            joined.append(turn)
    return joined


def opening(prompt: Sequence[Turn]) -> bytes:
    """Hash the first human turn, whatever its case and spacing."""
    return hashlib.sha256(" ".join(prompt[0]["content"].casefold().split()).encode("utf-8", "surrogatepass")).digest()


def set_aside(prompt: Sequence[Turn], share: float) -> bool:
    """Tell whether an opening belongs to validation; the same opening always does or never does."""
    return int.from_bytes(opening(prompt)[:8]) < share * 2**64


def transcript(prompt: Sequence[Turn], answer: str) -> str:
    """Write a conversation in HH-RLHF's format."""
    speakers = {"user": "Human", "assistant": "Assistant", "system": "System"}
    said = [f"\n\n{speakers[turn['role']]}: {turn['content']}" for turn in prompt]
    return "".join([*said, f"\n\nAssistant: {answer}"])


@contextmanager
def tables(folder: Path) -> Iterator[Callable[[str, Row], None]]:
    """Open one Arrow file a split; yields the function that adds a row to one of them."""
    from datasets import Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    text = Value("string")
    features = Features(prompt=List({"role": text, "content": text}), chosen=text, rejected=text, id=text)
    writers = {split: ArrowWriter(path=str(folder / f"{split}.arrow"), features=features) for split in SPLITS}

    def put(split: str, row: Row) -> None:
        writers[split].write({"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected, "id": row.id})

    try:
        yield put
        for writer in writers.values():
            writer.finalize()
    finally:
        for writer in writers.values():
            with suppress(OSError):  # what cannot be written any more has been said already
                writer.close()


def tell(accounts: dict[str, Account], rows: Counter[str], folder: Path) -> None:
    """Write rejects.jsonl, one broken row a line, and report.json."""
    rejects = [reject for account in accounts.values() for reject in account.rejects]
    texts = [
        {"file": str(r.file), "line": r.line, "field": r.field, "reason": r.reason, "expected": r.expected}
        for r in rejects
    ]
    write_text(folder / "rejects.jsonl", "".join(json.dumps(text) + "\n" for text in texts))
    reasons = Counter(": ".join(filter(None, (reject.field, reject.reason))) for reject in rejects)
    notes = +sum((account.notes for account in accounts.values()), Counter())
    whole = Report({split: rows[split] for split in SPLITS}, dict(reasons), dict(notes))
    write_text(folder / "report.json", json.dumps(whole._asdict(), indent=2))
