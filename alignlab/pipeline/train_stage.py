"""Train one stage of a plan in the cache, and put its model into the folder of the run."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.config.schema import Config
from alignlab.config.settings import path_in_home
from alignlab.pipeline import fingerprint
from alignlab.pipeline import plan as planning
from alignlab.pipeline.plan import Plan, Stage
from alignlab.pipeline.provenance import provenance
from alignlab.pipeline.run_folder import FROM_TRAINING, PROVENANCE, write_json
from alignlab.runtime.cache import building
from alignlab.runtime.files import copy_sharing_weights, partial_of, write_text
from alignlab.runtime.run_files import CARD, METRICS

ADAPTER_CONFIG = "adapter_config.json"  # of PEFT

if TYPE_CHECKING:
    from alignlab.pipeline.workers import Job
    from alignlab.runtime.tracking import Tracker


def tracker(stage: Stage, config: Config, folder: Path) -> "Tracker":
    """Open the tracker of a stage; a finished stage was tracked when it was trained and gets only a JSONL file."""
    from alignlab.runtime.tracking import JsonlTracker, open_tracker

    (folder / stage.name).mkdir(parents=True, exist_ok=True)
    if stage.done:
        return JsonlTracker(folder / stage.name / METRICS)
    return open_tracker(config, stage.name, folder)


@contextmanager
def clearing(stage: Stage) -> Iterator[None]:
    """Remove the partial stage of a pruned run, which will not be resumed."""
    from alignlab.pipeline.trial_reporter import Pruned

    try:
        yield
    except Pruned:
        shutil.rmtree(partial_of(stage.folder), ignore_errors=True)
        raise


def watched(track: "Tracker", last: bool, folder: Path) -> "Tracker":
    """Add the search's reporter to the tracker of a trial's last stage."""
    from alignlab.pipeline.trial_reporter import reporter
    from alignlab.runtime.tracking import Trackers

    trial = reporter(folder) if last else None
    return Trackers([track, trial]) if trial else track


def train_stage(plan: Plan, stage: Stage, folder: Path, track: "Tracker") -> None:
    """Train a stage in the cache, unless it is finished, and put its model into the run's folder."""
    from alignlab.models import fitting
    from alignlab.pipeline import workers
    from alignlab.runtime import signals
    from alignlab.runtime.tracking import JsonlTracker, Trackers

    with ExitStack() as ended, building(stage.folder, keep_partial=True) as partial:
        if partial is not None:
            started = time.monotonic()
            read = None if any(partial.iterdir()) else planning.cost(plan.config, stage)  # None for a resumed stage
            both = Trackers([track, JsonlTracker(partial / METRICS)])
            fitting.forget()
            workers.train(job(plan, stage, partial), both)
            ended.enter_context(signals.defer_stop())  # save the trained model first
            facts = provenance(plan, stage, round(time.monotonic() - started, 1), read and read.tokens)
            write_json(partial / PROVENANCE, facts)
    shutil.rmtree(stage.folder / "checkpoints", ignore_errors=True)
    for name in ("model", "adapter"):
        if (stage.folder / name).exists():
            copy_sharing_weights(stage.folder / name, folder / name)
    name_base(folder / "adapter", base_name(plan, stage, folder))
    copy_from_training(stage.folder, folder)
    if signals.stop_requested():
        raise signals.stopped()


def copy_from_training(trained: Path, folder: Path) -> None:
    """Copy the records of a stage's training, as far as there are any, from the cache into the run's folder."""
    for name in FROM_TRAINING:
        if (trained / name).exists():
            shutil.copyfile(trained / name, folder / name)


def base_name(plan: Plan, stage: Stage, folder: Path) -> str:
    """Return the model that a stage's adapter belongs to: a hub id, a folder of the user's, or one of this run."""
    source = stage.source
    if source.name == "base":
        pretrained = plan.config.model.pretrained
        path = path_in_home(Path(pretrained.path)) if pretrained else source.path
        return str(path.absolute()) if path.exists() or not pretrained else pretrained.path
    is_stage = any(source.name == other.name for other in plan.stages)
    return str((folder.parent / source.name / "model").absolute()) if is_stage else source.name


def name_base(adapter: Path, name: str) -> None:
    """Write into an adapter's settings and its card which model it belongs to; PEFT names a folder of the cache."""
    file, card = adapter / ADAPTER_CONFIG, adapter / CARD
    if not file.exists():
        return
    settings = json.loads(file.read_text(encoding="utf-8"))
    write_text(file, json.dumps(settings | {"base_model_name_or_path": name}, indent=2))
    if card.exists():
        write_text(card, card.read_text(encoding="utf-8").replace(settings["base_model_name_or_path"], name))


def job(plan: Plan, stage: Stage, partial: Path) -> "Job":
    """Build the job that workers receive."""
    from alignlab.pipeline.workers import Job

    inputs = {need: source.path for need, source in stage.inputs.items()}
    sources = {need: source.name for need, source in stage.inputs.items()}
    return Job(
        plan.config, stage.settings, inputs, partial, stage.fingerprint, fingerprint.threads(plan.config), sources
    )
