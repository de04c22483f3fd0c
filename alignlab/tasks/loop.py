"""The whole loop in one command: serve, collect feedback, learn, compare, promote, serve the better model.

`experiment=feedback_loop` serves the SFT model in a process of its own. Simulated users of the pocket world ask and
judge through the HTTP API. `method=` learns from a snapshot of the feedback, and `task=promote` decides. Every step
leaves its result in `task.folder`, so that the same command resumes after a kill.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.config.compose import compose
from alignlab.config.schema import Config
from alignlab.config.task import Loop, Task
from alignlab.errors import Fault, Refused, mistake
from alignlab.pipeline.launch import run as run_task
from alignlab.pipeline.registry import Registry
from alignlab.runtime.progress import say
from alignlab.serving.requirements import check_installed

RETRAINED, STORE = "retrained", "feedback.db"


def plan(config: Config) -> Iterator[str]:
    """Yield the steps of `dry_run=true`."""
    settings = check(config)
    yield f"sft: train the first model, and register it in {settings.folder}"
    yield f"serve it, and collect {settings.feedback} feedbacks of simulated users"
    yield f"{config.method.name}: learn from them; then compare, promote, and serve the model in service"


def run(config: Config, folder: Path) -> None:
    """Run the loop; raises `Refused` where the retrained model is not better, and the first model stays in service."""
    from alignlab.pipeline.candidates import lineage
    from alignlab.serving.simulated_users import collect, served, wait_for, world_of

    settings = check(config)
    registry = Registry(settings.folder / "registry")
    first = train(sft_config(config), folder / "sft")
    if registry.current() is None:
        facts = {"candidate": {"path": str(first)}, "stages": lineage(first), "why": "the first model of the loop"}
        registry.promote(first, facts, None)
    policy = registry.model_folder(registry.entries()[0]["model"])

    with served(config, registry.folder, settings.folder / STORE) as users:
        collect(users, world_of(config), settings, config.seed)
        candidate = train(feedback_config(config, settings.folder / STORE, policy), folder / RETRAINED)
        try:
            promote(config, registry, candidate, folder / "promotion")
        finally:
            say(wait_for(users, registry, world_of(config)))


def check(config: Config) -> Loop:
    """Return the task's settings; raises a `Mistake` where there are no simulated users, or no SFT stage."""
    settings = config.task
    assert isinstance(settings, Loop)
    check_installed()
    if config.dataset.pocket_world is None:
        raise mistake("dataset", "simulated users know the pocket world alone", "use dataset=pocket, or task=serve")
    if "sft" not in config.stages:
        raise mistake("method", f"{config.method.name} does not start from the sft stage", "use dpo or kto")
    return settings


def train(config: Config, folder: Path) -> Path:
    """Train a stage, or find it in the cache; return the folder of its model."""
    return run_task(config, folder).models[config.method.name]


def sft_config(config: Config) -> Config:
    """Return the config that trains the first model."""
    return as_task(config, "train").model_copy(update={"method": config.stages["sft"], "stages": {}})


def feedback_config(config: Config, store: Path, policy: Path) -> Config:
    """Return the config that trains on feedback, from the model that it is about.

    The simulated users are few, and none of them is an attacker: their shares are not capped.
    """
    all_of_it = ("dataset.max_share=1.0", "dataset.outliers=false", "dataset.label_pairs=true")
    feedback = compose("model=scratch", "dataset=feedback", f"dataset.store={store.absolute()}", *all_of_it).dataset
    dataset = feedback.model_copy(update={"world": config.dataset.pocket_world})
    method = config.method.model_copy(update={"policy": str(policy.absolute())})
    return as_task(config, "train").model_copy(update={"dataset": dataset, "method": method, "measure": {}})


def as_task(config: Config, name: str, **changes: Any) -> Config:
    """Return a config with the settings of another task."""
    needed = [f"task.{setting}={value}" for setting, value in changes.items()]
    task: Task = compose(f"task={name}", *needed).task
    return config.model_copy(update={"task": task})


def stage_fingerprints(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the fingerprints of a model's stages: two runs that find the same stage have the same model."""
    return [stage["fingerprint"] for stage in stages]


def promote(config: Config, registry: Registry, candidate: Path, folder: Path) -> None:
    """Put the candidate into service if it is better, or raise `Refused`; a candidate is decided on once."""
    from alignlab.pipeline.candidates import lineage
    from alignlab.reports.comparison_page import table

    fingerprints = stage_fingerprints(lineage(candidate))
    for entry in registry.entries():
        if fingerprints == stage_fingerprints(entry["facts"].get("stages", [])):
            where = f"{registry.folder}: {candidate}"
            if entry["action"] == "refused":
                raise Refused([Fault(where, "was refused before", f"see {entry['facts']['evaluation']}")])
            say(f"{where} was promoted before, as version {entry['version']}")
            return
    refused = None
    try:
        run_task(as_task(config, "promote", model=candidate, registry=registry.folder), folder)
    except Refused as error:
        refused = error
    print(table(folder))
    if refused:
        raise refused
