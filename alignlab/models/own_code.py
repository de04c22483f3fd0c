"""Python code in a model's folder (`auto_map` in its config.json): it runs only with `model.trust_remote_code=true`.

The files are trusted, not the folder: the code of `model.path` also runs in the folder of a stage that was trained from
it, which holds the same files. Reward models and classifiers never run code of their own.
"""

from collections.abc import Iterator
from pathlib import Path

from alignlab.config.schema import Config
from alignlab.errors import failure
from alignlab.models import model_folder
from alignlab.runtime.manifest import sha256

_trusted: set[str] = set()  # the SHA-256 of each file that may run in this process


def trust(folder: Path | None) -> None:
    """Trust the code of a folder, and no other code; None trusts none."""
    _trusted.clear()
    if folder:
        _trusted.update(map(sha256, code_files(folder)))


def is_trusted(folder: Path) -> bool:
    """Return whether a folder holds Python code, and all of it is trusted.

    Raises a `Failure` where its settings name code of another repository, which could change at any time.
    """
    files = code_files(folder) if _trusted else []
    if not files or not all(sha256(file) in _trusted for file in files):
        return False
    check_is_local(folder)
    return True


def check_is_local(folder: Path) -> None:
    """Raise a `Failure` where the settings of a model name code of another repository (`owner/name--file.Class`)."""
    for file in sorted(folder.glob("*.json")):
        if "--" in str(auto_map := model_folder.read_object(file).get("auto_map", "")):
            what = f"names code of another repository ({str(auto_map)[:80]}), which could change at any time"
            raise failure(str(file), what, "copy that code into the folder, and remove owner/name-- from auto_map")


def code_files(folder: Path) -> list[Path]:
    """Return the Python files of a folder and its subfolders."""
    return sorted(folder.rglob("*.py")) if folder.is_dir() else []


def warning(config: Config) -> Iterator[str]:
    """Yield the line that says that code of the model's folder runs; nothing where none does."""
    if (model := config.model.pretrained) and model.trust_remote_code:
        yield f"code: Python code that comes with {model.path} runs with your rights (model.trust_remote_code=true)"
