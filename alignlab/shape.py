"""What every group of settings is: frozen, typed, without unknown keys; and the kinds of numbers that they hold."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from alignlab.errors import Fault

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Shape(BaseModel):
    """A frozen group of settings: no unknown keys, no silent conversion (`true` is no number)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=(), defer_build=True
    )

    def faults(self) -> Iterator[Fault]:
        """Settings that contradict each other, with places relative to this group."""
        yield from ()
