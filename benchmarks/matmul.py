"""Products of float32 matrices on a CPU: torch's own library beside the one that `hardware.matmul=auto` takes here.

    .venv/bin/python benchmarks/matmul.py

For the shapes of a layer's forward pass, and of both products of its backward pass: 10^9 operations a second on one
thread, alternating, and the largest error beside products in float64, by the largest entry.
"""

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from alignlab.runtime import matmul

ROUNDS, SECONDS = 5, 0.2
SHAPES = ((40, 576, 1536), (1024, 576, 1536), (2048, 688, 256), (400, 256, 4096), (40, 576, 49152))
PRODUCTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "forward": lambda states, weight, gradient: states @ weight.T,
    "gradient of the states": lambda states, weight, gradient: gradient @ weight,
    "gradient of the weight": lambda states, weight, gradient: gradient.T @ states,
}


def rate(product: Callable[[], Tensor], operations: int) -> float:
    """Return 10^9 operations a second; the first product is not timed."""
    product()
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < SECONDS:
        product()
        count += 1
    return operations * count / passed / 1e9


def products() -> Iterator[str]:
    """Yield the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield f"`hardware.matmul=auto` is {matmul.library('auto')} on this processor. `benchmarks/matmul.py`: one thread,"
    yield f"10^9 operations a second, medians of {ROUNDS} alternating rounds; errors beside float64."
    yield ""
    yield "| rows × inputs → outputs | product | torch | auto | ratio (spread) | error, torch | error, auto |"
    yield "|---|---|--:|--:|---|---|---|"
    for rows, inputs, outputs in SHAPES:
        given = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(rows, outputs)
        for name, product in PRODUCTS.items():
            exact = product(*(each.double() for each in given))
            rates, errors = {}, {}
            for setting in ("torch", "auto"):
                with matmul.using(setting):
                    errors[setting] = float((product(*given) - exact).abs().max() / exact.abs().max())
            for setting in ("torch", "auto") * ROUNDS:
                with matmul.using(setting):
                    one = rate(lambda: product(*given), 2 * rows * inputs * outputs)  # noqa: B023
                rates.setdefault(setting, []).append(one)
            ratios = [ours / theirs for ours, theirs in zip(rates["auto"], rates["torch"], strict=True)]
            middle = {setting: statistics.median(each) for setting, each in rates.items()}
            spread = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
            shape = f"{rows:,} × {inputs:,} → {outputs:,}"
            speeds = f"{middle['torch']:.0f} | {middle['auto']:.0f}"
            yield f"| {shape} | {name} | {speeds} | {spread} | {errors['torch']:.0e} | {errors['auto']:.0e} |"


if __name__ == "__main__":
    print("\n".join(products()))
