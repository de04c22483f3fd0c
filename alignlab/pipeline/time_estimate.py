"""Estimate the time of a stage from a throughput that is set, or that an earlier run measured.

Throughput cannot be predicted from the name of a machine. A finished stage with the same hardware, model and method has
its seconds and tokens in the cache. Without such a stage the time is unknown.
"""

from typing import Any

from alignlab.config.method import Training
from alignlab.config.schema import Config
from alignlab.pipeline.run_folder import PROVENANCE, read_provenance
from alignlab.runtime.files import cache_root

NOT_HARDWARE = {"memory_gb", "tokens_per_second", "rendezvous", "rank"}


def describe(config: Config, settings: Training, tokens: int | None) -> str:
    """Describe the time of a stage."""
    rate = config.hardware.tokens_per_second or measured(config, settings)
    if tokens is None or rate is None:
        return "time: unknown" + ("" if rate else "; set hardware.tokens_per_second, or finish one run here")
    source = "as set" if config.hardware.tokens_per_second else "measured in an earlier run"
    return f"time: about {in_words(tokens / rate)} ({rate:,.0f} tokens per second, {source})"


def in_words(seconds: float) -> str:
    """Return a duration in its largest units."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 48 else f"{round(minutes / 1440)} days"


def measured(config: Config, settings: Training) -> float | None:
    """Return the tokens per second of the newest stage with the same method, model and hardware, or None."""
    files = (cache_root() / "stages").glob(f"{settings.name}-*/{PROVENANCE}")
    for file in sorted(files, key=lambda file: -file.stat().st_mtime):
        facts = read_provenance(file.parent)
        same = throughput_key(facts["config"]) == throughput_key(config.model_dump(mode="json"))
        if same and facts["tokens"] and facts["seconds"] > 0:
            return facts["tokens"] / facts["seconds"]
    return None


def throughput_key(config: dict[str, Any]) -> Any:
    """Return the fields that must match for a measured throughput to be reused."""
    hardware = {name: value for name, value in config["hardware"].items() if name not in NOT_HARDWARE}
    return config["model"], hardware
