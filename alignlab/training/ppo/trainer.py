"""Proximal policy optimisation on transformers.Trainer (Schulman et al. 2017; Ziegler et al. 2019; Ouyang et al. 2022).

`PPOTrainer.rollout` is the algorithm: collect, score, measure, learn. The Trainer supplies optimizer steps, gradient
clipping, precision and checkpoints: one pass over its data loader is one rollout, one item is one micro-batch, and it
asks for the first micro-batch of a step when the step before it is done.

All randomness comes from the seed and the numbers of rollout, epoch and row. A run that resumes from a checkpoint
between two rollouts therefore ends with the weights of an uninterrupted run.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate import DistributedType
from torch import Tensor
from transformers import Trainer

from alignlab import losses
from alignlab.models.engines import Engine, serving
from alignlab.models.fitting import fit_rollouts
from alignlab.models.log_probs import PaddedRows, pad_rows
from alignlab.models.sampling import Completion, sample_token_ids
from alignlab.rewards.running_stats import RunningStats
from alignlab.runtime import distributed, sharding
from alignlab.runtime.progress import say
from alignlab.training.ppo import engine_mismatch, rollout_tokens
from alignlab.training.ppo.actor_critic import ActorCritic, learned_state, sampled_model
from alignlab.training.ppo.experience import Experience, Measured, build_experience, score_scale, shape_scores
from alignlab.training.ppo.forward_pass import measure_rows
from alignlab.training.ppo.gradients import clip_separately, set_value_learning_rate
from alignlab.training.ppo.kl_controller import KLController
from alignlab.training.ppo.minibatches import minibatches, mix_seeds, rollout_rows
from alignlab.training.ppo.model_offload import FrozenModels, models_in
from alignlab.training.ppo.options import Options
from alignlab.training.ppo.rollout_loader import MicroBatch, Prompt, RolloutLoader
from alignlab.training.ppo.rollout_metrics import FIRST_RATIO, RolloutLog, farthest_ratio

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alignlab.rewards import Checked
    from alignlab.training.gate_monitor import GateMonitor

STATE = "ppo.json"
WEIGHTS = "actor.pt"


class PPOTrainer(Trainer):  # type: ignore[misc]
    """Trains an `ActorCritic` on the rewards of its own completions; `train_dataset` is a list of `Prompt`."""

    def __init__(
        self,
        *,
        reward: "Checked",
        reference: "PreTrainedModel | None",
        controller: KLController,
        options: Options,
        gate_monitor: "GateMonitor",
        engine: Engine = sample_token_ids,
        **trainer: Any,
    ) -> None:
        super().__init__(**trainer)
        self.model_accepts_loss_kwargs = False  # the Trainer divides the loss by the number of micro-batches
        self.reward = reward
        self.reference = reference  # None: the policy with its adapter off
        self.controller = controller  # holds the weight of the KL penalty
        self.options = options
        self.gate_monitor = gate_monitor
        self.engine = engine
        self.score_stats = RunningStats()  # of the scores of all rollouts so far
        self.rollout_log = RolloutLog()
        networks = {"reference": [reference] if reference else [], "reward": models_in(reward)}
        self.frozen = FrozenModels(networks, options.offload, self.args.device)

    def rollout(self, number: int) -> Iterator[MicroBatch]:
        """Yield the micro-batches of one rollout: collect, score, measure, and learn from what is yielded."""
        self.log_rollout()  # the previous one: the Trainer does not come back after its last micro-batch
        options = self.options
        copies = options.advantage.group_size  # neighbours in the rollout, each with a random stream of its own
        rows = rollout_rows(len(self.train_dataset), options.batch_size // copies, number, options.seed)
        prompts: list[Prompt] = [self.train_dataset[row] for row in rows for _ in range(copies)]

        with torch.no_grad(), sharding.without_hooks(self.model_wrapped):
            self.actor.eval()
            with sharding.gather_weights(self.actor.policy):
                completions = self.collect(prompts, mix_seeds(options.seed, number) % 2**63)
            scores, observed = self.score(prompts, completions)
            measured = self.measure(prompts, completions, number)

        ids, kl_coef = [prompt.ids for prompt in prompts], self.controller.value
        shaped = self.shape(scores, completions)
        experience = build_experience(number, ids, completions, scores, shaped, measured, kl_coef, options.advantage)
        experience, mismatch = engine_mismatch.correct(experience, options.importance_cap)
        self.rollout_log.begin(experience, observed | {"policy/kl_coef": kl_coef} | mismatch)
        self.controller.update(self.rollout_log.measured["policy/kl"], len(prompts))
        if distributed.is_first():
            rollout_tokens.keep(self.gate_monitor.folder, experience, self.processing_class, options.num_rollouts)

        for step, minibatch in enumerate(self.minibatches(experience)):
            tokens = sum(len(completions[row].tokens) for micro_batch in minibatch for row in micro_batch)
            for micro_batch in minibatch[distributed.rank() :: distributed.world_size()]:
                yield MicroBatch(experience=experience, rows=micro_batch, tokens=tokens, step=step)

    def collect(self, prompts: Sequence[Prompt], seed: int) -> list[Completion]:
        """Sample a completion for each prompt; the processes share the work."""
        ids, policy, tokenizer = [prompt.ids for prompt in prompts], self.actor.policy, self.processing_class
        sample = partial(self.engine, sampled_model(policy), tokenizer, ids)
        sampling = fit_rollouts(policy, ids, self.options.sampling, self.options.rollout_batch_size)
        with self.rollout_log.timed("rollouts"), serving(self.engine, policy, tokenizer):
            return distributed.map_rows(len(ids), lambda rows: sample(sampling, seed, rows))

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> tuple[Tensor, dict[str, float]]:
        """Return the reward of each completion, [batch], and the metrics that gates and curves read, by name."""
        turns, texts = [prompt.turns for prompt in prompts], [completion.text for completion in completions]
        finished = [completion.finished for completion in completions]
        with self.rollout_log.timed("reward"), self.frozen.on_device("reward"):
            scored = self.reward.score(turns, texts, finished)
            return torch.tensor(scored.total), self.gate_monitor.observe(scored, turns, texts, finished)

    def measure(self, prompts: Sequence[Prompt], completions: Sequence[Completion], number: int) -> Measured:
        """Compute log-probabilities, values, entropy and KL of each token; the processes share the work."""
        ids = [prompt.ids for prompt in prompts]
        batches = self.batches_to_measure(ids, completions, number)
        on_device = self.frozen.on_device("reference")
        with self.rollout_log.timed("policy, value and reference"):
            share = measure_rows(self.actor, self.reference, on_device, ids, completions, batches, self.pad)
        rows = {row: fields for part in distributed.all_gather(share) for row, fields in part.items()}
        return Measured(*(torch.stack(column) for column in zip(*(rows[row] for row in range(len(ids))), strict=True)))

    def batches_to_measure(
        self, prompts: Sequence[list[int]], completions: Sequence[Completion], number: int
    ) -> list[list[int]]:
        """Return the batches of rows that this process measures: in float32, its share of all rows by length.

        In bfloat16 a row's log-probabilities depend on the rows beside it: ratios of a real model differ from 1 by up
        to 0.3. There they are the micro-batches of the first pass, which then begins with ratios of exactly 1.
        """
        options = self.options
        lengths = [len(ids) + len(completion.tokens) for ids, completion in zip(prompts, completions, strict=True)]
        if self.actor.policy.dtype != torch.float32:
            first = self.minibatches_of(0, number, lengths)
            return [rows for part in first for rows in part[distributed.rank() :: distributed.world_size()]]
        mine = range(distributed.rank(), len(prompts), distributed.world_size())
        order = sorted(mine, key=lambda row: (lengths[row], row))
        size = -(-len(order) // (options.num_mini_batches * options.micro_batches))
        return [order[start : start + size] for start in range(0, len(order), size)]

    def shape(self, scores: Tensor, completions: Sequence[Completion]) -> Tensor:
        """Return what is maximised, [batch]; the scores of all rollouts so far set the scale."""
        standardize = self.options.standardize
        scale = score_scale(scores, self.score_stats, self.reward.score_range) if standardize else None
        finished = [completion.finished for completion in completions]
        return shape_scores(scores, finished, scale, self.options.missing_eos_penalty)

    def minibatches(self, experience: Experience) -> Iterator[list[list[int]]]:
        """Yield the rows of each optimizer step of a rollout, as micro-batches of all processes."""
        for epoch in range(self.options.num_ppo_epochs):
            yield from self.minibatches_of(epoch, experience.number, experience.lengths)

    def minibatches_of(self, epoch: int, rollout: int, lengths: Sequence[int]) -> list[list[list[int]]]:
        """Return the minibatches of one pass over a rollout, as micro-batches of all processes."""
        seed = self.options.seed, rollout, epoch
        return minibatches(len(lengths), self.options.num_mini_batches, self.micro_batches, lengths, seed)

    @property
    def micro_batches(self) -> int:
        """Return the micro-batches of a minibatch, over all processes."""
        return self.options.micro_batches * distributed.world_size()

    def compute_loss(self, model: Any, inputs: MicroBatch, return_outputs: bool = False, **_: Any) -> Tensor:
        """Return PPO's loss of one micro-batch: the mean over the minibatch's tokens, as the Trainer averages it."""
        options, tokens = self.options, inputs["tokens"]
        experience, rows = inputs["experience"], inputs["rows"]
        batch = self.pad(
            [experience.prompts[row] for row in rows], [experience.completions[row].tokens for row in rows]
        )
        mask, size = batch.mask, batch.completion.shape[1]

        def rows_of(tensor: Tensor) -> Tensor:
            return tensor[rows, :size].to(mask.device)

        (logps, entropy), values = model(batch, with_entropy=options.entropy_coef > 0)
        old_logps = rows_of(experience.measured.logps)
        advantages = rows_of(experience.advantages)
        loss = policy = (losses.clipped_policy(logps, old_logps, advantages, options.cliprange) * mask).sum() / tokens
        losses_by_name = {"policy/loss": policy.item()}
        if experience.returns is not None:
            old_values, returns = rows_of(experience.measured.values), rows_of(experience.returns)
            value = (losses.clipped_value(values, old_values, returns, options.cliprange_value) * mask).sum() / tokens
            loss, losses_by_name["value/loss"] = loss + options.vf_coef * value, value.item()
        if experience.loss_kl_coef:
            kl = losses.kl_estimate(logps, rows_of(experience.measured.reference), options.advantage.kl_estimator)
            loss = loss + experience.loss_kl_coef * (kl * mask).sum() / tokens
        if options.entropy_coef:
            loss = loss - options.entropy_coef * entropy.sum() / tokens
        ratio = (logps.detach() - old_logps).exp()
        self.log_update(ratio, mask, tokens, losses_by_name)
        if inputs["step"] == 0:
            self.check_first_ratio(ratio, mask, experience.number)
        return loss * self.micro_batches  # the Trainer divides by the number of micro-batches, and of processes

    def log_update(self, ratio: Tensor, mask: Tensor, tokens: int, losses_by_name: dict[str, float]) -> None:
        """Log the losses of one micro-batch and the share of its tokens whose ratio is clipped."""
        clipped = ((ratio - 1).abs() > self.options.cliprange) * mask
        parts = losses_by_name | {"policy/clip_fraction": clipped.sum().item() / tokens}
        self.rollout_log.add({name: value * self.micro_batches for name, value in parts.items()})

    def check_first_ratio(self, ratio: Tensor, mask: Tensor, number: int) -> None:
        """Log the ratio farthest from 1 in each micro-batch of a first step; in the first rollout, ask the gates."""
        distances = ((ratio - 1) * mask).flatten()
        self.rollout_log.add({FIRST_RATIO: distances[distances.abs().argmax()].item() + 1})
        ratios = self.rollout_log.learned[FIRST_RATIO]
        if number == 0 and len(ratios) == self.options.micro_batches:  # the whole step, before the optimizer
            farthest = farthest_ratio(distributed.all_gather(farthest_ratio(ratios)))
            self.gate_monitor.check_before(self.reward, self.rollout_log.measured, farthest)

    def log_rollout(self) -> None:
        """Log the rollout that was learned from, and ask the gates, unless that is done."""
        if (number := self.rollout_log.number) is not None:
            metrics = self.rollout_log.end()
            self.log(dict(metrics))
            self.gate_monitor.check_during(number + 1, metrics)

    def create_optimizer(self, model: Any = None) -> Any:
        """Return the Trainer's optimizer; the value function's weights may have a learning rate of their own."""
        optimizer = super().create_optimizer(model)
        if self.options.value_learning_rate is not None:
            set_value_learning_rate(optimizer, self.actor, self.options.value_learning_rate)
        return optimizer

    def _clip_grad_norm(self, model: Any) -> Any:
        """Clip the gradients of policy and value function, each by its own norm; DeepSpeed clips them together."""
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            return super()._clip_grad_norm(model)
        norms = clip_separately(self.actor, self.accelerator.clip_grad_norm_, self.args.max_grad_norm)
        self.rollout_log.add({f"{part}/grad_norm": norm for part, norm in norms.items()})
        return norms["policy"]

    def pad(self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> PaddedRows:
        """Return rows as padded tensors on the device; any padding would do, since the masks tell what is real."""
        return pad_rows(prompts, completions, self.processing_class.pad_token_id or 0, self.args.device)

    @property
    def actor(self) -> ActorCritic:
        """Return the module itself, without its wrappers."""
        return cast(ActorCritic, self.model)

    def get_train_dataloader(self) -> Any:
        """Return the loader of rollouts; each process gets its own micro-batches."""
        return RolloutLoader(self.rollout, self.options.steps * self.options.micro_batches)

    def train(self, resume_from_checkpoint: str | None = None, **options: Any) -> Any:
        """Train, and report the throughput."""
        if resume_from_checkpoint:
            self.load_state_dict(json.loads((Path(resume_from_checkpoint) / STATE).read_text(encoding="utf-8")))
        output = super().train(resume_from_checkpoint=resume_from_checkpoint, **options)
        self.log_rollout()
        say(f"rollouts: {self.rollout_log.throughput()}")
        return output

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write a checkpoint; every process first logs the rollout, whose metrics are part of the gates' state."""
        self.log_rollout()
        sharding.save_learned_only(self.model_wrapped, self.actor.policy)
        if self.args.should_save:
            self._save(output_dir)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the weights of policy and value function, and the loop's state."""
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if not self.is_deepspeed_enabled:  # DeepSpeed writes the weights with the optimizer
            torch.save(learned_state(self.actor), folder / WEIGHTS)
        (folder / STATE).write_text(json.dumps(self.state_dict()), encoding="utf-8")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the weights that `_save` wrote."""
        weights = torch.load(Path(resume_from_checkpoint) / WEIGHTS, weights_only=True, map_location="cpu")
        self.actor.load_state_dict(weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the loop's state between two rollouts."""
        return {
            "scores": self.score_stats.state_dict(),
            "kl_coef": self.controller.value,
            "reward": self.reward.state_dict(),
            "gates": self.gate_monitor.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the loop's state."""
        self.score_stats.load_state_dict(state["scores"])
        self.controller.value = state["kl_coef"]
        self.reward.load_state_dict(state["reward"])
        self.gate_monitor.load_state_dict(state["gates"])
