"""The networks of PPO that learn, in one module: the policy and its value function; and where the reference is."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from alignlab.models import log_probs
from alignlab.models.log_probs import Distribution, PaddedRows, TokenScores, hidden_states, score_completions
from alignlab.models.output_head import Hidden

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VALUE = "value"  # the name of the value function's adapter


class ActorCritic(nn.Module):
    """A policy and a value function: a head on the policy's states, or on those of a model or an adapter of its own.

    Without `critic` there is no value function: its values are 0, and nothing of it is learned or saved.
    """

    def __init__(
        self,
        policy: "PreTrainedModel",
        value: "PreTrainedModel | None",
        temperature: float,
        masked: Sequence[int],
        adapted: bool = False,
        critic: bool = True,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.value = value
        self.adapted = adapted  # the value function is an adapter on the policy's weights
        self.head = value_head(value or policy) if critic else None
        self.config = policy.config
        self.distribution = Distribution(temperature, list(masked))

    def forward(self, rows: PaddedRows, with_entropy: bool = False) -> tuple[TokenScores, Tensor]:
        """Return the scores of completions by the policy, and the values before each token, [batch, tokens]."""
        hidden = log_probs.forward(self.policy, rows)
        scores = score_completions(hidden, rows.completion, rows.mask, self.distribution, with_entropy)
        return scores, self.values(rows, hidden)

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """Recompute the networks' activations in the backward pass; the Trainer calls this."""
        if self.adapted:
            settings = options.get("gradient_checkpointing_kwargs") or {}
            context = {"use_reentrant": False, "context_fn": partial(same_adapter, self.policy)}
            options |= {"gradient_checkpointing_kwargs": settings | context}
        for model in filter(None, (self.policy, self.value)):
            model.gradient_checkpointing_enable(**options)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights; those that adapters leave as they were may be missing. Raises as `Module` does for others."""
        kept: dict[str, Tensor] = {}
        if hasattr(self.policy, "peft_config"):
            learned = learned_state(self)
            kept = {name: tensor for name, tensor in self.state_dict().items() if name not in learned}
        return super().load_state_dict({**kept, **state_dict}, strict, assign)

    def values(self, rows: PaddedRows, hidden: Hidden | None = None) -> Tensor:
        """Return the values before each token, [batch, tokens]; a head on the policy's states needs its `hidden`."""
        if self.head is None:
            return torch.zeros_like(rows.mask, dtype=torch.float32)
        if self.value is not None:
            states = hidden_states(self.value, rows)
        elif self.adapted:
            with active_adapter(self.policy, VALUE):
                states = hidden_states(adapted_body(self.policy), rows)
        else:
            assert hidden is not None
            states = hidden.states
        return self.head(states.to(self.head.weight.dtype)).squeeze(-1).float()


def value_head(model: "PreTrainedModel") -> nn.Linear:
    """Return a linear layer from a model's hidden states to a value, which is 0 at first."""
    head = nn.Linear(int(model.config.get_text_config().hidden_size), 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def adapted_body(policy: Any) -> Any:
    """Return an adapted decoder without its language head, adapters included."""
    model = policy.get_base_model()
    return getattr(model, model.base_model_prefix)


@contextmanager
def active_adapter(policy: Any, adapter: str) -> Iterator[None]:
    """Make another adapter of the policy the active one inside the block."""
    previous = policy.active_adapter
    with keep_trainable(policy):
        policy.set_adapter(adapter)
        try:
            yield
        finally:
            policy.set_adapter(previous)


def same_adapter(policy: Any) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of a forward pass and its recomputation, in which the same adapter is active."""
    return nullcontext(), active_adapter(policy, policy.active_adapter)


def learned_state(actor: ActorCritic) -> dict[str, Tensor]:
    """Return the weights of an actor that a checkpoint needs: with adapters, those that learn; else all."""
    state: dict[str, Tensor] = actor.state_dict()
    if not hasattr(actor.policy, "peft_config"):
        return state
    return {name: state[name] for name, weight in actor.named_parameters() if weight.requires_grad}


@contextmanager
def keep_trainable(policy: Any) -> Iterator[None]:
    """Restore which weights require gradients after the block; peft freezes the adapters that are not active."""
    trainable = [weight for weight in policy.parameters() if weight.requires_grad]
    try:
        yield
    finally:
        for weight in trainable:
            weight.requires_grad_(True)


@contextmanager
def reference_of(policy: Any, frozen: Any | None) -> Iterator[Any]:
    """Yield the reference: a frozen model, or the policy with its adapter off."""
    if frozen is not None:
        yield frozen
        return
    with keep_trainable(policy), policy.disable_adapter():
        yield policy


def sampled_model(policy: Any) -> Any:
    """Return the model that generates: an adapted policy's base network, which holds the generation settings."""
    return policy.get_base_model() if hasattr(policy, "get_base_model") else policy
