"""Read the size of a model from its files without loading it: parameters from its tensors, or from its config.json."""

import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.errors import failure

Shapes = Mapping[str, Sequence[int]]


class Shape(NamedTuple):
    """The sizes of a transformer: widths of hidden states, keys and MLP; layers; vocabulary; a gated MLP or not."""

    hidden: int
    keys: int
    mlp: int
    layers: int
    vocabulary: int
    gated: bool
    tied: bool = True  # the head is the embedding
    family: str = ""  # `model_type` of its config.json


LARGEST_HEADER = 100_000_000  # bytes; safetensors refuses a longer one
AGAIN = "fetch the model again"


def shapes(folder: Path) -> Shapes:
    """Read the shapes of the tensors in a model's folder, by name; empty without safetensors files.

    A safetensors file begins with the length of its JSON header in 8 bytes (little-endian).
    """
    tensors: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > min(LARGEST_HEADER, file.stat().st_size - 8):
                what = "is no safetensors file, or its end is missing"
                raise failure(str(file), what, "fetch it again; for a Git LFS pointer: git lfs pull")
            try:
                header = json.loads(stream.read(size))
                tensors |= {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                raise failure(str(file), "has no header of a safetensors file", AGAIN) from None
    return tensors


def tied_to(shape: Shape, total: int | None) -> Shape:
    """Return the shape with or without a head of its own, whichever comes closer to a number of parameters."""
    if total is None:
        return shape
    return min((shape._replace(tied=tied) for tied in (True, False)), key=lambda one: abs(parameters(one) - total))


def count(tensors: Shapes) -> int:
    """Return the number of parameters."""
    return sum(prod(shape) for shape in tensors.values())


def parameters_in(folder: Path) -> int | None:
    """Return the parameters of a model's folder: of its safetensors, else about those of its config.json, else None."""
    if tensors := shapes(folder):
        return count(tensors)
    shape = shape_in(folder)
    return None if shape is None else parameters(shape)


def shape_in(folder: Path) -> Shape | None:
    """Return the sizes of the model in a folder, from its config.json; None without one, or for an unknown family."""
    try:
        shape = read_shape(config_in(folder))
    except (TypeError, ValueError) as error:
        raise failure(str(folder / "config.json"), f"holds a size that is no number ({error})", AGAIN) from error
    if shape and min(shape.hidden, shape.keys, shape.mlp, shape.layers, shape.vocabulary) < 1:
        raise failure(str(folder / "config.json"), f"holds a size under 1 ({shape.layers} layers)", AGAIN)
    return shape


def config_in(folder: Path) -> dict[str, Any]:
    """Read the config.json of a model's folder; empty without one. Raises a `Failure` where it is damaged."""
    file = folder / "config.json"
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}
    except (ValueError, TypeError, RecursionError) as error:
        raise failure(str(file), "holds no JSON object", AGAIN) from error


def read_shape(settings: Mapping[str, Any]) -> Shape | None:
    """Read the sizes from a model's config, under the keys of its family; None for an unknown family."""

    def first(*names: str) -> int | None:
        return next((int(settings[name]) for name in names if settings.get(name)), None)

    hidden, layers = first("hidden_size", "d_model", "n_embd"), first("num_hidden_layers", "num_layers", "n_layer")
    vocabulary = first("vocab_size")
    if hidden is None or layers is None or vocabulary is None:
        return None
    heads = first("num_attention_heads", "num_heads", "n_head") or 1
    width = first("head_dim", "d_kv") or hidden // heads
    layers += int(settings.get("num_decoder_layers") or 0)
    mlp = first("intermediate_size", "d_ff", "n_inner") or 4 * hidden
    plain = settings.get("model_type") in {"gpt_neox", "gpt2", "t5"} and not settings.get("is_gated_act")
    keys = (first("num_key_value_heads") or heads) * width
    tied = bool(settings.get("tie_word_embeddings", True))
    return Shape(hidden, keys, mlp, layers, vocabulary, not plain, tied, str(settings.get("model_type", "")))


def parameters(shape: Shape) -> int:
    """Return the approximate number of weights of layers, embedding and head, without norms and biases."""
    return count(matrices(shape))


def matrices(shape: Shape) -> Shapes:
    """Return the shapes of a model's matrices, by name; norms and biases are left out."""
    hidden, keys, mlp = shape.hidden, shape.keys, shape.mlp
    if shape.family == "gpt_neox":  # queries, keys and values are one matrix
        attention = {"query_key_value": [3 * hidden, hidden], "dense": [hidden, hidden]}
    else:
        attention = {"q_proj": [hidden, hidden], "k_proj": [keys, hidden], "v_proj": [keys, hidden]}
        attention |= {"o_proj": [hidden, hidden]}
    inner = {"up_proj": [mlp, hidden], "down_proj": [hidden, mlp]}
    inner |= {"gate_proj": [mlp, hidden]} if shape.gated else {}
    layers = {
        f"layers.{layer}.{name}.weight": size
        for layer in range(shape.layers)
        for name, size in (attention | inner).items()
    }
    head = {} if shape.tied else {"lm_head.weight": [shape.vocabulary, hidden]}
    return {"embed_tokens.weight": [shape.vocabulary, hidden], **layers, **head}
