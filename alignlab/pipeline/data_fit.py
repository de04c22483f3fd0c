"""Say in the plan where rows do not fit the settings: what `max_length` cuts, long answers, and batches too large.

Lengths are counted on the first rows with the base model's tokenizer, and only where that is on this machine.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.config.method import Training
from alignlab.config.method_protocol import load_method
from alignlab.config.schema import Config
from alignlab.data.views import load_view, view_names
from alignlab.errors import Failure, Mistake, mistake
from alignlab.models.references import Source
from alignlab.models.truncation import kept_tokens

ROWS = 2000  # rows that are counted
FROM = 0.05  # the share of rows that are too long from which the plan says so
FAR = 10  # times the rows, from which a batch that the command names is refused


class Cut(NamedTuple):
    """The rows of a stage that `max_length` cuts, their tokens that are lost, and the pairs that become identical."""

    rows: int
    tokens: int
    identical: int


def warnings(config: Config, settings: Training, place: str, base: Source, rows: int | None) -> Iterator[str]:
    """Yield a warning for each setting of a stage that the rows do not fit; `rows` is the number of training rows.

    Raises a `Mistake` for a batch far larger than all rows, where the command names its size.
    """
    if rows and settings.batch_size > rows and not hasattr(settings, "total_episodes"):
        setting, most = f"{place}.batch_size", f"every step takes all {rows:,} rows"
        if setting in config.typed and settings.batch_size > FAR * rows:
            raise mistake(setting, f"{settings.batch_size:,} is more than {FAR} times the rows: {most}", "lower it")
        yield f"warning: {setting} ({settings.batch_size:,}) is more than the rows; {most}"
    yield from too_long(config, settings, place, base)


def too_long(config: Config, settings: Training, place: str, base: Source) -> Iterator[str]:
    """Yield a warning where answers are longer than the settings allow, and the rows that `max_length` cuts."""
    tokenizer = tokenizer_of(base.path, *config.model.local_folders)
    if tokenizer is None or not (answers := first_answers(config)):
        return
    columns = [token_ids(tokenizer, texts) for texts in zip(*answers, strict=True)]
    limit = getattr(settings, "max_new_tokens", None)
    if limit and (share := sum(len(answer) > limit for answer in columns[1]) / len(answers)) >= FROM:
        yield f"warning: {share:.0%} of chosen answers are longer than {place}.max_new_tokens ({limit})"
    view = load_method(settings.name).view
    if view == "prompts":
        columns = [columns[0], [[0] * (limit or 0)] * len(answers)]
    cut = count_cut(list(zip(*columns, strict=True)), settings.max_length, settings.prompt_share)
    if cut.rows:
        is_pair = len(load_view(view).COMPLETIONS) == 2
        pairs = f", {cut.identical:,} pairs become identical and are left out" if is_pair else ""
        counted = f"{cut.rows:,} of {'the first ' * (len(answers) == ROWS)}{len(answers):,} rows"
        yield f"{place}.max_length ({settings.max_length}) cuts {counted}: {cut.tokens:,} tokens are lost{pairs}"


def count_cut(rows: Sequence[tuple[list[int], ...]], max_length: int, prompt_share: float) -> Cut:
    """Count what `alignlab.models.truncation` does to rows of a prompt and its completions, without a template."""
    cut = Cut(0, 0, 0)
    for prompt, *completions in rows:
        longest = max(map(len, completions))
        if len(prompt) + longest <= max_length:
            continue
        kept = max(max_length - longest, kept_tokens(len(prompt), max_length, prompt_share))
        room = max_length - kept
        lost = len(prompt) - kept + sum(max(0, len(ids) - room) for ids in completions)
        is_identical = len(completions) > 1 and completions[0][:room] == completions[1][:room]
        cut = Cut(cut.rows + 1, cut.tokens + lost, cut.identical + is_identical)
    return cut


def first_answers(config: Config) -> list[tuple[str, ...]]:
    """Return the texts of prompt and completions of the first training rows; empty where no row has a completion."""
    from alignlab.data import view

    by_view = {name: load_view(name).COMPLETIONS for name in view_names()}
    for name, completions in sorted(by_view.items(), key=lambda each: -len(each[1])):  # pairs come first
        if not completions:
            return []
        try:
            rows = view(config.dataset, name, "train")
        except (Mistake, Failure):
            continue
        if len(rows):
            first = rows[: min(ROWS, len(rows))]
            columns = [map(text_of, first[column]) for column in ("prompt", *completions)]
            return list(zip(*columns, strict=True))
    return []


def text_of(value: Any) -> str:
    """Return the text of a prompt or an answer, without the words of a chat template."""
    return value if isinstance(value, str) else "\n".join(turn["content"] for turn in value)


def tokenizer_of(*folders: Path) -> Any:
    """Return the Rust tokenizer of the first folder that has one; None where none has."""
    from tokenizers import Tokenizer

    file = next((folder / "tokenizer.json" for folder in folders if (folder / "tokenizer.json").exists()), None)
    return None if file is None else Tokenizer.from_file(str(file))


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
