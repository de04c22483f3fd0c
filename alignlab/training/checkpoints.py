"""Checkpoints that are complete and undamaged, or ignored.

The Trainer writes a checkpoint file by file, each process its own. When all are written, training continues, and a
thread of the first process flushes the files to the disk. It then writes `whole.json`, the manifest of the checkpoint.
A checkpoint without that record was cut short by a crash. One whose files differ from it is damaged. Neither is resumed
from. Older checkpoints are removed after that, except the newest ones and the best.
"""

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME

from alignlab.errors import failure
from alignlab.runtime import distributed, manifest, signals
from alignlab.runtime.file_errors import explained_file_errors
from alignlab.runtime.files import sync
from alignlab.runtime.progress import say

WHOLE = "whole.json"


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Completes each checkpoint, keeps `limit` of them, and stops training when the process is asked to stop.

    `every` is the number of optimizer steps after which there is a state to save.
    """

    def __init__(self, limit: int, every: int = 1) -> None:
        self.limit, self.every = limit, every
        self.stopped = False  # training was asked to stop, and did
        self.thread = ThreadPoolExecutor(1, "checkpoint")
        self.last: Future[None] | None = None  # the checkpoint that the thread completes, or completed last

    @contextmanager
    def open(self) -> Iterator[None]:
        """Make sure that every checkpoint is on the disk at the end of the block, however it ends."""
        with self.thread:
            yield
            self.wait()
        distributed.barrier()

    def wait(self) -> None:
        """Wait for the thread; raises the error that it met."""
        if self.last is not None:
            self.last.result()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.every == 0 and distributed.any_process(signals.stop_requested()):
            self.stopped = control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        distributed.barrier()
        if distributed.is_first():
            self.wait()
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            self.last = self.thread.submit(
                complete_and_clear, folder, record_of_processes(), self.limit, state.best_model_checkpoint
            )


def complete_and_clear(checkpoint: Path, record: dict[str, Any], limit: int, best: str | None) -> None:
    """Complete a checkpoint, then remove older ones."""
    complete(checkpoint, record)
    clear(checkpoint.parent, limit, best)


def record_of_processes() -> dict[str, Any]:
    """Return which processes write a checkpoint: their number, and the kind of hardware."""
    return {"processes": distributed.world_size(), "kind": distributed.checkpoint_layout()}


def complete(checkpoint: Path, record: dict[str, Any]) -> None:
    """Flush a checkpoint to the disk and write its record: `record_of_processes` and the manifest of its files."""
    with explained_file_errors(checkpoint):
        sync(checkpoint)
        manifest.write(checkpoint, WHOLE, **record)
        for folder in (checkpoint, checkpoint.parent):
            flush(folder)


def flush(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_complete(checkpoint: Path) -> bool:
    """Return whether a checkpoint has all its files, each of the recorded size."""
    return manifest.fault(checkpoint, WHOLE, contents=False) is None


def has_other_shards(checkpoint: str | None) -> bool:
    """Return whether a checkpoint is in shards of another number of processes."""
    record = manifest.read(Path(checkpoint), WHOLE) if checkpoint else {}
    return record.get("kind", "").startswith("zero") and record["processes"] != distributed.world_size()


def reshard(checkpoint: Path) -> None:
    """Let DeepSpeed convert its checkpoint so that any number of processes can read it; the first process does it."""
    if distributed.is_first():
        from deepspeed.checkpoint import ds_to_universal

        step = (checkpoint / "latest").read_text(encoding="utf-8").strip()
        folder = checkpoint / f"{step}_universal"
        shutil.rmtree(folder, ignore_errors=True)
        options = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False, "strict": True}
        paths = {"input_folder": str(checkpoint / step), "output_folder": str(folder)}
        with redirect_stdout(StringIO()):
            ds_to_universal.main(SimpleNamespace(**options, **paths, inject_missing_state=True))
    distributed.barrier()


def newest_first(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, newest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2]))


def clear(folder: Path, limit: int, best: str | None) -> None:
    """Remove the complete checkpoints other than the `limit` newest ones and the best."""
    for old in [checkpoint for checkpoint in newest_first(folder) if is_complete(checkpoint)][limit:]:
        if best is None or old.name != Path(best).name:
            shutil.rmtree(old)


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest undamaged checkpoint; the first process removes newer ones that are damaged or were cut short.

    Raises a `Failure` where it was written under another kind of hardware.
    """
    if distributed.is_first():
        remove_damaged(folder)
    distributed.barrier()
    last = next(iter(newest_first(folder)), None)
    if last is None:
        return None
    if (kind := manifest.read(last, WHOLE).get("kind")) != distributed.checkpoint_layout():
        now = f"resume with hardware={kind}, or remove {folder.parent} to start again"
        raise failure(str(last), f"was written under hardware={kind}", now)
    return str(last)


def fault_of(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, or with the best one, which training loads at its end."""
    if fault := manifest.fault(checkpoint, WHOLE):
        return fault
    state = checkpoint / TRAINER_STATE_NAME
    best = json.loads(state.read_text(encoding="utf-8")).get("best_model_checkpoint") if state.exists() else None
    if best and (fault := manifest.fault(checkpoint.with_name(Path(best).name), WHOLE)):
        return f"the best checkpoint, {Path(best).name}, is damaged ({fault})"
    return None


def remove_damaged(folder: Path) -> None:
    """Remove the newest checkpoints until one is undamaged; say which were damaged."""
    for checkpoint in newest_first(folder):
        if (fault := fault_of(checkpoint)) is None:
            return
        if (checkpoint / WHOLE).exists():  # otherwise a crash cut it short
            say(f"{checkpoint}: {fault}; training resumes from an earlier one")
        shutil.rmtree(checkpoint)
