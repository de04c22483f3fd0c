"""Proximal policy optimisation: raise what a reward says of the policy's own completions, close to where it started.

The reward speaks text (`conf/reward/`): by default it is the reward model that the rm stage trains. The reference is
the model that the stage starts from. See `alignlab.training.ppo.trainer` for the loop.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from alignlab.config.gates import Gates
from alignlab.config.method import Training
from alignlab.config.settings import Count, NotNegative, Positive, Share
from alignlab.errors import Fault, failure
from alignlab.runtime import distributed
from alignlab.runtime.stage_run import Run

VIEW = "prompts"
NEEDS = {"policy": "sft", "reward_model": "rm"}
ROLES = ("policy", "value", "reference", "reward")


class Config(Training):
    """Settings of `conf/method/ppo.yaml`."""

    reward_model: str
    total_episodes: Count
    num_ppo_epochs: Count
    num_mini_batches: Count
    max_new_tokens: Count
    max_new_tokens_from: Count | None
    engine: Literal["generate", "continuous"]
    temperature: Positive
    value: Literal["separate", "shared", "adapter"]
    offload: Annotated[tuple[Literal["reference", "reward"], ...], Field(strict=False)]
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
        """Rollouts in all."""
        return -(-self.total_episodes // self.batch_size)

    @property
    def step_size(self) -> int:
        """Completions an optimizer step."""
        return self.batch_size // self.num_mini_batches

    def steps(self, rows: int) -> int:
        """Optimizer steps in all."""
        return self.num_rollouts * self.num_ppo_epochs * self.num_mini_batches

    def reads(self, rows: int) -> int:
        """Completions that are learned from in all, each as often as it is."""
        return self.num_rollouts * self.batch_size * self.num_ppo_epochs

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if self.batch_size % self.num_mini_batches:
            said = f"{self.num_mini_batches} does not divide batch_size ({self.batch_size})"
            yield Fault("num_mini_batches", said, "every step has the same number of completions")
        if self.dropout:
            yield Fault("dropout", f"{self.dropout:g} would make every ratio a matter of luck", "use 0")
        if self.max_steps is not None:
            yield Fault("max_steps", "ppo counts completions", "set total_episodes")
        if self.eval_steps is not None or self.load_best_model_at_end:
            yield Fault("eval_steps", "ppo logs every rollout and has no validation loss", "leave it null")
        if self.value == "adapter" and self.activation_checkpointing:
            said = "would compute the value function's states again with the policy's adapter"
            yield Fault("activation_checkpointing", said, "use value=separate")
        if self.max_new_tokens >= self.max_length:
            yield Fault("max_new_tokens", f"{self.max_new_tokens} leaves no room in max_length ({self.max_length})")
        if (least := self.max_new_tokens_from) is not None:
            if least > self.max_new_tokens:
                yield Fault("max_new_tokens_from", f"{least} is more than max_new_tokens ({self.max_new_tokens})")
            if self.engine == "continuous":
                said = "continuous batching has one limit for all"
                yield Fault("max_new_tokens_from", said, "leave it null, or use engine=generate")
            if self.missing_eos_penalty:
                said = "would punish a completion for the limit that was drawn for it"
                yield Fault("missing_eos_penalty", said, "use 0, or leave max_new_tokens_from null")


def train(run: Run[Config]) -> None:
    """Improve `run.inputs["policy"]` by the reward of the config."""
    from transformers import TrainingArguments

    from alignlab.chat import encode_prompt
    from alignlab.data import view
    from alignlab.models.load import adapter, attention, load_frozen, load_trainable
    from alignlab.models.sampling import never_sampled, room_in, shortened, special_tokens
    from alignlab.rewards import load_reward
    from alignlab.runtime.progress import say
    from alignlab.training.gate_monitor import Watch
    from alignlab.training.ppo.actor_critic import Actor
    from alignlab.training.ppo.kl_controller import Controller
    from alignlab.training.ppo.trainer import PPOTrainer
    from alignlab.training.trainer import arguments, fit

    method = run.method
    policy, tokenizer = load_trainable(run.inputs["policy"], method.dropout, attention(run.config))
    reference = None
    if lora := adapter(run.config, lora_dropout=0.0):
        from peft import get_peft_model

        if (asked := run.config.model.adapter) and asked.lora_dropout:
            say(f"ppo: lora_dropout={asked.lora_dropout:g} is left off, or every ratio would be a matter of luck")
        policy = get_peft_model(policy, lora)
        if method.value == "adapter":
            add_value_adapter(policy, lora)
    else:
        reference = load_frozen(run.inputs["policy"], attention(run.config))
    prompts = [row["prompt"] for row in view(run.config.dataset, VIEW, "train")]
    if not prompts:
        raise failure("dataset, train", "holds no prompts", "give more rows")
    room = room_in(policy, method.max_new_tokens, "method.max_new_tokens") or method.max_length
    room = min(room, method.max_length - method.max_new_tokens)
    ids = shortened([encode_prompt(tokenizer, turns) for turns in prompts], room)
    value = value_model(run) if method.value == "separate" else None
    never = never_sampled(tokenizer, special_tokens(policy, tokenizer)[1])
    actor = Actor(policy, value, method.temperature, never, adapted=method.value == "adapter")
    options = loop(run, max(map(len, ids)) + method.max_new_tokens)
    each = options.steps
    say(
        f"ppo: {options.num_rollouts} rollouts of {options.batch_size} completions, {options.num_ppo_epochs} passes of "
        f"{options.num_mini_batches} steps with {options.batch_size // options.num_mini_batches} completions each, "
        f"in {options.pieces} piece{'s' * (options.pieces > 1)}"
    )
    reward = load_reward(run.config.reward, run.inputs, run.config.hardware, dataset=run.config.dataset)
    watch = Watch(method.gates, run.folder, run.config)
    settings = TrainingArguments(
        **arguments(run, micro=1)
        | {
            "max_steps": options.num_rollouts * each,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": options.pieces,
            "logging_steps": method.logging_steps * each,
            "save_steps": (method.save_steps or 1) * each,
            "remove_unused_columns": False,
        }
    )
    numbers = [{"number": number} for number in range(options.num_rollouts * each * options.pieces)]
    trainer_options: dict[str, Any] = {
        "prompts": prompts,
        "ids": ids,
        "reward": reward,
        "reference": reference,
        "controller": Controller(method.kl_coef, method.kl_target, method.kl_horizon),
        "options": options,
        "watch": watch,
    }
    fit(run, PPOTrainer, actor, tokenizer, settings, {"train": numbers}, every=each, **trainer_options)


def loop(run: Run[Config], longest: int) -> Any:
    """The settings of the loop; how a minibatch is cut is worked out from the hardware and the longest row."""
    from alignlab.models.sampling import Sampling
    from alignlab.training.ppo.experience import Settings
    from alignlab.training.ppo.options import Options
    from alignlab.training.trainer import together

    method = run.method
    mini = method.batch_size // method.num_mini_batches
    micro = together(run, mini // distributed.world(), lambda: longest)
    return Options(
        batch_size=method.batch_size,
        num_rollouts=method.num_rollouts,
        num_ppo_epochs=method.num_ppo_epochs,
        num_mini_batches=method.num_mini_batches,
        pieces=-(-mini // (micro * distributed.world())),
        cliprange=method.cliprange,
        cliprange_value=method.cliprange_value,
        vf_coef=method.vf_coef,
        entropy_coef=method.entropy_coef,
        standardize=method.standardize,
        missing_eos_penalty=method.missing_eos_penalty,
        settings=Settings(method.kl_estimator, method.gamma, method.lam),
        sampling=Sampling(
            method.temperature, 1.0, method.max_new_tokens, method.batch_size, method.max_new_tokens_from
        ),
        seed=run.config.seed,
        engine=method.engine,
        offload=method.offload,
    )


def add_value_adapter(policy: Any, lora: Any) -> None:
    """Put a second adapter on the policy, for the value function; both learn."""
    from alignlab.training.ppo.actor_critic import VALUE

    if policy.config.is_encoder_decoder:
        raise failure("method.value", "adapter is for decoders", "use value=separate or shared")
    policy.add_adapter(VALUE, lora)
    policy.set_adapter("default")
    for name, weight in policy.named_parameters():
        if f".{VALUE}." in name:
            weight.requires_grad_(True)


def value_model(run: Run[Config]) -> Any:
    """The body of the value function: the reward model's where it reads the policy's token ids, else the policy's."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    from alignlab.models.load import dropouts

    policy, judge = run.inputs["policy"], run.inputs.get("reward_model")
    if judge is not None and same_tokens(AutoTokenizer.from_pretrained(policy), judge):
        from alignlab.rewards import load_reward_model

        model = load_reward_model(judge, run.config.hardware).model.float()
        body = getattr(model, model.base_model_prefix)
    else:
        settings = AutoConfig.from_pretrained(policy)
        with distributed.loading():
            body = AutoModel.from_pretrained(policy, dtype="float32", **dropouts(settings, run.method.dropout))
    return body.train()


def same_tokens(tokenizer: Any, judge: Path) -> bool:
    """Whether a reward model reads the same token ids as the policy."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(judge)
    return bool(theirs.get_vocab() == tokenizer.get_vocab() and theirs.chat_template == tokenizer.chat_template)
