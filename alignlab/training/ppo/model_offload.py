"""Networks that only answer may wait in main memory while others work."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

HOME = "cpu"


def models_in(reward: Any) -> list[nn.Module]:
    """Every network that a reward is made of: its own, and those of what it holds."""
    own = [value for value in (getattr(reward, "model", None),) if isinstance(value, nn.Module)]
    inner = [getattr(reward, "reward", None), *getattr(reward, "members", {}).values()]
    inner += getattr(reward, "parts", {}).values()
    return own + [model for part in inner if part is not None for model in models_in(part)]


@contextmanager
def resident(models: Sequence[nn.Module], device: Any, offloaded: bool) -> Iterator[None]:
    """Keep models on the device while they are asked; those that are offloaded go back to main memory after."""
    for model in models if offloaded else ():
        model.to(device)
    try:
        yield
    finally:
        for model in models if offloaded else ():
            model.to(HOME)
