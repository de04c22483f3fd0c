"""Estimate the time of a stage from a throughput that is set, or that an earlier run measured.

Throughput cannot be predicted from the name of a machine. A finished stage with the same hardware, model and method has
its seconds and tokens in the cache. Without such a stage the time is unknown.
"""

from typing import Any, NamedTuple

from alignlab.config.method import Training
from alignlab.config.schema import Config
from alignlab.pipeline.fingerprint import finished_stages
from alignlab.pipeline.run_folder import read_metrics

TRAINING = "train/seconds"  # the metric of the seconds in the training loop
NOT_HARDWARE = {"memory_gb", "tokens_per_second", "rendezvous", "rank"}


class Throughput(NamedTuple):
    """The tokens per second of a finished stage, without loading and start-up, and its optimizer steps."""

    rate: float
    steps: int


def describe(config: Config, settings: Training, tokens: int | None) -> str:
    """Describe the time of a stage."""
    stated = config.hardware.tokens_per_second
    earlier = None if stated else measured(config, settings)
    rate = stated or (earlier and earlier.rate)
    if tokens is None or rate is None:
        return "time: unknown" + ("" if rate else "; set hardware.tokens_per_second, or finish one run here")
    steps = f", {earlier.steps:,} step{'s' * (earlier.steps != 1)} long" if earlier and earlier.steps else ""
    source = f"measured in an earlier run{steps}" if earlier else "as set"
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


def measured(config: Config, settings: Training) -> Throughput | None:
    """Return the throughput of the longest finished stage with the same method, model and hardware, or None.

    The first steps of a stage are slower than the others, so that a short stage says less of a long one.
    """
    key = throughput_key(config.model_dump(mode="json"))
    same = [
        run for run in finished_stages(settings.name) if throughput_key(run[1]["config"]) == key and run[1]["tokens"]
    ]
    if not same:
        return None
    folder, facts = max(same, key=lambda run: run[1]["tokens"] or 0)
    steps = read_metrics(folder)
    seconds = next((step.metrics[TRAINING] for step in steps if TRAINING in step.metrics), facts["seconds"])
    return Throughput((facts["tokens"] or 0) / max(seconds, 0.1), max((step.step for step in steps), default=0))


def throughput_key(config: dict[str, Any]) -> Any:
    """Return the fields that must match for a measured throughput to be reused."""
    hardware = {name: value for name, value in config["hardware"].items() if name not in NOT_HARDWARE}
    return config["model"], hardware
