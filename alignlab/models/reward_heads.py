"""Reward heads: from a prompt and one or more completions to one number each.

There are two heads. `last` is transformers' AutoModelForSequenceClassification with one label, read at the completion's
last token. `pooled` reads the state at the last token, the mean state over the completion's tokens, and the sum of the
completion's token embeddings, a bag of words; it learns faster from few rows. In an encoder-decoder the encoder reads
the prompt and the decoder the completions, and both heads read the decoder's states. `alignlab.models.prompt_layout`
says how a row holds a prompt and its completions.
"""

from copy import deepcopy
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

from alignlab.errors import failure
from alignlab.models import model_folder, own_code
from alignlab.models.load import load_whole, set_dropout
from alignlab.models.prompt_layout import (
    Packed,
    choose_layout,
    counts,
    forward_arguments,
    last_tokens,
    say_plain,
    unwrapped,
)
from alignlab.runtime import sharding
from alignlab.runtime.progress import say

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Smaller models draw the weights of a second backbone, so that a seed gives the head that it gave before 0.2.
SMALL = 10_000_000


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
        return int(self.backbone.get_text_config().hidden_size)

    @property
    def max_position_embeddings(self) -> int | None:
        """Return the number of positions of the backbone; None where it names no limit."""
        return getattr(self.backbone.get_text_config(), "max_position_embeddings", None)


class PooledReward(PreTrainedModel):  # type: ignore[misc]
    """A reward model whose head reads the last state, the mean state and the summed token embeddings."""

    config_class = PooledConfig
    base_model_prefix = "backbone"
    _supports_sdpa = True
    supports_gradient_checkpointing = True

    def __init__(self, config: PooledConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.backbone = (
            AutoModel.from_config(config.backbone, trust_remote_code=False) if backbone is None else backbone
        )
        width = config.hidden_size
        self.dropout = nn.Dropout(config.dropout)
        self.score = nn.Linear(3 * width, 1, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def forward(self, input_ids: Tensor, segments: Tensor, **_: Any) -> SequenceClassifierOutput:
        """Score rows in the layout of `pack`; the logits are [batch, completions]."""
        batch = len(input_ids)
        (input_ids, segments), masks = forward_arguments(self, Packed(input_ids, segments), self.backbone.config)
        states = self.backbone(input_ids=input_ids, use_cache=False, **masks).last_hidden_state
        sizes = counts(segments)[:, 1:]
        numbers = torch.arange(1, sizes.shape[1] + 1, device=segments.device)
        members = (segments[:, None, :] == numbers[:, None]).to(states.dtype)
        last = states.gather(1, last_tokens(segments)[..., None].expand(-1, -1, states.shape[2]))
        mean = members @ states / sizes[..., None].clamp(min=1)
        words = members @ self.get_input_embeddings()(input_ids)
        logits = self.score(self.dropout(torch.cat([last, mean, words], -1)))
        return SequenceClassifierOutput(logits=logits.view(batch, -1))


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

    def __init__(self, config: DecoderConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.backbone = (
            AutoModel.from_config(config.backbone, trust_remote_code=False) if backbone is None else backbone
        )
        self.dropout = nn.Dropout(config.dropout)
        self.score = nn.Linear((3 if config.pooled else 1) * config.hidden_size, 1, bias=False)
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
    rows, masks = forward_arguments(model, packed, unwrapped(model).config)
    try:
        model(input_ids=rows.input_ids, use_cache=False, **masks)
    finally:
        hook.remove()
    return outputs[0].squeeze(-1).gather(1, last_tokens(rows.segments)).view(len(packed.input_ids), -1)


def head_of(model: nn.Module) -> nn.Module:
    """Return the outermost layer that is named `score`, wrapped or not."""
    heads = [(len(name), module) for name, module in model.named_modules() if name.rpartition(".")[2] == "score"]
    return min(heads, key=lambda pair: pair[0])[1]


def choose_head(stage: str, head: str, path: Path, is_automatic: bool) -> str:
    """Return the head, or `pooled` where transformers has no class for `last`; `auto` may be replaced, and it is said.

    Raises a `Failure` where `last` was set by the user, and for a model with Python code of its own.
    """
    model_folder.check(path)
    if own_code.is_trusted(path):
        what = "a reward model is not made of a model that brings Python code of its own"
        raise failure(f"{stage}.policy", what, "give rm a model that transformers knows: stages.rm.policy=…")
    with model_folder.explained_loading(str(path), "no model can be loaded from it", path):
        settings = AutoConfig.from_pretrained(path, trust_remote_code=False)
    if head == "pooled" or settings.is_encoder_decoder or reads_last_token(settings):
        return head
    what = f"transformers has no reward model that reads the last token of {settings.model_type}"
    if not is_automatic:
        raise failure("method.head", what, "use method.head=pooled")
    say(f"{stage}: {what}, so method.head=auto is pooled")
    return "pooled"


def reads_last_token(settings: PretrainedConfig) -> bool:
    """Return whether transformers has a class of reward models for a config whose `score` reads every token."""
    known = AutoModelForSequenceClassification._model_mapping
    if type(settings) not in known:
        return False
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(settings, trust_remote_code=False)
    return isinstance(getattr(model, "score", None), nn.Linear)


def new_reward_model(
    path: Path, head: str, dropout: float, dtype: torch.dtype = torch.float32, **options: Any
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Put a new head on the language model in a folder; its weights have a standard deviation of 1/sqrt(d + 1)."""
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    settings = set_dropout(AutoConfig.from_pretrained(path, trust_remote_code=False), dropout)
    options |= {"config": settings, "dtype": dtype}
    if settings.is_encoder_decoder or head == "pooled":
        common = {"dropout": dropout, "pad_token_id": tokenizer.pad_token_id}
        model = _on_backbone(path, options, head == "pooled", **common)
    else:
        settings.num_labels = 1
        with sharding.partition_on_load(dtype):
            model = load_whole(AutoModelForSequenceClassification, path, new=("score.",), **options)
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    weight: Any = head_of(model).weight
    with sharding.gather_for_writing(weight):
        nn.init.normal_(weight, std=1 / sqrt(weight.shape[1] + 1))
    if not settings.is_encoder_decoder:
        choose_layout(model, scores)
        say_plain("rm", model)
    return model, tokenizer


def _on_backbone(path: Path, options: dict[str, Any], pooled: bool, **common: Any) -> PreTrainedModel:
    """Load a backbone and put one of alignlab's heads on it."""
    with sharding.partition_on_load(options["dtype"]):
        backbone = load_whole(AutoModel, path, new=("pooler.",), **options)
    if sum(getattr(weight, "ds_numel", weight.numel()) for weight in backbone.parameters()) < SMALL:
        AutoModel.from_config(backbone.config, trust_remote_code=False)
    copied = deepcopy(backbone.config)  # the constructor changes it
    if copied.is_encoder_decoder:
        model: Any = DecoderReward(DecoderConfig(copied, pooled=pooled, **common), backbone)
    else:
        model = PooledReward(PooledConfig(copied, **common), backbone)
    model.score.to(backbone.device, options["dtype"])
    return model
