"""Files of prompts, such as AdvBench, HarmBench and XSTest: CSV, JSON lines or Parquet with a column of prompts."""

from collections.abc import Sequence
from pathlib import Path

from alignlab.chat import Turn
from alignlab.config.schema import Config
from alignlab.errors import failure
from alignlab.evaluation.replies import prompt_hash
from alignlab.evaluation.suite_files import suite_files

FIELDS = ("prompt", "goal", "Behavior", "question", "instruction")  # names of the prompt's column, first match


def harmful_prompts(config: Config, name: str, pattern: str) -> list[tuple[str, list[Turn]]]:
    """Return the harmful prompts of a suite's files with their ids, in the order of their hashes."""
    texts = [text for file in suite_files(config, name, pattern) for text in read_prompts(file, "harmful")]
    prompts: list[list[Turn]] = [[{"role": "user", "content": text}] for text in dict.fromkeys(texts)]
    return [(f"harmful/{prompt_hash(prompt)}", prompt) for prompt in prompts]


def read_prompts(file: Path, kind: str) -> list[str]:
    """Read the prompts of a file in the order of their hashes; raise a `Failure` where a row has none.

    A file that labels its rows (`label`, as XSTest) gives those labelled `safe` as safe, and the others as harmful.
    """
    from alignlab.data.readers import read_records
    from alignlab.data.rejects import Reject
    from alignlab.runtime.files import digest

    texts = []
    for row in read_records(file):
        if isinstance(row, Reject):
            raise failure(f"{file}:{row.line}", row.reason, "mend the row")
        label = row.fields.get("label")
        if label in {"safe", "unsafe"} and (label == "safe") != (kind == "safe"):
            continue
        texts.append(prompt_of(row.fields, f"{file}:{row.line}"))
    if not texts:
        raise failure(str(file), f"the file holds no {kind} prompts", "give another one")
    return sorted(dict.fromkeys(texts), key=digest)


def prompt_of(fields: dict[str, object], where: str) -> str:
    """Return the prompt of a row; raise a `Failure` where it has none."""
    values: Sequence[object] = [fields[name] for name in FIELDS if fields.get(name)]
    if not values or not isinstance(values[0], str):
        raise failure(where, f"the row has no text in any of the fields {', '.join(FIELDS)}", "name its column prompt")
    return values[0]
