"""Read the size of a model from its files without loading it: parameters from its tensors, or from its config.json."""

import json
import struct
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

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


def shapes(folder: Path) -> Shapes:
    """Read the shapes of the tensors in a model's folder, by name; empty without safetensors files.

    A safetensors file begins with the length of its JSON header in 8 bytes (little-endian).
    """
    tensors: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(size))
        tensors |= {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    return tensors


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
    file = folder / "config.json"
    return read_shape(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


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
    return Shape(hidden, keys, mlp, layers, vocabulary, not plain, bool(settings.get("tie_word_embeddings", True)))


def parameters(shape: Shape) -> int:
    """Return the approximate number of weights of layers, embedding and head, without norms and biases."""
    attention = 2 * shape.hidden * (shape.hidden + shape.keys)
    embeddings = (1 if shape.tied else 2) * shape.vocabulary * shape.hidden
    return shape.layers * (attention + (3 if shape.gated else 2) * shape.hidden * shape.mlp) + embeddings
