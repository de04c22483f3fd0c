"""Log to Weights & Biases: one W&B run per stage; the stages of a run, or all runs of a sweep, form a group.

Tables grow row by row and are keyed by item id. Each stage's model is an artifact whose metadata names the digests of
the models and the data that it was made from; online the runs are linked to them, too.

W&B is offline unless the config or WANDB_MODE says otherwise. A server that does not answer costs a warning, and the
run continues offline.
"""

import netrc
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from alignlab.config.schema import Config
from alignlab.runtime.files import cache_root
from alignlab.runtime.progress import say
from alignlab.runtime.tracking import REACH_SECONDS, InputModel, StageEnd, is_reachable, run_names

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
        self.stage, self.upload = stage, config.tracking.upload
        self.tables: dict[str, wandb.Table] = {}

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.run.log(dict(metrics), step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        table = self.tables.get(name)
        if table is None or table.columns != list(columns):
            table = self.tables[name] = wandb.Table(columns=list(columns), log_mode="INCREMENTAL")
        for row in rows:
            table.add_data(*row)
        self.run.log({name: table})

    def summary(self, values: dict[str, float]) -> None:
        self.run.summary.update(values)

    def end(self, ended: StageEnd) -> None:
        import wandb

        for gate in ended.gates:
            text = (
                f"{self.stage}, step {gate['step']}: {gate['what']} is {gate['number']:.3g} and must be {gate['bound']}"
            )
            self.run.alert(f"{gate['gate']} triggered"[:63], text, level="WARN")
        if ended.model is None:
            return
        inputs = {need: self.input(need, source) for need, source in ended.inputs.items()}
        facts = {"fingerprint": ended.fingerprint, "inputs": inputs, "data": self.data(ended.data)}
        self.run.config.update(facts, allow_val_change=True)
        self.run.log_artifact(model_artifact(self.stage, ended.model, self.upload, facts), aliases=[ended.fingerprint])
        self.run.log({name: wandb.Image(picture) for name, picture in ended.pictures().items()})

    def input(self, need: str, source: InputModel) -> dict[str, str]:
        """Return what identifies a model that the stage started from; online the run is linked to its artifact."""
        artifact = model_artifact(source.name, source.path, self.upload, {"fingerprint": source.fingerprint})
        self.use(artifact)
        return {"artifact": artifact.name, "digest": artifact.digest, "fingerprint": source.fingerprint}

    def data(self, digest: str) -> dict[str, str]:
        """Return what identifies the rows that the stage was trained on; offline their artifact is logged."""
        import wandb

        artifact = wandb.Artifact("data", type="dataset", metadata={"hash": digest})
        with artifact.new_file("hash.txt") as stream:
            stream.write(digest)
        if not self.use(artifact):
            self.run.log_artifact(artifact)
        return {"artifact": "data", "digest": artifact.digest, "hash": digest}

    def use(self, artifact: "wandb.Artifact") -> bool:
        """Link the run to an artifact that it started from; return False offline, where W&B has no such links."""
        if self.run.offline:
            return False
        self.run.use_artifact(artifact)
        return True

    def close(self) -> None:
        self.run.finish()


def abandon() -> None:
    """Forget W&B's process after an error, so that the end of this process does not wait for it."""
    import wandb

    wandb.teardown()


def run_options(config: Config, stage: str, folder: Path) -> dict[str, Any]:
    """Return the options of `wandb.init`, except the mode."""
    import wandb

    tracking, names = config.tracking, run_names(config, folder.parent)
    return {
        "project": tracking.project,
        "entity": tracking.entity,
        "name": f"{names.run}-{stage}",
        "group": names.group,
        "job_type": stage,
        "tags": [*tracking.tags, f"seed {config.seed}"],
        "dir": str(folder),
        "config": config.model_dump(mode="json"),
        "settings": wandb.Settings(
            init_timeout=START_SECONDS, silent=True, console="off", disable_git=True, save_code=False
        ),
    }


def model_artifact(name: str, folder: Path, upload: bool, metadata: dict[str, Any]) -> "wandb.Artifact":
    """Build the artifact of a model: its files, or the digests of its files and where they lie."""
    import wandb

    allowed = re.sub(r"[^\w.-]", "-", name)
    artifact = wandb.Artifact(f"model-{allowed}", type="model", metadata=metadata)
    if upload:
        artifact.add_dir(str(folder), policy="immutable")
    else:
        artifact.add_reference(folder.absolute().as_uri())
    return artifact


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
