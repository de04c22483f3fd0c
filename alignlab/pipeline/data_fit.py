"""Warn in the plan where the rows do not fit the settings: answers that are too long, and batches that are too large.

Lengths are counted on the first rows with the base model's tokenizer, and only where that is on this machine.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignlab.config.method import Training
from alignlab.config.schema import Config
from alignlab.errors import Explained
from alignlab.models.references import Source

ROWS = 2000  # rows that are counted
FROM = 0.05  # the share of rows that are too long from which the plan says so
GROUPED = ("pairs", "demonstrations")  # views with answers, in the order in which they are looked for


def warnings(config: Config, settings: Training, place: str, base: Source, rows: int | None) -> Iterator[str]:
    """Yield a warning for each setting of a stage that the rows do not fit; `rows` is the number of training rows."""
    if rows and settings.batch_size > rows and not hasattr(settings, "total_episodes"):
        now = f"lower {place}.batch_size"
        yield f"warning: {place}.batch_size ({settings.batch_size:,}) is more than the {rows:,} rows; {now}"
    yield from too_long(config, settings, place, base)


def too_long(config: Config, settings: Training, place: str, base: Source) -> Iterator[str]:
    """Yield a warning where many answers, or prompts with their answers, are longer than the settings allow."""
    tokenizer = tokenizer_of(base.path, *config.model.local_folders)
    if tokenizer is None or not (answers := first_answers(config)):
        return
    prompts, completions = (lengths(tokenizer, texts) for texts in zip(*answers, strict=True))
    limit = getattr(settings, "max_new_tokens", None)
    if limit and (share := sum(length > limit for length in completions) / len(completions)) >= FROM:
        yield f"warning: {share:.0%} of chosen answers are longer than {place}.max_new_tokens ({limit})"
    both = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    if (share := sum(length > settings.max_length for length in both) / len(both)) >= FROM:
        yield f"warning: {share:.0%} of rows are longer than {place}.max_length ({settings.max_length}) and are cut"


def first_answers(config: Config) -> list[tuple[str, str]]:
    """Return the text of prompt and best answer of the first training rows; empty where no row has an answer."""
    from alignlab.data import view

    for name, column in zip(GROUPED, ("chosen", "completion"), strict=True):
        try:
            rows = view(config.dataset, name, "train")
        except Explained:
            continue
        if len(rows):
            first = rows.select(range(min(ROWS, len(rows))))
            return [(text_of(row["prompt"]), text_of(row[column])) for row in first]
    return []


def text_of(value: Any) -> str:
    """Return the text of a prompt or an answer, without the words of a chat template."""
    return value if isinstance(value, str) else "\n".join(turn["content"] for turn in value)


def tokenizer_of(*folders: Path) -> Any:
    """Return the Rust tokenizer of the first folder that has one; None where none has."""
    from tokenizers import Tokenizer

    file = next((folder / "tokenizer.json" for folder in folders if (folder / "tokenizer.json").exists()), None)
    return None if file is None else Tokenizer.from_file(str(file))


def lengths(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Return the number of tokens of each text."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
