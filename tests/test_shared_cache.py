"""A cache that several users share, and temporary files that a kill leaves."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from alignlab.errors import Failure
from alignlab.runtime import cache, temporary_files
from alignlab.runtime.cache import building, is_intact

NOBODY = 65534


def as_nobody(work) -> int:
    """Call a function in a child process without rights; return its exit code."""
    child = os.fork()
    if not child:
        os.seteuid(NOBODY)
        try:
            os._exit(0 if work() else 1)
        except Failure as error:
            os._exit(2 if "set ALIGNLAB_CACHE" in str(error) else 3)
        except BaseException:
            os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def shared():
    if os.geteuid():
        pytest.skip("only root can act as another user")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def build(final: Path) -> bool:
    """Build a folder with a file that its library keeps from others; return whether it was there."""
    with building(final) as folder:
        if folder is not None:
            (folder / "model.safetensors").write_text("1234")
            (folder / "model.safetensors").chmod(0o600)
    return folder is None


def test_a_finished_stage_needs_no_permission_to_write(shared, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(shared))
    before = os.umask(0o022)
    try:
        assert not build(shared / "stages" / "sft")
    finally:
        os.umask(before)
    assert stat.S_IMODE((shared / "stages/sft/model.safetensors").stat().st_mode) == 0o644
    cache._faults.clear()
    assert as_nobody(lambda: is_intact(shared / "stages" / "sft") and build(shared / "stages" / "sft")) == 0
    assert as_nobody(lambda: build(shared / "stages" / "ppo")) == 2
    (shared / "stages/sft/model.safetensors").write_text("1235")
    assert as_nobody(lambda: build(shared / "stages" / "sft")) == 2


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o002])
def test_files_have_the_permissions_of_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        build(tmp_path / "sft")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "sft").iterdir()}
    assert modes == {0o666 & ~mask}


KILLED = """
import tempfile, time
from alignlab.runtime.temporary_files import temporary_files
with temporary_files():
    tempfile.mkdtemp("wandb-media")
    print(tempfile.gettempdir(), flush=True)
    time.sleep(60)
"""


def test_the_next_run_removes_what_a_killed_one_left(monkeypatch):
    with tempfile.TemporaryDirectory() as parent:
        monkeypatch.setattr(tempfile, "tempdir", parent)
        monkeypatch.setattr(temporary_files, "_folder", [])
        environment = os.environ | {"TMPDIR": parent}
        with subprocess.Popen([sys.executable, "-c", KILLED], env=environment, stdout=subprocess.PIPE) as running:
            left = Path(running.stdout.readline().decode().strip())
            temporary_files.remove_abandoned(Path(parent))
            assert left.is_dir()  # its owner lives
            running.send_signal(signal.SIGKILL)
        assert left.parent == Path(parent)
        with temporary_files.temporary_files():
            assert not left.exists()
            assert Path(tempfile.mkdtemp()).parent.parent == Path(parent)
