"""Settings of `sweep:`: how the runs of a sweep are chosen, compared and stopped early."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from alignlab.config.settings import Count, Settings
from alignlab.errors import Fault

DRAWS = ("random", "tpe")  # samplers that draw from ranges; a grid lists its values


class Sweep(Settings):
    """The sampler of a sweep, its objective, and when runs are pruned."""

    sampler: Literal["grid", "random", "tpe"]
    trials: Count
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    objective: str | None
    direction: Literal["maximize", "minimize"]
    prune_by: str | None
    prune_after: Count
    prune_steps: Annotated[int, Field(ge=0)]
    storage: str | None

    def faults(self) -> Iterator[Fault]:
        if self.sampler == "tpe" and self.objective is None:
            yield Fault("objective", "missing, and sampler=tpe needs it", "name a measure, such as reward/held_out")
        if self.objective and self.objective.startswith("gold/"):
            what = (
                f"{self.objective} is the true reward, which is known only in the pocket world; it may only be reported"
            )
            yield Fault("objective", what, "use reward/held_out")
        if self.prune_by and self.prune_by.startswith("gold/"):
            yield Fault(
                "prune_by", f"{self.prune_by} is the true reward, which may only be reported", "use reward/held_out"
            )
        if self.prune_by and self.sampler == "grid":
            yield Fault("prune_by", "a grid runs every combination to its end", "leave it null, or use sampler=tpe")
