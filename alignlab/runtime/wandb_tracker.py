"""Log to Weights & Biases: one W&B run per stage; the stages of a run form a group.

W&B is offline unless the config or WANDB_MODE says otherwise. A server that does not answer costs a warning, and the
run continues offline.
"""

import netrc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from alignlab.config.schema import Config
from alignlab.runtime.files import cache_root
from alignlab.runtime.progress import say
from alignlab.runtime.tracking import REACH_SECONDS, is_reachable

if TYPE_CHECKING:
    import wandb

START_SECONDS = 2.5  # for W&B to open a run; with REACH_SECONDS under five seconds together


def open_tracker(config: Config, stage: str, folder: Path) -> "WandbTracker | None":
    """Open a W&B run; None where W&B is disabled."""
    return None if mode(config) == "disabled" else WandbTracker(config, stage, folder)


class WandbTracker:
    """A W&B run."""

    def __init__(self, config: Config, stage: str, folder: Path) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # otherwise W&B reports its own errors, offline too
        for purpose in ("DATA", "CACHE"):
            os.environ.setdefault(f"WANDB_{purpose}_DIR", str(cache_root() / "wandb"))
        options = run_options(config, stage, folder)
        self.run = start_online(options) if mode(config) == "online" else start_offline(options)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.run.log(dict(metrics), step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        self.run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def summary(self, values: dict[str, float]) -> None:
        self.run.summary.update(values)

    def close(self) -> None:
        self.run.finish()


def abandon() -> None:
    """Forget W&B's process after an error, so that the end of this process does not wait for it."""
    import wandb

    wandb.teardown()


def run_options(config: Config, stage: str, folder: Path) -> dict[str, Any]:
    """Return the options of `wandb.init`, except the mode."""
    import wandb

    tracking = config.tracking
    name = tracking.name or folder.parent.name
    return {
        "project": tracking.project,
        "entity": tracking.entity,
        "name": f"{name}-{stage}",
        "group": name,
        "job_type": stage,
        "tags": list(tracking.tags),
        "dir": str(folder),
        "config": config.model_dump(mode="json"),
        "settings": wandb.Settings(
            init_timeout=START_SECONDS, silent=True, console="off", disable_git=True, save_code=False
        ),
    }


def mode(config: Config) -> str:
    """Return offline, online or disabled: WANDB_MODE, else the config's value."""
    return os.environ.get("WANDB_MODE") or config.tracking.mode


def start_offline(options: dict[str, Any]) -> "wandb.Run":
    """Start a run that stays in the run's folder."""
    import wandb

    return wandb.init(mode="offline", **options)


def start_online(options: dict[str, Any]) -> "wandb.Run":
    """Start a run that is uploaded as it goes; where that fails within five seconds, warn and start offline."""
    import wandb

    server = wandb.setup().settings.base_url
    if not has_key(server):
        reason = "no key is there (set WANDB_API_KEY)"
    elif not is_reachable(server, REACH_SECONDS):
        reason = f"{server} does not answer"
    else:
        try:
            return wandb.init(mode="online", **options)
        except wandb.errors.Error as error:
            reason = str(error).splitlines()[0]
    say(f"tracking: W&B continues offline: {reason}; `wandb sync` uploads the run later")
    return start_offline(options)


def has_key(server: str) -> bool:
    """Return whether the environment or the netrc file holds a key for W&B, which W&B reads itself."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(server).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False
