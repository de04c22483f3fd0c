"""Restore the state of a process after a run: environment, threads, signal handlers, warnings, random generators."""

import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alignlab.runtime.signals import SIGNALS, clear_stop_request


@contextmanager
def restored() -> Iterator[None]:
    """Restore the state of this process that a run changes, at the end of the `with` block."""
    environment = dict(os.environ)
    handlers, hook = {number: signal.getsignal(number) for number in SIGNALS}, sys.unraisablehook
    threads, products = torch_threads(), torch_products()
    generators = random_states()
    with warnings.catch_warnings():
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in handlers.items():
                    signal.signal(number, handler)
            sys.unraisablehook = hook
            clear_stop_request()
            restore_random(generators)
            restore_products(products)
            if (torch := sys.modules.get("torch")) and threads:
                torch.set_num_threads(threads)
            for name in {*os.environ} - {*environment}:
                del os.environ[name]
            os.environ.update(environment)


def torch_threads() -> int | None:
    """Return torch's CPU threads; None where torch is not imported yet."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None


def torch_products() -> str | None:
    """Return the precision of float32 products that torch allows; None before torch is imported."""
    if "torch" not in sys.modules:
        return None
    from alignlab.runtime import matmul

    return matmul.precision()


def restore_products(precision: str | None) -> None:
    """Set the precision that `torch_products` has returned; without one, torch was not imported, and had its own."""
    if "torch" in sys.modules:
        from alignlab.runtime import matmul

        matmul.use("torch")
        if precision:
            matmul.allow(precision)


def random_states() -> dict[str, Any]:
    """Return the states of the random generators of Python, and of NumPy and torch where they are imported."""
    states: dict[str, Any] = {"python": random.getstate()}
    if numpy := sys.modules.get("numpy"):
        states["numpy"] = numpy.random.get_state()
    if torch := sys.modules.get("torch"):
        states["torch"] = torch.get_rng_state()
        if torch.cuda.is_available():
            states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random(states: dict[str, Any]) -> None:
    """Set the random generators back to states that `random_states` has returned."""
    random.setstate(states["python"])
    if "numpy" in states:
        sys.modules["numpy"].random.set_state(states["numpy"])
    if "torch" in states:
        sys.modules["torch"].set_rng_state(states["torch"])
    if "cuda" in states:
        sys.modules["torch"].cuda.set_rng_state_all(states["cuda"])
