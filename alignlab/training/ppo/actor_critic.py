"""The networks of PPO in one module: the policy, its value function, and the frozen reference.

A conversation is laid out as a prompt, padded on the left, and a completion, padded on the right, with positions
that count real tokens. Only the completion's logits are computed, divided by the sampling temperature, with the
tokens that are never sampled ruled out: the distribution that the completion was drawn from, everywhere.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Tokens(NamedTuple):
    """Rows of prompt and completion, each [batch, length]; the masks are 1 where a token is real."""

    prompt: Tensor
    prompt_mask: Tensor
    completion: Tensor
    mask: Tensor


class Read(NamedTuple):
    """What a policy says of completions: logits [batch, tokens, vocabulary] and the states they come from."""

    logits: Tensor
    states: Tensor


VALUE = "value"  # what the value function's adapter is called


class Actor(nn.Module):
    """A policy with a value function: a head on the policy's own states, or a model or an adapter of its own."""

    def __init__(
        self,
        policy: "PreTrainedModel",
        value: "PreTrainedModel | None",
        temperature: float,
        never: Sequence[int],
        adapted: bool = False,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.value = value
        self.adapted = adapted  # the policy has an adapter for values
        self.head = nn.Linear(width(value or policy), 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.config = policy.config
        self.temperature = temperature
        self.never = list(never)

    def forward(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """The logits of completions, [batch, tokens, vocabulary], and the values of their states, [batch, tokens]."""
        read = self.read(self.policy, tokens)
        return read.logits, self.values(tokens, read)

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """Compute the networks' states again on the way back, where the Trainer asks for it."""
        for model in filter(None, (self.policy, self.value)):
            model.gradient_checkpointing_enable(**options)

    def read(self, model: Any, tokens: Tokens) -> Read:
        """Read completions with a policy, the actor's own or the reference."""
        out, states = run(model, tokens, heads=True)
        logits = out.float() / self.temperature
        logits[..., self.never] = -torch.inf
        return Read(logits, states)

    def values(self, tokens: Tokens, read: Read) -> Tensor:
        """The values of the states before each token, [batch, tokens]."""
        states = read.states
        if self.value is not None:
            states = run(self.value, tokens, heads=False)[1]
        elif self.adapted:
            with reading_with(self.policy, VALUE):
                states = run(body(self.policy), tokens, heads=False)[1]
        return self.head(states.to(self.head.weight.dtype)).squeeze(-1).float()


def run(model: Any, tokens: Tokens, heads: bool) -> tuple[Tensor, Tensor]:
    """Run a model over completions: its logits (with `heads`) and last states at the places that predict them."""
    size = tokens.completion.shape[1]
    if model.config.is_encoder_decoder:
        return run_decoder(model, tokens, heads)
    ids = torch.cat([tokens.prompt, tokens.completion[:, :-1]], dim=1)
    mask = torch.cat([tokens.prompt_mask, tokens.mask[:, :-1]], dim=1)
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        "use_cache": False,
    }
    if not heads:
        states = model(**inputs).last_hidden_state[:, -size:]
        return states, states
    out = model(**inputs, logits_to_keep=size, output_hidden_states=True)
    return out.logits, out.hidden_states[-1][:, -size:]


def run_decoder(model: Any, tokens: Tokens, heads: bool) -> tuple[Tensor, Tensor]:
    """The same for an encoder-decoder: the encoder reads the prompt, the decoder the completion."""
    begin = torch.full_like(tokens.completion[:, :1], model.config.decoder_start_token_id)
    inputs = {
        "input_ids": tokens.prompt,
        "attention_mask": tokens.prompt_mask,
        "decoder_input_ids": torch.cat([begin, tokens.completion[:, :-1]], dim=1),
        "use_cache": False,
    }
    if not heads:
        states = model(**inputs).last_hidden_state
        return states, states
    out = model(**inputs, output_hidden_states=True)
    return out.logits, out.decoder_hidden_states[-1]


def body(policy: Any) -> Any:
    """An adapted decoder without its head, adapters included."""
    model = policy.get_base_model()
    return getattr(model, model.base_model_prefix)


@contextmanager
def learning_on(policy: Any) -> Iterator[None]:
    """Let every weight learn afterwards that does so now: peft freezes the adapters that do not read."""
    learning = [weight for weight in policy.parameters() if weight.requires_grad]
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)


@contextmanager
def reading_with(policy: Any, adapter: str) -> Iterator[None]:
    """Let another adapter of the policy read for a while."""
    own = policy.active_adapter
    with learning_on(policy):
        policy.set_adapter(adapter)
        yield
        policy.set_adapter(own)


def width(model: Any) -> int:
    """The size of a model's states."""
    return int(model.config.get_text_config().hidden_size)


def logps_of(logits: Tensor, tokens: Tokens) -> Tensor:
    """Log-probabilities of the completions' tokens, [batch, tokens]; 0 where a token is padding."""
    logps = logits.log_softmax(-1).gather(-1, tokens.completion[..., None]).squeeze(-1)
    return logps.where(tokens.mask.bool(), 0.0)  # padding itself is ruled out: -inf, which times 0 would be no number


@contextmanager
def reference_of(policy: Any, frozen: Any | None) -> Iterator[Any]:
    """Give the reference: a model of its own, or the policy with its adapter off."""
    if frozen is not None:
        yield frozen
        return
    with learning_on(policy), policy.disable_adapter():
        yield policy


def lay_out(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], pad: int, device: Any) -> Tokens:
    """Pad prompts on the left and completions on the right."""
    wide, long = max(map(len, prompts)), max(map(len, completions))
    left = [[pad] * (wide - len(ids)) + list(ids) for ids in prompts]
    right = [list(ids) + [pad] * (long - len(ids)) for ids in completions]
    real_left = [[0] * (wide - len(ids)) + [1] * len(ids) for ids in prompts]
    real_right = [[1] * len(ids) + [0] * (long - len(ids)) for ids in completions]
    return Tokens(*(torch.tensor(rows, device=device) for rows in (left, real_left, right, real_right)))
