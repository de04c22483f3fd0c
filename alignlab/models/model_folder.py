"""Check the files of a model's folder before it is planned with, and explain what fails when it is loaded.

Libraries raise many classes of errors for damaged files, some of them of no class of their own. A check of every file
comes first, since a plan reads some of them; loading then explains what the check cannot see.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from alignlab.errors import failure
from alignlab.models import weight_files
from alignlab.models.weight_files import AGAIN
from alignlab.runtime.file_errors import explain
from alignlab.runtime.worker_errors import must_reach_run


def check(folder: Path) -> None:
    """Raise a `Failure` that names what is damaged or missing among the files of a model's folder."""
    if not folder.is_dir():
        return
    for file in sorted(folder.glob("*.json")):
        facts = file.stat()
        check_json(file, facts.st_size, facts.st_mtime_ns)
    weight_files.check(folder)


@lru_cache(maxsize=256)
def check_json(file: Path, size: int, changed: int) -> None:
    """Raise a `Failure` where a JSON file is damaged; `size` and `changed` tell its states apart."""
    if file.name == "tokenizer.json":
        check_tokenizer(file)
    else:
        read_object(file)


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON object; raise a `Failure` where the file holds none."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise failure(str(file), f"is not JSON ({reason(error)})", AGAIN) from error
    if not isinstance(value, dict):
        raise failure(str(file), f"is a JSON {type(value).__name__}, not an object", AGAIN)
    return value


def check_tokenizer(file: Path) -> None:
    """Raise a `Failure` where a tokenizer cannot be read."""
    from tokenizers import Tokenizer

    with explained_loading(str(file), "is no tokenizer", file.parent, AGAIN):
        Tokenizer.from_file(str(file))


@contextmanager
def explained_loading(place: str, what: str, folder: Path, now: str = "") -> Iterator[None]:
    """Raise a `Failure` for whatever a library raises while it loads the model in a folder."""
    try:
        yield
    except Exception as error:
        if must_reach_run(error):
            raise
        raise explain(error, folder) or failure(place, f"{what} ({reason(error)})", now) from error


def reason(error: BaseException) -> str:
    """Return an error's message on one line, cut to 200 characters.

    Transformers' advice to run the Python code of a model's folder is replaced: only that of the base model may run.
    """
    if "trust_remote_code" in str(error):
        allowed = "model.trust_remote_code=true runs that of model.path, with your rights"
        return f"it needs Python code of its own (auto_map), which is not run; {allowed}"
    if "ignore_mismatched_sizes" in str(error):
        return "its weights have other shapes than its config.json says"
    return " ".join(str(error).split())[:200] or type(error).__name__
