"""The folder of a run: the names of its files, and the link to the latest one."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.errors import failure

if TYPE_CHECKING:
    pass


DAY = re.compile(r"\d{4}-\d\d-\d\d")  # a run lies in a folder of its day


def point_latest(folder: Path) -> None:
    """Let `outputs/latest` point to this run."""
    latest = folder.absolute().parent.parent / "latest"
    if not DAY.fullmatch(folder.absolute().parent.name):
        return  # a sweep's job, or a folder that the user has named
    aside = latest.with_name(f".latest.{folder.name}")
    try:
        aside.symlink_to(folder.absolute())
        aside.replace(latest)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise failure(str(latest), f"cannot point to the run ({error.strerror})", "remove it") from error
