"""What was read of source files, kept in the cache: to parse the package takes a second or two in each command.

An entry is found by the hash of a file's content, so an old one is never wrong. The name of the entries' file holds the
version of Python and the hash of the code that parses. Where it cannot be written, everything is parsed again.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from sys import implementation
from typing import NamedTuple

from alignlab.config import user_function
from alignlab.config.user_function import ImportStatement
from alignlab.runtime import manifest
from alignlab.runtime.files import cache_root

MOST = 2000  # entries that are kept; with more, those of old versions of the files are too many


class Source(NamedTuple):
    """The hash of a file's syntax, and its imports."""

    syntax: str
    imports: list[ImportStatement]


class Entries(NamedTuple):
    """The entries by the hash of a file's content, and those that are not saved yet."""

    saved: dict[str, Source]
    new: dict[str, Source]


def get(content_hash: str, parse: Callable[[], Source]) -> Source:
    """Return the entry of a content; parse it if there is none."""
    saved, new = entries()
    if content_hash not in saved and content_hash not in new:
        new[content_hash] = parse()
    return saved.get(content_hash) or new[content_hash]


def save() -> None:
    """Write the entries if there are new ones."""
    saved, new = entries()
    if not new:
        return
    if len(saved) + len(new) > MOST:
        saved.clear()
    saved.update(new)
    new.clear()
    with suppress(OSError):  # a cache that only its owner may write
        manifest.write_sealed(place(), json.dumps(saved))


@cache
def entries() -> Entries:
    """Read the entries; none where the file is absent or damaged."""
    try:
        rows = json.loads(place().read_text(encoding="utf-8")) if manifest.is_sealed(place()) else {}
        saved = {
            key: Source(syntax, [ImportStatement(*one) for one in imports]) for key, (syntax, imports) in rows.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        saved = {}
    return Entries(saved, {})


def place() -> Path:
    """Return the file of the entries."""
    parser = sha256(Path(user_function.__file__).read_bytes() + Path(__file__).with_name("source_hash.py").read_bytes())
    return cache_root() / "sources" / f"{implementation.cache_tag}-{parser.hexdigest()[:16]}.json"
