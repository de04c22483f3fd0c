"""The fingerprint of a stage: the hash of everything that decides its weights, by which it is found in the cache.

It covers the stage's settings, the model and the data by content, the fingerprints of its inputs, seed, precision,
threads, the sources of the modules that it imports, and the versions of the libraries. Tracking, evaluation and folders
are not part of it. The parts are kept with a finished stage, so that a plan can say why it is not reused.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignlab.config import extensions
from alignlab.config.method import Method
from alignlab.config.method_protocol import load_method
from alignlab.config.schema import Config
from alignlab.errors import Failure
from alignlab.models.references import Source
from alignlab.pipeline.model_references import REWARD, judge_hash
from alignlab.pipeline.run_folder import PROVENANCE, Provenance, read_provenance
from alignlab.rewards.reward_hash import reward_hash
from alignlab.runtime.files import cache_root, digest
from alignlab.runtime.source_hash import hash_with_imports
from alignlab.runtime.worker_pool import usable_cores

LIBRARIES = ("torch", "transformers", "trl", "peft")
NOT_IN_FINGERPRINT = {
    "push_to_hub",
    "hub_model_id",
    "logging_steps",
    "save_steps",
    "save_total_limit",
    "gates",
    "offload",
    "vllm",
}
NAMES = {  # of parts that have no settings' names of their own
    "dataset/0": "data",
    "dataset/1": "dataset.learn",
    "dataset/2": "dataset.label_pairs",
    "dataset/3": "the code that reads the data",
    "dataset/4": "the code of a view",
    "arithmetic/0": "device",
    "arithmetic/1": "precision",
    "arithmetic/2": "threads",
    "arithmetic/3": "the library of matrix products",
    "sources": "the code of the method",
    "judge": "the code of the judge",
}
MOST_CHANGES = 4  # that the plan names
HASH = re.compile(r"(\w+-)?[0-9a-f]{16}")  # says nothing to a reader


def of_stage(config: Config, settings: Method, inputs: Mapping[str, Source]) -> str:
    """Return the fingerprint of a stage."""
    return digest(*parts(config, settings, inputs).values())


def parts(config: Config, settings: Method, inputs: Mapping[str, Source]) -> dict[str, Any]:
    """Return everything that decides a stage's weights, by name."""
    from alignlab.data import content, module_name
    from alignlab.data.views import view_names

    views = sorted({*view_names(), load_method(settings.name).view})
    dataset = [
        content(config.dataset),
        getattr(config.dataset, "learn", None),
        getattr(config.dataset, "label_pairs", None),
        hash_with_imports(module_name(config.dataset)),
        digest([hash_with_imports(extensions.name_of("views", name)) for name in views]),
    ]
    own_code = {"model.trust_remote_code": True} if config.model.runs_own_code else {}
    return own_code | {
        "method": settings.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT),
        "model.adapter": config.model.adapter.model_dump(mode="json") if config.model.adapter else None,
        "model.attn_implementation": config.model.attention,
        "dataset": dataset,
        "inputs": {need: source.fingerprint for need, source in inputs.items()},
        "reward": reward_hash(config.reward) if REWARD in load_method(settings.name).needs else None,
        "judge": judge_hash(settings),
        "seed": config.seed,
        "arithmetic": arithmetic(config),
        "hardware.micro_batch_size": config.hardware.micro_batch_size,
        "hardware.layout": config.hardware.layout,
        "sources": hash_with_imports(load_method(settings.name).module),
        "version of": versions(),
    }


def arithmetic(config: Config) -> list[Any]:
    """Return what decides how numbers are rounded: the device and the precision; on a CPU threads and products, too."""
    from alignlab.models.load import device_type, precision_name
    from alignlab.runtime.matmul import library

    device, precision = device_type(config.hardware), f"torch.{precision_name(config.hardware)}"
    return [device, precision, *([threads(config), library(config.hardware.matmul)] if device == "cpu" else [])]


def threads(config: Config) -> int:
    """Return the CPU threads: as set, else OMP_NUM_THREADS, else the cores that this process may use."""
    count = config.hardware.threads or os.environ.get("OMP_NUM_THREADS")
    return int(count) if count else usable_cores()


def versions() -> dict[str, str]:
    """Return the versions of the libraries that decide a stage's weights."""
    from importlib.metadata import version

    return {name: version(name) for name in LIBRARIES}


def describe_change(config: Config, settings: Method, inputs: Mapping[str, Source]) -> Iterator[str]:
    """Yield the line of the plan that says what differs from the nearest finished stage of the same method."""
    now = flat(json.loads(json.dumps(parts(config, settings, inputs), default=str)))
    kept = (facts.get("parts") for _, facts in finished_stages(settings.name))
    changes = [changed(flat(before), now) for before in kept if before]
    if nearest := min(filter(None, changes), key=len, default=[]):
        more = f" and {len(nearest) - MOST_CHANGES} more" if len(nearest) > MOST_CHANGES else ""
        yield f"not reused: {', '.join(nearest[:MOST_CHANGES])}{more}"


def finished_stages(method: str) -> Iterator[tuple[Path, Provenance]]:
    """Yield the folder and the provenance of every finished stage of a method, the newest first; no damaged ones."""
    files = (cache_root() / "stages").glob(f"{method}-*/{PROVENANCE}")
    for file in sorted(files, key=lambda file: -file.stat().st_mtime):
        if file.parent.name.endswith(".partial"):
            continue
        try:
            facts = read_provenance(file.parent)
        except Failure:
            continue
        yield file.parent, facts


def flat(tree: Any, place: str = "") -> dict[str, Any]:
    """Return the values of a tree by their places, `method.beta` or `dataset/0`."""
    if not isinstance(tree, dict | list) or not tree:
        return {place: tree}
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree)
    join = ("." if isinstance(tree, dict) else "/") if place else ""
    return {key: value for name, inner in entries for key, value in flat(inner, f"{place}{join}{name}").items()}


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in words what differs between two fingerprints; hashes are named without their values."""
    changes = [
        (place, before.get(place), now.get(place)) for place in {**now, **before} if before.get(place) != now.get(place)
    ]
    changes.sort(key=lambda change: is_hash(change[1]) or is_hash(change[2]))  # values come first
    return [in_words(*change) for change in changes]


def is_hash(value: Any) -> bool:
    """Return whether a value is a hash."""
    return isinstance(value, str) and HASH.fullmatch(value) is not None


def in_words(place: str, before: Any, now: Any) -> str:
    """Return one change in words."""
    name = NAMES.get(place, place)
    if place.startswith("inputs."):
        return f"another {place.removeprefix('inputs.')} model"
    if is_hash(before) or is_hash(now):
        return f"{name} changed"
    return f"{name} {shown(before)} → {shown(now)}"


def shown(value: Any) -> str:
    """Return a value as YAML writes it, shortened."""
    text = "null" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}…"
