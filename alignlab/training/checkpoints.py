"""Checkpoints that are whole or not there.

The Trainer writes a checkpoint file by file, every process its own. When all have, the training goes on, and a thread
of the first process flushes the files to the disk. Then it writes `whole.json` with every file's size: a checkpoint
without it, or whose files are not as long as it says, was cut short, and the one before it counts. Only then are older
ones removed, all but the newest and the best.
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

from alignlab.errors import failure
from alignlab.runtime import distributed, signals
from alignlab.runtime.files import is_full, no_room, sync, write_text

WHOLE = "whole.json"


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Completes each checkpoint, keeps `limit` of them, and stops the training when the process is asked to.

    `every` says after how many steps there is something to save.
    """

    def __init__(self, limit: int, every: int = 1) -> None:
        self.limit, self.every = limit, every
        self.stopped = False
        self.thread = ThreadPoolExecutor(1, "checkpoint")
        self.last: Future[None] | None = None

    @contextmanager
    def open(self) -> Iterator[None]:
        """Have every checkpoint on the disk when this ends, however it does."""
        with self.thread:
            yield
            self.wait()
        distributed.wait()

    def wait(self) -> None:
        """Wait for the checkpoint that is on its way to the disk; raises what went wrong there."""
        if self.last is not None:
            self.last.result()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.every == 0 and distributed.any_of(signals.asked()):
            self.stopped = control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        distributed.wait()
        if distributed.is_first():
            self.wait()
            folder = Path(args.output_dir)
            self.last = self.thread.submit(
                keep, folder / f"checkpoint-{state.global_step}", about(), self.limit, state.best_model_checkpoint
            )


def keep(checkpoint: Path, made: dict[str, Any], limit: int, best: str | None) -> None:
    """Complete a checkpoint, and remove the older ones that count no more."""
    complete(checkpoint, made)
    clear(checkpoint.parent, limit, best)


def about() -> dict[str, Any]:
    """What a checkpoint of these processes says of itself."""
    return {"processes": distributed.world(), "kind": distributed.kind()}


def complete(checkpoint: Path, made: dict[str, Any]) -> None:
    """Say that a checkpoint is written to its end, and who has made it (`about`)."""
    try:
        sync(checkpoint)
        sizes = {str(path.relative_to(checkpoint)): path.stat().st_size for path in files(checkpoint)}
        write_text(checkpoint / WHOLE, json.dumps(made | {"files": sizes}, indent=1))
        for folder in (checkpoint, checkpoint.parent):
            flush(folder)
    except OSError as error:
        if is_full(error):
            raise no_room(checkpoint) from error
        raise


def flush(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def files(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint, less its mark."""
    return sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != WHOLE)


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint is there to its end."""
    sizes = mark(checkpoint).get("files", {})
    return bool(sizes) and all(
        (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size for name, size in sizes.items()
    )


def mark(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of itself; nothing where it was cut short."""
    try:
        found: dict[str, Any] = json.loads((checkpoint / WHOLE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def is_moved(checkpoint: str | None) -> bool:
    """Whether a checkpoint was written by another number of processes, each a share."""
    made = mark(Path(checkpoint)) if checkpoint else {}
    return made.get("kind", "").startswith("zero") and made["processes"] != distributed.world()


def reshard(checkpoint: Path) -> None:
    """Let DeepSpeed write its checkpoint in the form that any number of processes can read; the first one does."""
    if distributed.is_first():
        from deepspeed.checkpoint import ds_to_universal

        step = (checkpoint / "latest").read_text(encoding="utf-8").strip()
        folder = checkpoint / f"{step}_universal"
        shutil.rmtree(folder, ignore_errors=True)
        own = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False, "strict": True}
        paths = {"input_folder": str(checkpoint / step), "output_folder": str(folder)}
        with redirect_stdout(StringIO()):
            ds_to_universal.main(SimpleNamespace(**own, **paths, inject_missing_state=True))
    distributed.wait()


def by_age(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2]))


def clear(folder: Path, limit: int, best: str | None) -> None:
    """Remove the whole checkpoints that are neither among the newest ones nor the best; one may be on its way."""
    for old in [checkpoint for checkpoint in by_age(folder) if is_whole(checkpoint)][limit:]:
        if best is None or old.name != Path(best).name:
            shutil.rmtree(old)


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; those that were cut short are removed."""
    for checkpoint in by_age(folder):
        if is_whole(checkpoint):
            if (kind := mark(checkpoint).get("kind")) != distributed.kind():
                now = f"go on with hardware={kind}, or remove {folder.parent} to begin anew"
                raise failure(str(checkpoint), f"was written under hardware={kind}", now)
            return str(checkpoint)
        if distributed.is_first():
            shutil.rmtree(checkpoint)
    return None
