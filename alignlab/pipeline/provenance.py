"""Record the provenance of a result: a config that repeats the run, versions, git commit, hashes."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import alignlab
from alignlab.config.schema import Config
from alignlab.data import content
from alignlab.models.references import Source
from alignlab.pipeline.fingerprint import parts, threads
from alignlab.pipeline.plan import Plan, Stage
from alignlab.pipeline.run_folder import Provenance
from alignlab.runtime.source_hash import hash_with_imports

# Groups whose option a saved config does not name.
NOT_REPEATED = {"experiment", "sweep", "task", "constitution", "judge", "measure"}


def repeatable(config: Config) -> str:
    """Return the config as an experiment: `python -m alignlab experiment=<this file>` repeats the run."""
    from omegaconf import OmegaConf

    chosen = {group: option for group, option in config.choices.items() if not group.startswith("hydra/")}
    groups: list[Any] = [
        {f"override /{group}": option}
        for group, option in chosen.items()
        if group not in NOT_REPEATED and "@" not in group
    ]
    groups.append({"override /measure": list(config.measure)})  # Hydra does not record a choice of several options
    tree = {"defaults": [*groups, "_self_"], **config.model_dump(mode="json")}
    return "# @package _global_\n" + OmegaConf.to_yaml(OmegaConf.create(tree))


def provenance(plan: Plan, stage: Stage, seconds: float, tokens: int | None) -> Provenance:
    """Return the provenance of a stage's weights, and the seconds and tokens of its training."""
    sources = hash_with_imports(stage.method().module)
    facts = record(plan.config, stage.name, stage.fingerprint, stage.inputs, sources, seconds, tokens)
    return {**facts, "parts": parts(plan.config, stage.settings, stage.inputs)}


def record(
    config: Config,
    stage: str,
    fingerprint: str,
    inputs: Mapping[str, Source],
    sources: str,
    seconds: float,
    tokens: int | None = None,
) -> Provenance:
    """Return the provenance of a result; `sources` is the hash of the code that made it."""
    return {
        "stage": stage,
        "fingerprint": fingerprint,
        "inputs": {need: source._asdict() | {"path": str(source.path)} for need, source in inputs.items()},
        "base": base_commit(config),
        "seed": config.seed,
        "data": content(config.dataset),
        "sources": sources,
        "threads": threads(config),
        "config": config.model_dump(mode="json"),
        "alignlab": alignlab.__version__,
        "packages": {d.metadata["Name"]: d.version for d in sorted(distributions(), key=lambda d: d.metadata["Name"])},
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor_count": os.cpu_count(),
        "git": git_state(Path(alignlab.__file__).parent),
        "seconds": seconds,
        "tokens": tokens,
        "feedback_from": config.dataset.feedback_from,
    }


def base_commit(config: Config) -> str | None:
    """Return the commit of the base model on the hub; None for other models."""
    from alignlab.models.pretrained import commit

    return commit(config.model.pretrained) if config.model.pretrained else None


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit of the sources and whether they differ from it; None outside a checkout."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
