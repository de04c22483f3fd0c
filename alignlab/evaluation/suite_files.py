"""The files of a public suite: its own `path`, or those of the folder `evaluation.data` in its known layout."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from alignlab.config.evaluation import Suite
from alignlab.config.schema import Config
from alignlab.config.settings import path_in_home
from alignlab.errors import failure, mistake
from alignlab.evaluation.replies import Item
from alignlab.runtime.progress import say

Row = TypeVar("Row")


def suite_files(config: Config, name: str, pattern: str) -> list[Path]:
    """Return the files of a suite, sorted; `pattern` is where they lie in `evaluation.data`. None may be there."""
    settings = config.measure.get(name)
    path = settings.path if isinstance(settings, Suite) else None
    if path is None:
        return data_files(config, pattern)
    place = path_in_home(Path(path))
    return sorted(place.rglob(Path(pattern).name)) if place.is_dir() else [place]


def data_files(config: Config, pattern: str) -> list[Path]:
    """Return the files in `evaluation.data` that match a pattern, sorted."""
    data = config.evaluation.data
    return sorted(path_in_home(Path(data)).glob(pattern)) if data else []


def missing(config: Config, name: str, pattern: str) -> str:
    """Return why a suite cannot be measured; an empty text where its files are there.

    Raises a `Mistake` where the suite's own `path` holds none of them.
    """
    if suite_files(config, name, pattern):
        return ""
    settings = config.measure.get(name)
    if isinstance(settings, Suite) and settings.path:
        raise mistake(
            f"measure.{name}.path", f"{settings.path} holds no {Path(pattern).name}", "give the suite's folder"
        )
    reason = f"there is no {pattern} in evaluation.data={config.evaluation.data}, and no measure.{name}.path"
    if config.evaluation.enabled:
        say_once(f"{name} is left out: {reason}")
    return reason


@cache
def say_once(line: str) -> None:
    """Print a line, unless this process has printed it."""
    say(line)


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a file, each with its place for messages; raise a `Failure` at one that cannot be read."""
    from alignlab.data.readers import read_records
    from alignlab.data.rejects import Reject

    for row in read_records(path):
        if isinstance(row, Reject):
            raise failure(f"{path}:{row.line}", row.reason, "mend the row")
        yield f"{path}:{row.line}", row.fields


def build_items(rows: Iterable[tuple[str, Row]], build: Callable[[Row, str], Item]) -> Iterator[Item]:
    """Yield the item that `build` makes of each row and its place; raise a `Failure` at a row of another form."""
    for where, row in rows:
        try:
            item = build(row, where)
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            what = f"a field of the row has another form ({type(error).__name__})"
            raise failure(where, what, "give the suite's file in its published format") from None
        yield item


def fields_of(row: dict[str, Any], where: str, *names: str) -> list[Any]:
    """Return fields of a row; raise a `Failure` that names the missing ones."""
    absent = [name for name in names if row.get(name) is None]
    if absent:
        raise failure(where, f"the row has no {', '.join(absent)}", "give the suite's file in its published format")
    return [row[name] for name in names]
