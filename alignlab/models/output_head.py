"""From hidden states to what is read of logits, in chunks of tokens: the logits of a whole batch are never in memory.

A model's body runs once (`run_body`). Its output head then runs on a chunk of tokens at a time (`map_chunks`); with
gradients, the backward pass computes the logits of each chunk again (`RecomputedChunks`). A batch that fits into
one chunk is computed as the model itself computes it.

A head may do more than a linear layer: it scales logits, caps them or adds a bias. Each model is therefore tried once
(`has_known_head`). Where the head is none of the known kinds, the model computes its logits itself, and only what
follows them is in chunks.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignlab.runtime import sharding
from alignlab.runtime.worker_errors import is_out_of_memory

LOGITS = 2**24  # the most logits of a chunk, unless it has `TOKENS` tokens
TOKENS = 128  # the fewest tokens of a chunk: with less, reading the head's weights takes longer than computing
SCALES = ("logit_scale", "output_multiplier", "lm_head_multiplier")  # settings by which a head multiplies its logits

_known_heads: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()

Scores = tuple[Tensor, ...]  # several values of each token, [tokens] each


class Hidden(NamedTuple):
    """What a model computes before its logits, for [batch, tokens].

    `states` [batch, tokens, width] are the body's. `logits` are those of a model whose head is not known, else None.
    """

    model: Any  # a language model, without a wrapper for adapters
    states: Tensor
    logits: Tensor | None = None

    @property
    def vocabulary(self) -> int:
        """Return the number of logits of a token."""
        if self.logits is not None:
            return self.logits.shape[-1]
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def head_weights(self) -> tuple[Tensor, ...]:
        """Return the weights that `project` reads."""
        return () if self.logits is not None else tuple(self.model.get_output_embeddings().parameters())

    @property
    def flat(self) -> Tensor:
        """Return what `project` reads, [batch * tokens, width or vocabulary]."""
        return (self.states if self.logits is None else self.logits).flatten(0, 1)

    def select(self, places: Tensor) -> "Hidden":
        """Return what `project` reads of the tokens at places in [batch * tokens], as one row."""
        part = self.flat.index_select(0, places)[None]
        return self._replace(states=part) if self.logits is None else self._replace(logits=part)

    def project(self, part: Tensor, direct: bool = False) -> Tensor:
        """Return the logits of a part of `flat`; with `direct`, the head's weights are read without its module."""
        return part if self.logits is not None else head_logits(self.model, part, direct)


def run_body(model: Any, **inputs: Any) -> Hidden:
    """Run a language model's body; the states are those of all positions of `input_ids` or `decoder_input_ids`."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    if has_known_head(model):
        return Hidden(model, body_states(model, inputs))
    out = model(**inputs, output_hidden_states=True)
    states = out.decoder_hidden_states if model.config.is_encoder_decoder else out.hidden_states
    return Hidden(model, states[-1], out.logits)


def body_states(model: Any, inputs: dict[str, Any]) -> Tensor:
    """Return the last hidden states of a model without its output head."""
    body = model.base_model
    if body is not model or model.get_output_embeddings() is None:
        states: Tensor = body(**inputs).last_hidden_state
        return states
    encoded = model.encoder(inputs["input_ids"], attention_mask=inputs.get("attention_mask")).last_hidden_state
    decoded: Tensor = model.decoder(  # T5 has no module for its body
        inputs["decoder_input_ids"],
        encoder_hidden_states=encoded,
        encoder_attention_mask=inputs.get("attention_mask"),
        use_cache=False,
    ).last_hidden_state
    return decoded


def head_logits(model: Any, states: Tensor, direct: bool = False) -> Tensor:
    """Return the logits of hidden states [..., width], by the head and by what the model does after it."""
    head, settings = model.get_output_embeddings(), model.config.get_text_config()
    if getattr(settings, "scale_decoder_outputs", False):
        states = states * model.model_dim**-0.5
    logits: Tensor = F.linear(states, head.weight, head.bias) if direct and type(head) is nn.Linear else head(states)
    if (bias := getattr(model, "final_logits_bias", None)) is not None:
        logits = logits + bias
    if (scale := next((value for name in SCALES if (value := getattr(settings, name, None))), None)) is not None:
        logits = logits * scale
    if (divisor := getattr(settings, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (cap := getattr(settings, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits


def has_known_head(model: Any) -> bool:
    """Return whether `head_logits` of the body's states equals the model's logits; it is tried once, on four tokens."""
    if model not in _known_heads:
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                _known_heads[model] = computes_the_same(model)
        finally:
            model.train(training)
    return _known_heads[model]


def computes_the_same(model: Any) -> bool:
    """Compare the logits of body and head with those of the model."""
    embeddings = model.get_input_embeddings()
    head = model.get_output_embeddings()
    if embeddings is None or head is None:
        return False
    ids = torch.arange(1, 5, device=model.device)[None] % model.config.get_text_config().vocab_size
    decoder = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **decoder}
    expected = model(**inputs, use_cache=False).logits
    try:
        logits = head_logits(model, body_states(model, inputs | {"use_cache": False}))
    except (AttributeError, RuntimeError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        return False
    tolerance = 1e-5 if logits.dtype == torch.float32 else 2e-2
    return logits.shape == expected.shape and torch.allclose(logits, expected.to(logits.dtype), tolerance, tolerance)


def chunks(tokens: int, vocabulary: int) -> Iterator[slice]:
    """Yield the tokens of each chunk."""
    size = max(TOKENS, LOGITS // vocabulary)
    yield from (slice(start, start + size) for start in range(0, max(tokens, 1), size))


def map_chunks(score: Callable[[slice], Scores], tokens: int, vocabulary: int) -> Scores:
    """Return the scores of all tokens, computed chunk by chunk."""
    parts = [score(chunk) for chunk in chunks(tokens, vocabulary)]
    return parts[0] if len(parts) == 1 else tuple(torch.cat(column) for column in zip(*parts, strict=True))


def score_tokens(hidden: Hidden, score: Callable[..., Scores], *columns: Tensor) -> Scores:
    """Return `score(logits, *columns)` of all tokens, [batch * tokens] each, in chunks, with gradients if wanted.

    Logits are [tokens, vocabulary], and the columns are [batch * tokens]. Every process gathers partitioned weights in
    the same way, however many tokens it has.
    """
    flat, weights = hidden.flat, hidden.head_weights
    several = sum(1 for _ in chunks(len(flat), hidden.vocabulary)) > 1
    if not (several or sharding.is_partitioned(*weights)) or not can_chunk(hidden):
        return score(hidden.project(flat), *columns)
    with sharding.gather_missing(*weights):
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (flat, *weights)):
            scores: Scores = RecomputedChunks.apply(hidden, score, columns, flat, *weights)  # type: ignore[no-untyped-call]
            return scores
        return map_chunks(partial(score_chunk, hidden, score, flat, columns), len(flat), hidden.vocabulary)


def score_chunk(
    hidden: Hidden, score: Callable[..., Scores], flat: Tensor, columns: Sequence[Tensor], part: slice
) -> Scores:
    """Return the scores of one chunk."""
    return score(hidden.project(flat[part], direct=True), *(column[part] for column in columns))


class RecomputedChunks(torch.autograd.Function):
    """`map_chunks` with gradients: the backward pass computes each chunk again, so that one is in memory at a time."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Hidden, score: Callable[..., Scores], columns: Sequence[Tensor], flat: Tensor, *weights: Any
    ) -> Scores:
        """Compute the scores without keeping logits."""
        ctx.set_materialize_grads(False)
        ctx.hidden, ctx.score, ctx.columns = hidden, score, columns
        ctx.save_for_backward(flat, *weights)
        return map_chunks(partial(score_chunk, hidden, score, flat, columns), len(flat), hidden.vocabulary)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of hidden states and of the head's weights, which are summed in float32."""
        flat, *weights = ctx.saved_tensors
        learned = [weight for weight in weights if weight.requires_grad]
        of_states = torch.zeros_like(flat)
        with sharding.gather_missing(*weights):
            sums = [torch.zeros_like(weight, dtype=torch.float32) for weight in learned]
            for part in chunks(len(flat), ctx.hidden.vocabulary):
                with torch.enable_grad():
                    states = flat[part].detach().requires_grad_()
                    columns = [column[part] for column in ctx.columns]
                    scores = ctx.score(ctx.hidden.project(states, direct=True), *columns)
                pairs = [(s, g[part]) for s, g in zip(scores, gradients, strict=True) if g is not None]
                outputs, upstream = zip(*pairs, strict=True)
                of_states[part], *of_weights = torch.autograd.grad(
                    outputs, [states, *learned], upstream, allow_unused=True
                )
                for total, gradient in zip(sums, of_weights, strict=True):
                    if gradient is not None:  # the weight of an adapter that is not active
                        total += gradient
        of_learned = iter(total.to(weight.dtype) for total, weight in zip(sums, learned, strict=True))
        return None, None, None, of_states, *(next(of_learned) if w.requires_grad else None for w in weights)


def can_chunk(hidden: Hidden) -> bool:
    """Return whether the head may run outside its module: ZeRO-3 partitions weights, which a module's hooks gather."""
    head = hidden.model.get_output_embeddings()
    return type(head) is nn.Linear or not sharding.is_partitioned(*hidden.head_weights)
