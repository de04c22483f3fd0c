"""Answer a file of prompts: `task=generate task.prompts=prompts.jsonl`.

The completions are JSON lines: the fields of the prompt's row, and `completion_id`, `completion`, `finished` and
`tokens`. Each completion has its own random stream, which depends on the seed, the row and its number alone. The file
is written batch by batch: after a crash, or with more `task.samples`, the same command adds what is missing.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.chat import Turn
from alignlab.config.schema import Config
from alignlab.config.settings import path_in_home
from alignlab.config.task import Generate
from alignlab.errors import failure, mistake
from alignlab.pipeline.language_models import check_language_model, language_model
from alignlab.runtime.files import digest_files, locked, read_json, write_text
from alignlab.runtime.journal import Journal, line
from alignlab.runtime.progress import say

if TYPE_CHECKING:
    from alignlab.data.jsonl import Record
    from alignlab.data.rejects import Reject
    from alignlab.models.sampling import Completion

KEY = "completion_id"
ADDED = (KEY, "completion", "finished", "tokens")
SETTING = "task.prompts"


class Asked(NamedTuple):
    """A prompt: its turns, and the fields of its row."""

    turns: list[Turn]
    fields: dict[str, Any]


def plan(config: Config) -> Iterator[str]:
    """Yield what the command would do, and how much of it is done."""
    settings, file = check(config)
    asked = read_prompts(settings.prompts)
    done = len(Journal(file, KEY).rows) if file.exists() else 0
    yield f"generate with {settings.model}: {settings.samples} completions to each of {len(asked):,} prompts"
    yield f"  into {file}, which holds {done:,}"


def run(config: Config, folder: Path) -> None:
    """Complete all prompts; the last line printed is the file of the completions."""
    settings, file = check(config)
    asked = read_prompts(settings.prompts)
    with locked(file):
        write_text(settings_beside(file), json.dumps(record_of(config, settings), indent=1))
        journal = Journal(file, KEY)
        wanted = [[name_of(row, number) for number in range(settings.samples)] for row in range(len(asked))]
        if journal.rows:
            say(f"{len(journal.rows):,} completions are there already")
        if any(name not in journal.rows for names in wanted for name in names):
            sample(config, settings, asked, wanted, journal)
        write_text(file, "".join(line(journal.rows[name]) for name in sorted(journal.rows, key=place_of)))
    print(file)


def check(config: Config) -> tuple[Generate, Path]:
    """Return the task's settings and the file of the completions; raises a `Mistake` where no model is named."""
    settings = config.task
    assert isinstance(settings, Generate)
    check_language_model("task.model", settings.model)
    prompts = settings.prompts
    output = settings.output or prompts.with_name(f"{prompts.name.partition('.')[0]}.completions.jsonl")
    check_output(record_of(config, settings), output)
    return settings, output


def record_of(config: Config, settings: Generate) -> dict[str, Any]:
    """Return what decides the completions: they are written beside the file, and it takes no others."""
    return {
        "model": str(folder_of(settings.model) or settings.model),
        "base": config.model.model_dump(mode="json"),
        "prompts": digest_files([settings.prompts]),
        "sampling": [settings.temperature, settings.top_p, settings.max_new_tokens],
        "seed": config.seed,
    }


def settings_beside(file: Path) -> Path:
    """Return the file that holds the settings of a file of completions."""
    return file.with_name(f"{file.name}.settings")


def check_output(record: Mapping[str, Any], file: Path) -> None:
    """Raise a `Mistake` where the file holds completions of another model, other prompts or settings."""
    beside, now = settings_beside(file), "name another file, or remove this one"
    if not file.exists():
        return
    if not beside.exists():
        raise mistake("task.output", f"{file} exists, and {beside.name} does not say how it was made", now)
    if read_json(beside, now) != record:
        raise mistake("task.output", f"{file} holds completions of another model, other prompts or settings", now)


def folder_of(named: str) -> Path | None:
    """Return the folder or file of a model with all links followed, since `outputs/latest` moves; None for others."""
    path = path_in_home(Path(named))
    return path.resolve() if path.exists() else None


def read_prompts(path: Path) -> list[Asked]:
    """Read the prompts of a file; rows that hold none are counted, and a file without any raises a `Failure`."""
    from alignlab.data.rejects import Reject

    parsed = list(read_texts(path) if path.suffix.lower() == ".txt" else read_rows(path))
    faults = [row for row in parsed if isinstance(row, Reject)]
    asked = [row for row in parsed if isinstance(row, Asked)]
    if faults:
        say(f"{len(faults):,} of {len(faults) + len(asked):,} rows hold no prompt; the first: {faults[0]}")
    if not asked:
        raise failure(SETTING, f"{path} holds no prompt", "give rows with prompt or messages; see docs/data.md")
    return asked


def read_texts(path: Path) -> "Iterator[Asked]":
    """Yield each line of a text file that is not blank, as a prompt."""
    from alignlab.data.jsonl import read_lines

    for _, text in read_lines(path):
        if prompt := text.strip():
            yield Asked([{"role": "user", "content": prompt}], {"prompt": prompt})


def read_rows(path: Path) -> "Iterator[Asked | Reject]":
    """Yield the prompt of each row of a data file, or the `Reject` of a row that holds none."""
    from alignlab.data.readers import read_records
    from alignlab.data.rejects import Reject

    for record in read_records(path):
        yield record if isinstance(record, Reject) else parse(record)


def parse(record: "Record") -> "Asked | Reject":
    """Return the prompt of a row with its fields, or the `Reject` of a row that holds none."""
    from alignlab.data.rejects import Reject
    from alignlab.data.row_fields import Broken, LeftOut, RowFields
    from alignlab.data.row_formats import format_of

    fields = RowFields(record.fields)
    row_format = format_of(fields)
    try:
        drafts = row_format.parse(fields) if row_format else []
    except Broken as error:
        return Reject(record.file, record.line, error.field, error.reason, error.expected, error.remedy)
    except LeftOut as reason:
        return Reject(record.file, record.line, "", str(reason))
    if not drafts or not drafts[0].prompt:
        return Reject(record.file, record.line, "", "the row holds no prompt", "prompt or messages")
    return Asked(drafts[0].prompt, record.fields)


def name_of(row: int, number: int) -> str:
    """Return the id of a completion: its row, from 1, and its number."""
    return f"{row + 1}-{number + 1}"


def place_of(name: str) -> list[int]:
    """Return the row and the number in the id of a completion."""
    return [int(part) for part in name.split("-")]


def sample(
    config: Config, settings: Generate, asked: Sequence[Asked], wanted: Sequence[Sequence[str]], journal: Journal
) -> None:
    """Sample the completions that the journal does not hold, and record them batch by batch."""
    from alignlab.models.answers import sample_several
    from alignlab.models.load import load_policy
    from alignlab.models.sampling import Sampling
    from alignlab.models.token_choice import LIKELIEST

    source = language_model(config, "task.model", settings.model)
    model, tokenizer = load_policy(source.path, config.hardware)
    temperature = max(settings.temperature, LIKELIEST)
    batches = sample_several(
        model,
        tokenizer,
        [prompt.turns for prompt in asked],
        settings.samples,
        Sampling(temperature, settings.top_p, settings.max_new_tokens, settings.batch_size),
        key=lambda row, number: (config.seed + (number << 32), row),  # seeds have 32 bits
        wanted=lambda row: any(name not in journal.rows for name in wanted[row]),
        setting="task.max_new_tokens",
    )
    for batch in batches:
        journal.add(
            completion_row(asked[row].fields, name, completion)
            for row, completions in batch.items()
            for name, completion in zip(wanted[row], completions, strict=True)
        )


def completion_row(fields: Mapping[str, Any], name: str, completion: "Completion") -> dict[str, Any]:
    """Return a completion's row; a field of the prompt whose name is taken is written as `source_<name>`."""
    kept = {f"source_{key}" if key in ADDED else key: value for key, value in fields.items()}
    values = (name, completion.text, completion.finished, len(completion.tokens))
    return kept | dict(zip(ADDED, values, strict=True))
