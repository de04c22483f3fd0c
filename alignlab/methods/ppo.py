"""Proximal policy optimisation: raise the reward of the policy's own completions, close to the reference.

The reward reads text (`conf/reward/`); by default it is the reward model that the rm stage trains. The reference is
the model that the stage starts from. `alignlab.training.ppo.trainer` holds the loop.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from alignlab.config.gates import Gates
from alignlab.config.method import Training
from alignlab.config.settings import Count, NotNegative, Positive, Reference, Share
from alignlab.config.vllm import Vllm
from alignlab.errors import Fault, failure
from alignlab.runtime import distributed, sharding
from alignlab.runtime.stage_run import Run

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from alignlab.training.ppo.actor_critic import ActorCritic
    from alignlab.training.ppo.options import Options
    from alignlab.training.ppo.rollout_loader import Prompt

VIEW = "prompts"
NEEDS = {"policy": "sft", "reward_model": "rm"}
ROLES = ("policy", "value", "reference", "reward")
GENERATES = True


class Config(Training):
    """Settings of `conf/method/ppo.yaml`."""

    reward_model: Reference
    total_episodes: Count
    num_ppo_epochs: Count
    num_mini_batches: Count
    max_new_tokens: Count
    max_new_tokens_from: Count | None
    engine: Literal["auto", "generate", "continuous", "vllm"]
    vllm: Vllm
    importance_cap: Positive | None
    temperature: Positive
    value: Literal["separate", "shared", "adapter", "none"]
    advantage: Literal["gae", "group", "rloo"]
    group_size: Count
    scale_groups: bool
    kl_in: Literal["reward", "loss"]
    offload: Annotated[tuple[Literal["reference", "reward"], ...], Field(strict=False)]
    value_learning_rate: NotNegative | None
    vf_coef: NotNegative
    kl_coef: NotNegative
    kl_estimator: Literal["k1", "k2", "k3"]
    kl_target: Positive | None
    kl_horizon: Count
    cliprange: Positive
    cliprange_value: Positive
    entropy_coef: NotNegative
    gamma: Share
    lam: Share
    standardize: bool
    missing_eos_penalty: NotNegative
    gates: Gates

    @property
    def num_rollouts(self) -> int:
        """Return the number of rollouts."""
        return -(-self.total_episodes // self.batch_size)

    @property
    def step_size(self) -> int:
        """Return the completions of an optimizer step."""
        return self.batch_size // self.num_mini_batches

    def steps(self, rows: int) -> int:
        """Return the number of optimizer steps; it does not depend on the number of prompts."""
        return self.num_rollouts * self.num_ppo_epochs * self.num_mini_batches

    def reads(self, rows: int) -> int:
        """Return the number of completions that are learned from, counted once an epoch."""
        return self.num_rollouts * self.batch_size * self.num_ppo_epochs

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if self.batch_size % self.num_mini_batches:
            what = f"{self.num_mini_batches} does not divide batch_size ({self.batch_size})"
            yield Fault("num_mini_batches", what, "every step has the same number of completions")
        if self.dropout:
            yield Fault("dropout", f"{self.dropout:g} randomises the importance ratio", "PPO needs 0")
        if self.max_steps is not None:
            yield Fault("max_steps", "ppo counts completions", "set total_episodes")
        if self.eval_steps is not None or self.load_best_model_at_end:
            yield Fault("eval_steps", "ppo logs every rollout and has no validation loss", "leave it null")
        yield from self.advantage_faults()
        if self.max_new_tokens >= self.max_length:
            yield Fault("max_new_tokens", f"{self.max_new_tokens} leaves no room in max_length ({self.max_length})")
        if (least := self.max_new_tokens_from) is not None:
            if least > self.max_new_tokens:
                yield Fault("max_new_tokens_from", f"{least} is more than max_new_tokens ({self.max_new_tokens})")
            if self.engine == "continuous":
                what = "continuous batching has one limit for all completions"
                yield Fault("max_new_tokens_from", what, "leave it null, or use engine=generate")
            if self.missing_eos_penalty:
                what = "would punish completions for a limit that was drawn for them"
                yield Fault("missing_eos_penalty", what, "use 0, or leave max_new_tokens_from null")

    def advantage_faults(self) -> Iterator[Fault]:
        if self.batch_size % self.group_size:
            what = f"{self.group_size} does not divide batch_size ({self.batch_size})"
            yield Fault("group_size", what, "a rollout holds all completions of a prompt")
        if self.advantage == "gae" and self.value == "none":
            yield Fault("value", "none leaves gae without a value function", "use value=separate, or advantage=group")
        if self.advantage != "gae" and self.value != "none":
            what = f"{self.value} is a value function, which advantage={self.advantage} does not use"
            yield Fault("value", what, "use value=none")
        if self.advantage != "gae" and self.group_size < 2:
            what = f"{self.group_size} leaves advantage={self.advantage} nothing to compare a completion with"
            yield Fault("group_size", what, "use at least 2")
        if self.kl_in == "loss" and self.kl_estimator == "k1":
            what = "k1 is no penalty in the loss, where its gradient has a mean of 0"
            yield Fault("kl_estimator", what, "use k3, or kl_in=reward")


def train(run: Run[Config]) -> None:
    """Improve `run.inputs["policy"]` by the reward of the config."""
    from alignlab.models.engines import running
    from alignlab.models.load import precision
    from alignlab.rewards import load_reward
    from alignlab.runtime.progress import say
    from alignlab.training.gate_monitor import GateMonitor
    from alignlab.training.ppo.kl_controller import KLController
    from alignlab.training.ppo.trainer import PPOTrainer
    from alignlab.training.trainer import fit

    config, method = run.config, run.method
    policy, reference, tokenizer = load_policy_and_reference(run)
    prompts = load_prompts(run, policy, tokenizer)
    actor = build_actor(run, policy, tokenizer)
    options = loop_options(run, longest=max(len(prompt.ids) for prompt in prompts) + method.max_new_tokens)
    say(f"{method.name}: {in_words(options)}")
    # Before the arguments: once they name ZeRO-3, every model that is loaded is partitioned.
    reward = load_reward(config.reward, run.inputs, config.hardware, dataset=config.dataset)
    gate_monitor = GateMonitor(method.gates, run.folder, config, method.name, run.sources)
    with running(method.engine, method.vllm, precision(config.hardware)) as engine:
        fit(
            run,
            PPOTrainer,
            actor,
            tokenizer,
            training_arguments(run, options),
            {"train": prompts},
            every=options.steps,
            reward=reward,
            reference=reference,
            controller=KLController(method.kl_coef, method.kl_target, method.kl_horizon),
            options=options,
            gate_monitor=gate_monitor,
            engine=engine,
        )


def load_policy_and_reference(run: Run[Config]) -> tuple[Any, Any, Any]:
    """Return policy, reference and tokenizer; the reference is None where it is the policy with its adapter off."""
    from alignlab.models.load import adapter, load_frozen, load_options, load_trainable
    from alignlab.runtime.progress import say

    path, hardware, implementation = run.inputs["policy"], run.config.hardware, run.config.model.attention
    policy, tokenizer = load_trainable(path, hardware, run.method.dropout, **load_options(run.config))
    lora = adapter(run.config, policy, lora_dropout=0.0)
    if lora is None:
        return policy, load_frozen(path, hardware, implementation), tokenizer
    from peft import get_peft_model

    if (settings := run.config.model.adapter) and settings.lora_dropout:
        say(f"ppo: lora_dropout={settings.lora_dropout:g} is ignored; dropout randomises the importance ratio")
    policy = get_peft_model(policy, lora, autocast_adapter_dtype=not sharding.partitions_weights())
    if run.method.value == "adapter":
        from alignlab.training.ppo.value_models import add_value_adapter

        add_value_adapter(policy, lora)
    return policy, None, tokenizer


def load_prompts(run: Run[Config], policy: Any, tokenizer: Any) -> "list[Prompt]":
    """Return the training prompts, cut so that a completion fits behind each."""
    from alignlab.data import view
    from alignlab.models.truncation import encode_prompts, room_for_prompt
    from alignlab.training.ppo.rollout_loader import Prompt

    method = run.method
    prompts = [row["prompt"] for row in view(run.config.dataset, VIEW, "train")]
    if not prompts:
        raise failure("dataset, train", "holds no prompts", "give more rows")
    room = room_for_prompt(policy, method.max_new_tokens, "method.max_new_tokens") or method.max_length
    room = min(room, method.max_length - method.max_new_tokens)
    ids = encode_prompts(tokenizer, prompts, room)
    return [Prompt(turns, row) for turns, row in zip(prompts, ids, strict=True)]


def build_actor(run: Run[Config], policy: Any, tokenizer: Any) -> "ActorCritic":
    """Return the policy with its value function, if it has one."""
    from alignlab.models.sampling import masked_tokens, special_tokens
    from alignlab.training.ppo.actor_critic import ActorCritic
    from alignlab.training.ppo.value_models import value_model

    method = run.method
    value = value_model(run) if method.value == "separate" else None
    masked = masked_tokens(tokenizer, special_tokens(policy, tokenizer)[1])
    adapted, critic = method.value == "adapter", method.value != "none"
    actor = ActorCritic(policy, value, method.temperature, masked, adapted, critic)
    if sharding.partitions_weights() and actor.head is not None:  # DeepSpeed partitions weights of one dtype
        actor.head.to(policy.dtype)
    return actor


def training_arguments(run: Run[Config], options: "Options") -> "TrainingArguments":
    """Return the Trainer's arguments; it counts optimizer steps where the config counts rollouts."""
    from transformers import TrainingArguments

    from alignlab.training.trainer import common_arguments

    return TrainingArguments(
        **common_arguments(run, micro=1)
        | {
            "max_steps": options.num_rollouts * options.steps,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": options.micro_batches,
            "logging_steps": run.method.logging_steps * options.steps,
            "save_steps": (run.method.save_steps or 1) * options.steps,
            "remove_unused_columns": False,
        }
    )


def loop_options(run: Run[Config], longest: int) -> "Options":
    """Return the settings of the loop; the longest row decides how many micro-batches a minibatch has."""
    from alignlab.models.sampling import Sampling
    from alignlab.training.ppo.experience import AdvantageOptions
    from alignlab.training.ppo.options import Options
    from alignlab.training.trainer import rows_at_once

    method = run.method
    micro = rows_at_once(run, method.step_size // distributed.world_size(), lambda: longest)
    limits = method.max_new_tokens, method.batch_size, method.max_new_tokens_from
    gae = method.kl_estimator, method.gamma, method.lam
    return Options(
        batch_size=method.batch_size,
        num_rollouts=method.num_rollouts,
        num_ppo_epochs=method.num_ppo_epochs,
        num_mini_batches=method.num_mini_batches,
        micro_batches=-(-method.step_size // (micro * distributed.world_size())),
        cliprange=method.cliprange,
        cliprange_value=method.cliprange_value,
        vf_coef=method.vf_coef,
        entropy_coef=method.entropy_coef,
        standardize=method.standardize,
        missing_eos_penalty=method.missing_eos_penalty,
        advantage=AdvantageOptions(*gae, method.advantage, method.group_size, method.scale_groups, method.kl_in),
        sampling=Sampling(method.temperature, 1.0, *limits),
        seed=run.config.seed,
        value_learning_rate=method.value_learning_rate,
        importance_cap=method.importance_cap,
        rollout_batch_size=run.config.hardware.rollout_batch_size,
        offload=method.offload,
    )


def in_words(options: "Options") -> str:
    """Return the size of the loop in words."""
    size, count = options.batch_size // options.num_mini_batches, options.micro_batches
    copies = options.advantage.group_size
    prompts = f" of {options.batch_size // copies} prompts" if copies > 1 else ""
    return (
        f"{options.num_rollouts} rollouts of {options.batch_size} completions{prompts}, "
        f"{options.num_ppo_epochs} passes of "
        f"{options.num_mini_batches} steps with {size} completions each, in {count} micro-batch{'es' * (count > 1)}"
    )
