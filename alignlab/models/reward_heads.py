"""Reward heads: from a prompt and one or more completions to one number each.

A row holds the prompt once and the completions behind it, side by side: what a completion is allowed to see is
the prompt and itself, and its positions go on from the prompt's end. So the prompt, usually the longer part, is
computed once a pair instead of twice (arXiv 2410.20305), and the scores are those of the plain layout. `segments`
says it all: -1 is padding, 0 the prompt, k the k-th completion.

Two heads. `last` is transformers' own AutoModelForSequenceClassification with one label, read at the completion's
last token. `pooled` sees three things: the state at the last token, the mean state over the completion's tokens
and the sum of the completion's token embeddings, which is a bag of words; it learns faster from few rows. With an
encoder-decoder the encoder reads the prompt and the decoder the completions, and both heads see the decoder's states.
"""

from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from alignlab.models.load import dropouts
from alignlab.runtime import distributed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Packed(NamedTuple):
    """Rows of token ids and what each token belongs to, both [batch, length]."""

    input_ids: Tensor
    segments: Tensor


def pack(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[Sequence[int]]], pad: int) -> Packed:
    """Lay each prompt and its completions into one row, padded on the right."""
    rows = [
        [*prompt, *(token for ids in many for token in ids)] for prompt, many in zip(prompts, completions, strict=True)
    ]
    marks = [
        [0] * len(prompt) + [k for k, ids in enumerate(many, start=1) for _ in ids]
        for prompt, many in zip(prompts, completions, strict=True)
    ]
    longest = max(map(len, rows))
    return Packed(
        torch.tensor([row + [pad] * (longest - len(row)) for row in rows]),
        torch.tensor([mark + [-1] * (longest - len(mark)) for mark in marks]),
    )


def counts(segments: Tensor) -> Tensor:
    """Count the tokens of the prompt and of each completion, [batch, 1 + completions]."""
    many = int(segments.max()) + 1
    return nn.functional.one_hot(segments + 1, many + 1).sum(1)[:, 1:]


def positions(segments: Tensor) -> Tensor:
    """Number the tokens, [batch, length]: each completion goes on from the prompt's end."""
    index = torch.arange(segments.shape[1], device=segments.device)
    sizes = counts(segments)
    others = (sizes.cumsum(1) - sizes - sizes[:, :1]).clamp(min=0)  # tokens of the completions that stand before
    return (index - others.gather(1, segments.clamp(min=0))).clamp(min=0)


def visible(segments: Tensor) -> Tensor:
    """Tell which token sees which, [batch, 1, length, length]: backwards, the prompt and its own completion."""
    length = segments.shape[1]
    backwards = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    own, theirs = segments[:, :, None], segments[:, None, :]
    return (backwards & ((theirs == 0) | (theirs == own)))[:, None]


def ends(segments: Tensor) -> Tensor:
    """Find the last token of each completion, [batch, completions]."""
    return counts(segments).cumsum(1)[:, 1:] - 1


class PooledConfig(PretrainedConfig):  # type: ignore[misc]
    """A backbone's config and the dropout before the head."""

    model_type = "pooled_reward"
    sub_configs = {"backbone": AutoConfig}

    def __init__(self, backbone: Any = None, dropout: float = 0.0, **options: Any) -> None:
        if isinstance(backbone, dict):
            backbone = AutoConfig.for_model(**backbone)
        self.backbone = backbone
        self.dropout = dropout
        super().__init__(**{"num_labels": 1, **options})

    @property
    def hidden_size(self) -> int:
        """The width of the backbone's states."""
        return int(self.backbone.hidden_size)

    @property
    def max_position_embeddings(self) -> int | None:
        """The longest row that the backbone has positions for."""
        return getattr(self.backbone, "max_position_embeddings", None)


class PooledReward(PreTrainedModel):  # type: ignore[misc]
    """A reward model whose head sees the last state, the mean state and the summed token embeddings."""

    config_class = PooledConfig
    base_model_prefix = "backbone"
    _supports_sdpa = True
    supports_gradient_checkpointing = True

    def __init__(self, config: PooledConfig) -> None:
        super().__init__(config)
        self.backbone = AutoModel.from_config(config.backbone)
        width = config.backbone.hidden_size
        self.dropout = nn.Dropout(config.dropout)
        self.score = nn.Linear(3 * width, 1, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def forward(self, input_ids: Tensor, segments: Tensor, **_: Any) -> SequenceClassifierOutput:
        """Score rows in the layout of `pack`: logits are [batch, completions]."""
        states = self.backbone(
            input_ids=input_ids, attention_mask=visible(segments), position_ids=positions(segments), use_cache=False
        ).last_hidden_state
        sizes = counts(segments)[:, 1:]
        which = torch.arange(1, sizes.shape[1] + 1, device=segments.device)
        members = (segments[:, None, :] == which[:, None]).to(states.dtype)
        last = states.gather(1, ends(segments)[..., None].expand(-1, -1, states.shape[2]))
        mean = members @ states / sizes[..., None].clamp(min=1)
        words = members @ self.get_input_embeddings()(input_ids)
        return SequenceClassifierOutput(logits=self.score(self.dropout(torch.cat([last, mean, words], -1))).squeeze(-1))


class DecoderConfig(PooledConfig):
    """The settings of a reward model on an encoder-decoder; `pooled` says which head it has."""

    model_type = "decoder_reward"

    def __init__(self, backbone: Any = None, dropout: float = 0.0, pooled: bool = False, **options: Any) -> None:
        self.pooled = pooled
        super().__init__(backbone, dropout, **options)


class DecoderReward(PreTrainedModel):  # type: ignore[misc]
    """A reward model on an encoder-decoder: the score of a completion that the decoder has read to its end."""

    config_class = DecoderConfig
    base_model_prefix = "backbone"

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        self.backbone = AutoModel.from_config(config.backbone)
        self.dropout = nn.Dropout(config.dropout)
        self.score = nn.Linear((3 if config.pooled else 1) * config.backbone.hidden_size, 1, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def forward(self, input_ids: Tensor, segments: Tensor, **_: Any) -> SequenceClassifierOutput:
        """Score rows in the layout of `pack`: logits are [batch, completions]."""
        sizes = counts(segments)
        many = sizes.shape[1] - 1
        prompt = int(sizes[:, 0].max())
        read = (segments == 0).long()[:, :prompt]
        encoded = self.backbone.encoder(input_ids=input_ids[:, :prompt], attention_mask=read).last_hidden_state
        words, real = completions_of(input_ids, sizes)
        begin = words.new_full((len(words), 1), self.config.backbone.decoder_start_token_id)
        states = self.backbone.decoder(
            input_ids=torch.cat([begin, words], dim=1),
            attention_mask=torch.cat([torch.ones_like(begin), real], dim=1),
            encoder_hidden_states=encoded.repeat_interleave(many, dim=0),
            encoder_attention_mask=read.repeat_interleave(many, dim=0),
            use_cache=False,
        ).last_hidden_state
        last = states[torch.arange(len(states), device=states.device), real.sum(1)]
        seen = last
        if self.config.pooled:
            share = real[..., None].to(states.dtype)
            mean = (states[:, 1:] * share).sum(1) / share.sum(1).clamp(min=1)
            seen = torch.cat([last, mean, (self.get_input_embeddings()(words) * share).sum(1)], dim=-1)
        return SequenceClassifierOutput(logits=self.score(self.dropout(seen)).view(-1, many))


def completions_of(input_ids: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Take the completions out of rows: their ids and which are real, both [batch * completions, longest]."""
    longest = int(sizes[:, 1:].max())
    begins = sizes.cumsum(1)[:, :-1]
    steps = torch.arange(longest, device=input_ids.device)
    real = steps < sizes[:, 1:, None]
    where = (begins[..., None] + steps).clamp(max=input_ids.shape[1] - 1)
    words = input_ids[:, None].expand(-1, begins.shape[1], -1).gather(2, where)
    return words.masked_fill(~real, 0).flatten(0, 1), real.long().flatten(0, 1)


AutoConfig.register(DecoderConfig.model_type, DecoderConfig, exist_ok=True)
AutoModelForSequenceClassification.register(DecoderConfig, DecoderReward, exist_ok=True)
AutoConfig.register(PooledConfig.model_type, PooledConfig, exist_ok=True)
AutoModelForSequenceClassification.register(PooledConfig, PooledReward, exist_ok=True)


def scores(model: nn.Module, packed: Packed) -> Tensor:
    """Score rows in the layout of `pack` with either head, [batch, completions]."""
    if any(isinstance(module, PooledReward | DecoderReward) for module in model.modules()):
        return model(input_ids=packed.input_ids, segments=packed.segments).logits
    kept: list[Tensor] = []
    hook = head_of(model).register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        model(
            input_ids=packed.input_ids,
            attention_mask=visible(packed.segments),
            position_ids=positions(packed.segments),
            use_cache=False,
        )
    finally:
        hook.remove()
    return kept[0].squeeze(-1).gather(1, ends(packed.segments))


def head_of(model: nn.Module) -> nn.Module:
    """Find the layer `score`, wrapped or not, that transformers and we call so."""
    named = [(len(name), module) for name, module in model.named_modules() if name.rpartition(".")[2] == "score"]
    return min(named, key=lambda pair: pair[0])[1]


def start(path: Path, head: str, dropout: float) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Put a new head on the language model in a folder; its weights are drawn with a deviation of 1/sqrt(d + 1)."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    settings = AutoConfig.from_pretrained(path)
    options = {"dtype": torch.float32, **dropouts(settings, dropout)}
    if settings.is_encoder_decoder or head == "pooled":
        with distributed.loading():
            backbone = AutoModel.from_pretrained(path, **options)
        own = {"dropout": dropout, "pad_token_id": tokenizer.pad_token_id}
        model = (
            DecoderReward(DecoderConfig(backbone.config, pooled=head == "pooled", **own))
            if settings.is_encoder_decoder
            else PooledReward(PooledConfig(backbone.config, **own))
        )
        model.backbone = backbone
    else:
        with distributed.loading():
            model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, **options)
        model.config.pad_token_id = tokenizer.pad_token_id
    weight: Any = head_of(model).weight
    with distributed.writing(weight):
        nn.init.normal_(weight, std=1 / sqrt(weight.shape[1] + 1))
    return model, tokenizer
