"""Products of float32 matrices on a CPU, by the faster of the two libraries that torch brings.

torch multiplies by MKL, which on AMD's processors computes with half the width of AVX-512; oneDNN uses all of it, and
takes half the time (`benchmarks/matmul.py`). torch gives oneDNN products of float32 only where it allows their factors
to be rounded to bfloat16. oneDNN rounds them on processors with matrix units (AMX) alone; on others it computes in
float32. So rounding is allowed on AMD's processors without such units, and only if a product there keeps every digit.

The many small products inside torch's attention are slower by oneDNN. So attention computes without it, in both
directions: transformers calls `attention` in place of its own function.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

Library = Literal["torch", "onednn"]
# The precision of float32 products that torch allows: one that oneDNN may use, and the one that torch begins with.
ALLOWED, NONE = "medium", "highest"
NEEDED = ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq")
UNITS = ("amx_tile", "amx_bf16", "amx_fp16")
SIZES = (16, 48, 256)  # of the matrices that are probed
# The shapes of products whose code oneDNN keeps, about 1 MB each; by default they are 1,024, and every micro-batch has
# shapes of its own.
KEPT = "64"
CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


def library(setting: str) -> Library:
    """Return the library that multiplies with a setting of `hardware.matmul` on this machine."""
    return "onednn" if setting == "auto" and onednn_pays() else "torch"


def use(setting: str) -> None:
    """Multiply by a setting of `hardware.matmul` from now on; what the user allows a GPU stays."""
    if library(setting) == "onednn":
        for name in CACHES:
            os.environ.setdefault(name, KEPT)
        use_attention(attention)
        allow(ALLOWED)
    elif precision() == ALLOWED and not torch.cuda.is_available():
        use_attention(None)
        allow(NONE)


def use_attention(function: Callable[..., Any] | None) -> None:
    """Let transformers call a function for `sdpa`; None stands for its own. One that the user has put there stays."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

    if ALL_ATTENTION_FUNCTIONS["sdpa"] in (sdpa_attention_forward, attention):
        AttentionInterface.register("sdpa", function or sdpa_attention_forward)


def attention(module: nn.Module, query: Tensor, *rest: Any, **options: Any) -> tuple[Tensor, None]:
    """Return what transformers' attention function returns; on a CPU its products and its gradient's are torch's."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if precision() != ALLOWED or query.device.type != "cpu":
        result: tuple[Tensor, None] = sdpa_attention_forward(module, query, *rest, **options)
        return result
    with restored():
        allow(NONE)
        output, weights = sdpa_attention_forward(module, query, *rest, **options)
    if output.requires_grad and (node := attention_node(output.grad_fn)):
        node.register_prehook(lambda _: allow(NONE))
        node.register_hook(lambda *_: allow(ALLOWED))
    return output, weights


def attention_node(node: Any) -> Any:
    """Return the node of the graph that computes attention, of which an output is a view or a copy."""
    for _ in range(4):
        if node is None or "ScaledDotProduct" in node.name():
            return node
        node = next((inner for inner, _ in node.next_functions), None)
    return None


def allow(precision: str) -> None:
    """Allow a precision of float32 products; return nothing, as a hook must that changes no gradient."""
    torch.set_float32_matmul_precision(precision)


@contextmanager
def restored() -> Iterator[None]:
    """Multiply at the end of the block as before it."""
    before = precision()
    try:
        yield
    finally:
        if before:
            allow(before)


@contextmanager
def using(setting: str) -> Iterator[None]:
    """Multiply by a setting of `hardware.matmul` inside the block."""
    with restored():
        use(setting)
        yield


def precision() -> str | None:
    """Return the precision of float32 products that torch allows; None where it was set for each library apart."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


@lru_cache(maxsize=1)
def onednn_pays() -> bool:
    """Return whether oneDNN is the faster library here and computes in float32, and there is no GPU."""
    mkl: Any = torch.backends.mkl
    possible = precision() is not None and not torch.cuda.is_available()  # there the precision is that of a GPU, too
    return possible and mkl.is_available() and has_half_width_mkl() and keeps_digits()


def has_half_width_mkl() -> bool:
    """Return whether the processor is AMD's, has AVX-512, and no matrix units."""
    facts: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    amd = "AMD" in str(facts.get("cpu_name", ""))
    return amd and all(facts.get(name) for name in NEEDED) and not any(facts.get(name) for name in UNITS)


def keeps_digits() -> bool:
    """Return whether oneDNN's products of float32 matrices keep the digits that bfloat16 does not have."""
    with restored(), torch.no_grad():
        allow(ALLOWED)
        return all(keeps_digits_of(size) for size in SIZES)


def keeps_digits_of(size: int, multiply: Callable[[Tensor, Tensor], Tensor] = torch.matmul) -> bool:
    """Return whether a matrix of a size comes out as it is when it is multiplied by the unit matrix."""
    fine = 1 + torch.arange(size * size, dtype=torch.float32).view(size, size) * 2.0**-23  # exact in float32
    one = torch.eye(size)
    products = multiply(fine, one), multiply(one, fine), multiply(one, fine.T).T, multiply(fine.T, one).T
    return all(torch.equal(product, fine) for product in products)
