"""Reward heads: from a prompt and one or more completions to one number each.

A row holds the prompt once and its completions one after the other. A completion attends to the prompt and to itself,
and its positions continue from the prompt's end. The prompt, usually the longer part, is so computed once a pair
instead of twice (arXiv 2410.20305), and the scores are those of the plain layout. `segments` describes a row: -1 is
padding, 0 the prompt, k the k-th completion.

There are two heads. `last` is transformers' AutoModelForSequenceClassification with one label, read at the completion's
last token. `pooled` reads the state at the last token, the mean state over the completion's tokens, and the sum of the
completion's token embeddings, a bag of words; it learns faster from few rows. In an encoder-decoder the encoder reads
the prompt and the decoder the completions, and both heads read the decoder's states.
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

from alignlab.models.load import set_dropout
from alignlab.runtime import sharding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Packed(NamedTuple):
    """Rows of token ids and the segment of each token, both [batch, length]."""

    input_ids: Tensor
    segments: Tensor


def pack(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[Sequence[int]]], pad: int) -> Packed:
    """Put each prompt and its completions into one row, padded on the right."""
    pairs = list(zip(prompts, completions, strict=True))
    rows = [[*prompt, *(token for ids in several for token in ids)] for prompt, several in pairs]
    segments = [
        [0] * len(prompt) + [k for k, ids in enumerate(several, start=1) for _ in ids] for prompt, several in pairs
    ]
    longest = max(map(len, rows))
    return Packed(
        torch.tensor([row + [pad] * (longest - len(row)) for row in rows]),
        torch.tensor([row + [-1] * (longest - len(row)) for row in segments]),
    )


def counts(segments: Tensor) -> Tensor:
    """Return the number of tokens of the prompt and of each completion, [batch, 1 + completions]."""
    count = int(segments.max()) + 1
    return nn.functional.one_hot(segments + 1, count + 1).sum(1)[:, 1:]


def positions(segments: Tensor) -> Tensor:
    """Return the position of each token, [batch, length]; each completion continues from the prompt's end."""
    index = torch.arange(segments.shape[1], device=segments.device)
    sizes = counts(segments)
    earlier = (sizes.cumsum(1) - sizes - sizes[:, :1]).clamp(min=0)  # tokens of the completions before each
    return (index - earlier.gather(1, segments.clamp(min=0))).clamp(min=0)


def attention_mask(segments: Tensor) -> Tensor:
    """Return what tokens attend to, [batch, 1, length, length]: earlier tokens of the prompt and their completion."""
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    queries, keys = segments[:, :, None], segments[:, None, :]
    return (causal & ((keys == 0) | (keys == queries)))[:, None]


def last_tokens(segments: Tensor) -> Tensor:
    """Return the index of the last token of each completion, [batch, completions]."""
    return counts(segments).cumsum(1)[:, 1:] - 1


class PooledConfig(PretrainedConfig):  # type: ignore[misc]
    """The config of a backbone, and the dropout before the head."""

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
        """Return the width of the backbone's states."""
        return int(self.backbone.hidden_size)

    @property
    def max_position_embeddings(self) -> int | None:
        """Return the number of positions of the backbone; None where it names no limit."""
        return getattr(self.backbone, "max_position_embeddings", None)


class PooledReward(PreTrainedModel):  # type: ignore[misc]
    """A reward model whose head reads the last state, the mean state and the summed token embeddings."""

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
        """Score rows in the layout of `pack`; the logits are [batch, completions]."""
        states = self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask(segments),
            position_ids=positions(segments),
            use_cache=False,
        ).last_hidden_state
        sizes = counts(segments)[:, 1:]
        numbers = torch.arange(1, sizes.shape[1] + 1, device=segments.device)
        members = (segments[:, None, :] == numbers[:, None]).to(states.dtype)
        last = states.gather(1, last_tokens(segments)[..., None].expand(-1, -1, states.shape[2]))
        mean = members @ states / sizes[..., None].clamp(min=1)
        words = members @ self.get_input_embeddings()(input_ids)
        return SequenceClassifierOutput(logits=self.score(self.dropout(torch.cat([last, mean, words], -1))).squeeze(-1))


class DecoderConfig(PooledConfig):
    """The config of a reward model on an encoder-decoder; `pooled` chooses the head."""

    model_type = "decoder_reward"

    def __init__(self, backbone: Any = None, dropout: float = 0.0, pooled: bool = False, **options: Any) -> None:
        self.pooled = pooled
        super().__init__(backbone, dropout, **options)


class DecoderReward(PreTrainedModel):  # type: ignore[misc]
    """A reward model on an encoder-decoder: the decoder reads the completions, and the head its states."""

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
        """Score rows in the layout of `pack`; the logits are [batch, completions]."""
        sizes = counts(segments)
        count = sizes.shape[1] - 1
        width = int(sizes[:, 0].max())
        prompt_mask = (segments == 0).long()[:, :width]
        encoded = self.backbone.encoder(input_ids=input_ids[:, :width], attention_mask=prompt_mask).last_hidden_state
        tokens, mask = completions_of(input_ids, sizes)
        begin = tokens.new_full((len(tokens), 1), self.config.backbone.decoder_start_token_id)
        states = self.backbone.decoder(
            input_ids=torch.cat([begin, tokens], dim=1),
            attention_mask=torch.cat([torch.ones_like(begin), mask], dim=1),
            encoder_hidden_states=encoded.repeat_interleave(count, dim=0),
            encoder_attention_mask=prompt_mask.repeat_interleave(count, dim=0),
            use_cache=False,
        ).last_hidden_state
        features = states[torch.arange(len(states), device=states.device), mask.sum(1)]  # at the last token
        if self.config.pooled:
            real = mask[..., None].to(states.dtype)
            mean = (states[:, 1:] * real).sum(1) / real.sum(1).clamp(min=1)
            features = torch.cat([features, mean, (self.get_input_embeddings()(tokens) * real).sum(1)], dim=-1)
        return SequenceClassifierOutput(logits=self.score(self.dropout(features)).view(-1, count))


def completions_of(input_ids: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the token ids of completions and their mask, both [batch * completions, longest]."""
    longest = int(sizes[:, 1:].max())
    starts = sizes.cumsum(1)[:, :-1]
    steps = torch.arange(longest, device=input_ids.device)
    real = steps < sizes[:, 1:, None]
    index = (starts[..., None] + steps).clamp(max=input_ids.shape[1] - 1)
    tokens = input_ids[:, None].expand(-1, starts.shape[1], -1).gather(2, index)
    return tokens.masked_fill(~real, 0).flatten(0, 1), real.long().flatten(0, 1)


AutoConfig.register(DecoderConfig.model_type, DecoderConfig, exist_ok=True)
AutoModelForSequenceClassification.register(DecoderConfig, DecoderReward, exist_ok=True)
AutoConfig.register(PooledConfig.model_type, PooledConfig, exist_ok=True)
AutoModelForSequenceClassification.register(PooledConfig, PooledReward, exist_ok=True)


def scores(model: nn.Module, packed: Packed) -> Tensor:
    """Score rows in the layout of `pack` with either head, [batch, completions]."""
    if any(isinstance(module, PooledReward | DecoderReward) for module in model.modules()):
        return model(input_ids=packed.input_ids, segments=packed.segments).logits
    outputs: list[Tensor] = []  # of the head at every token: the model itself would read its last token only
    hook = head_of(model).register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        model(
            input_ids=packed.input_ids,
            attention_mask=attention_mask(packed.segments),
            position_ids=positions(packed.segments),
            use_cache=False,
        )
    finally:
        hook.remove()
    return outputs[0].squeeze(-1).gather(1, last_tokens(packed.segments))


def head_of(model: nn.Module) -> nn.Module:
    """Return the outermost layer that is named `score`, wrapped or not."""
    heads = [(len(name), module) for name, module in model.named_modules() if name.rpartition(".")[2] == "score"]
    return min(heads, key=lambda pair: pair[0])[1]


def new_reward_model(
    path: Path, head: str, dropout: float, dtype: torch.dtype = torch.float32
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Put a new head on the language model in a folder; its weights have a standard deviation of 1/sqrt(d + 1)."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    settings = set_dropout(AutoConfig.from_pretrained(path), dropout)
    options = {"dtype": dtype, "config": settings}
    if settings.is_encoder_decoder or head == "pooled":
        with sharding.partition_on_load(dtype):
            backbone = AutoModel.from_pretrained(path, **options)
        common = {"dropout": dropout, "pad_token_id": tokenizer.pad_token_id}
        model = (
            DecoderReward(DecoderConfig(backbone.config, pooled=head == "pooled", **common))
            if settings.is_encoder_decoder
            else PooledReward(PooledConfig(backbone.config, **common))
        )
        model.backbone = backbone
        model.score.to(dtype)
    else:
        with sharding.partition_on_load(dtype):
            settings.num_labels = 1
            model = AutoModelForSequenceClassification.from_pretrained(path, **options)
        model.config.pad_token_id = tokenizer.pad_token_id
    weight: Any = head_of(model).weight
    with sharding.gather_for_writing(weight):
        nn.init.normal_(weight, std=1 / sqrt(weight.shape[1] + 1))
    return model, tokenizer
