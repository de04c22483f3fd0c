"""The networks of PPO's value function: a separate model, or an adapter on the policy's frozen weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from alignlab.errors import failure
from alignlab.runtime import sharding
from alignlab.runtime.stage_run import Run
from alignlab.training.ppo.actor_critic import VALUE


def add_value_adapter(policy: Any, lora: Any) -> None:
    """Add a second trainable adapter to the policy, for the value function."""
    if policy.config.is_encoder_decoder:
        raise failure("method.value", "adapter is for decoders", "use value=separate or shared")
    value_lora = replace(lora, trainable_token_indices=None)  # the policy's new tokens are one set
    policy.add_adapter(VALUE, value_lora, autocast_adapter_dtype=not sharding.partitions_weights())
    policy.set_adapter("default")
    for name, weight in policy.named_parameters():
        if f".{VALUE}." in name:
            weight.requires_grad_(True)


def value_model(run: Run[Any]) -> Any:
    """Return the value function's body: the reward model's if it has the policy's token ids, else the policy's."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    from alignlab.models import own_code
    from alignlab.models.load import precision, set_dropout, trained_precision

    policy, reward_model = run.inputs["policy"], run.inputs.get("reward_model")
    trust = own_code.is_trusted(policy)
    dtype = trained_precision(run.config.hardware)
    if reward_model is not None and same_tokens(
        AutoTokenizer.from_pretrained(policy, trust_remote_code=trust), reward_model
    ):
        from alignlab.rewards import load_reward_model

        model = load_reward_model(reward_model, run.config.hardware).model.to(dtype)
        body = getattr(model, model.base_model_prefix)
    else:
        settings = set_dropout(AutoConfig.from_pretrained(policy, trust_remote_code=trust), run.method.dropout)
        with sharding.partition_on_load(precision(run.config.hardware)):
            options = {"config": settings, "dtype": dtype, "attn_implementation": run.config.model.attention}
            body = AutoModel.from_pretrained(policy, **options, trust_remote_code=trust)
    return body.train()


def same_tokens(tokenizer: Any, reward_model: Path) -> bool:
    """Return whether a reward model reads the same token ids as the policy."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(reward_model, trust_remote_code=False)
    return bool(theirs.get_vocab() == tokenizer.get_vocab() and theirs.chat_template == tokenizer.chat_template)
