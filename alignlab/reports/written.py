"""Write a page without losing the results that it would show."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from alignlab.runtime.worker_errors import must_reach_run


def try_to_write(what: str, write: Callable[[], Path | None]) -> Iterator[str]:
    """Write a page and yield its path; where that fails, print why, since the results must not be lost with it."""
    try:
        page = write()
    except Exception as error:
        if must_reach_run(error):
            raise
        print(f"{what} was not written: {type(error).__name__}: {error}; the results are saved", file=sys.stderr)
    else:
        yield from [str(page)] if page else []
