"""Run `python -m alignlab` as a user does."""

import signal
import subprocess
import sys
from pathlib import Path

from alignlab.config.compose import bind_tree, check
from alignlab.config.schema import Config

ROOT = Path(__file__).parent.parent


def alignlab(*arguments: str, folder: Path, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    """The command, in a folder of its own."""
    command = [sys.executable, "-m", "alignlab", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout)


def config(*overrides: str) -> Config:
    """A bound config, composed in this process."""
    return bind_tree(check(list(overrides), binds=False).trees[0])


def heed_signals() -> None:
    """Undo, in a child process, what a job in the background or under nohup inherits: signals that are ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
