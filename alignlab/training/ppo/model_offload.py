"""Frozen networks of PPO (reference, reward): they may wait in main memory while others work."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from alignlab.runtime import sharding


class FrozenModels:
    """The frozen networks by role; those of the roles in `offload` are on the device only while they are used."""

    def __init__(self, models: Mapping[str, Sequence[nn.Module]], offload: Sequence[str], device: Any) -> None:
        self.models, self.offload, self.device = models, offload, device
        for role, networks in models.items():
            for network in networks:
                network.to("cpu" if role in offload else device)

    @contextmanager
    def on_device(self, role: str) -> Iterator[None]:
        """Keep the networks of a role on the device, with whole weights, inside the block."""
        networks = self.models[role]
        with resident(networks, self.device, role in self.offload), sharding.gather_weights(*networks):
            yield


def models_in(reward: Any) -> list[nn.Module]:
    """Return every network of a reward: its own, and those of its parts."""
    networks = [value for value in (getattr(reward, "model", None),) if isinstance(value, nn.Module)]
    inner = [getattr(reward, "reward", None), *getattr(reward, "parts", {}).values()]
    return networks + [network for part in inner if part is not None for network in models_in(part)]


@contextmanager
def resident(models: Sequence[nn.Module], device: Any, offloaded: bool) -> Iterator[None]:
    """Move offloaded models to the device inside the block, and back to main memory after it."""
    for model in models if offloaded else ():
        model.to(device)
    try:
        yield
    finally:
        for model in models if offloaded else ():
            model.to("cpu")
