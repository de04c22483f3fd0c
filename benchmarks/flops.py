"""Count the floating-point operations of a decoder: the theory that measured costs are compared with.

A multiplication with an addition counts as two operations. A forward pass takes 2 for each weight and token (Kaplan et
al. 2020, table 1), and attention 4 x width for each query and key in each layer (Chowdhery et al. 2022, appendix B,
where both passes take 12 x layers x width x length for a token). A backward pass takes twice as many.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Shape(NamedTuple):
    """The sizes of a decoder, under the names of the model's settings."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int


def shape_of(settings: Sequence[str]) -> Shape:
    """Read the sizes from settings such as `model.hidden_size=256`."""
    sizes = dict(text.removeprefix("model.").split("=") for text in settings)
    return Shape(*(int(sizes[name]) for name in Shape._fields))


def layer_weights(shape: Shape) -> int:
    """Count the weights of one layer that multiply: queries, output, keys, values, and three of the feed-forward."""
    keys = shape.hidden_size // shape.num_attention_heads * shape.num_key_value_heads
    return shape.hidden_size * (2 * shape.hidden_size + 2 * keys + 3 * shape.intermediate_size)


def weights(shape: Shape) -> int:
    """Count the weights, embeddings once more for the untied head."""
    return shape.num_hidden_layers * layer_weights(shape) + 2 * shape.vocab_size * shape.hidden_size


def forward(shape: Shape, prompt: int, completions: Sequence[int], head: bool = True, is_masked: bool = False) -> int:
    """Count the operations of a forward pass over a row: a prompt and its completions, in tokens.

    `head` counts the logits of the completions. Every token is taken to attend to the whole row, as the papers count;
    with `is_masked`, to itself, and to earlier tokens of the prompt and of its own completion.
    """
    tokens = prompt + sum(completions)
    pairs = tokens**2
    if is_masked:
        pairs = prompt * (prompt + 1) // 2 + sum(count * prompt + count * (count + 1) // 2 for count in completions)
    layer = 2 * layer_weights(shape) * tokens + 4 * shape.hidden_size * pairs
    logits = 2 * shape.vocab_size * shape.hidden_size * sum(completions) if head else 0
    return shape.num_hidden_layers * layer + logits
