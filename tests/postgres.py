"""A real PostgreSQL for tests: started from the installed packages, or skipped."""

import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import ROOT


@contextmanager
def postgres(folder):
    """The URL of a server of its own."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("PostgreSQL is not installed; make postgres installs it")
    for each in (folder, *folder.parents):  # its owner has to reach its folder
        if each.owner() != "root" or each == Path("/tmp"):
            break
        each.chmod(each.stat().st_mode | 0o011)
    script = [str(ROOT / "deploy" / "postgres.sh")]
    started = subprocess.run([*script, "start", str(folder / "pg")], capture_output=True, text=True, timeout=120)
    assert started.returncode == 0, started.stderr
    try:
        yield started.stdout.strip()
    finally:
        subprocess.run([*script, "stop", str(folder / "pg")], capture_output=True, timeout=60)
