"""How long a stage will take: from a throughput that is given or was measured, and otherwise unknown.

What a machine does in a second cannot be guessed from its name. A stage that has run on the same hardware, with the
same model and method, has left in the cache how long it took.
"""

from typing import Any

from alignlab.config.method import Training
from alignlab.config.schema import Config
from alignlab.pipeline.run_folder import PROVENANCE, read_provenance
from alignlab.runtime.files import cache_root

NOT_HARDWARE = {"memory_gb", "tokens_per_second", "rendezvous", "rank"}


def told(config: Config, settings: Training, tokens: int | None) -> str:
    """The time of a stage in words."""
    given = config.hardware.tokens_per_second
    rate = given or measured(config, settings)
    if tokens is None or rate is None:
        return "time: unknown" + (
            "" if rate else "; hardware.tokens_per_second=… tells it, or a run that has ended here"
        )
    source = "as given" if given else "as an earlier run had"
    return f"time: about {in_words(tokens / rate)} ({rate:,.0f} tokens a second, {source})"


def in_words(seconds: float) -> str:
    """A duration in the two largest units that say something."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 48 else f"{round(minutes / 1440)} days"


def measured(config: Config, settings: Training) -> float | None:
    """Tokens a second of the newest finished stage of the same method, model and hardware; None where there is none."""
    files = (cache_root() / "stages").glob(f"{settings.name}-*/{PROVENANCE}")
    for file in sorted(files, key=lambda file: -file.stat().st_mtime):
        facts = read_provenance(file.parent)
        same = alike(facts["config"]) == alike(config.model_dump(mode="json"))
        if same and facts["tokens"] and facts["seconds"] > 0:
            return facts["tokens"] / facts["seconds"]
    return None


def alike(config: dict[str, Any]) -> Any:
    """What two runs have to share for one's throughput to tell of the other's."""
    hardware = {name: value for name, value in config["hardware"].items() if name not in NOT_HARDWARE}
    return config["model"], hardware
