"""Proximal policy optimisation on transformers.Trainer (Schulman et al. 2017; Ziegler et al. 2019; Ouyang et al. 2022).

One rollout: draw a completion for each of `batch_size` prompts, score its text, and note what policy, reference and
value function said of every token. Then learn from it: `num_ppo_epochs` passes in `num_mini_batches` optimizer steps
each. The Trainer brings steps, checkpoints, clipping and precision; its data set is the list of pieces of those steps,
and the first piece of a rollout draws it. All that is random comes from the seed and the numbers of rollout, epoch and
row, so that a run which goes on from a checkpoint between two rollouts ends as one that was never interrupted.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer

from alignlab import losses
from alignlab.chat import Turn
from alignlab.models.engines import engine
from alignlab.models.sampling import Completion
from alignlab.runtime import distributed
from alignlab.runtime.progress import say
from alignlab.training.ppo.actor_critic import Actor, Tokens, lay_out, logps_of
from alignlab.training.ppo.experience import (
    Experience,
    Measured,
    experience,
    minibatches,
    mixed,
    places,
    scale_of,
    shape,
    worth,
)
from alignlab.training.ppo.forward_pass import measure_rows
from alignlab.training.ppo.kl_controller import Controller
from alignlab.training.ppo.model_offload import models_in, resident
from alignlab.training.ppo.options import Options

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alignlab.rewards import Checked
    from alignlab.training.gate_monitor import Watch

STATE = "ppo.json"
WEIGHTS = "actor.pt"


class PPOTrainer(Trainer):  # type: ignore[misc]
    """Trains an `Actor` on what its own completions are worth."""

    def __init__(
        self,
        *,
        prompts: Sequence[Sequence[Turn]],
        ids: Sequence[list[int]],
        reward: "Checked",
        reference: "PreTrainedModel | None",
        controller: Controller,
        options: Options,
        watch: "Watch",
        **trainer: Any,
    ) -> None:
        self.prompts, self.ids, self.reward = prompts, ids, reward
        self.controller, self.options, self.watch = controller, options, watch
        self.scale: tuple[float, float] | None = None  # mean and deviation of the scores of the first rollout
        self.experience: Experience | None = None
        self.parts: list[list[list[list[int]]]] = []
        self.learned: dict[str, list[float]] = defaultdict(list)
        self.seconds: dict[str, float] = defaultdict(float)
        self.tokens = 0  # in prompts and completions so far
        super().__init__(**trainer)
        self.model_accepts_loss_kwargs = False
        self.reference = reference
        for role, models in self.frozen.items():
            for model in models:
                model.to("cpu" if role in options.offload else self.args.device)

    @property
    def actor(self) -> Actor:
        """The module itself, whatever it is wrapped in."""
        return cast(Actor, self.model)

    @property
    def frozen(self) -> dict[str, list[Any]]:
        """The networks that only answer, by their role."""
        return {"reference": [self.reference] if self.reference else [], "reward": models_in(self.reward)}

    @contextmanager
    def at_hand(self, role: str) -> Iterator[None]:
        """Keep the networks of a role on the device, and whole, for a while."""
        models = self.frozen[role]
        with resident(models, self.args.device, role in self.options.offload), distributed.whole(*models):
            yield

    def get_train_dataloader(self) -> "DataLoader[Any]":
        """The numbers of the pieces, in order; every process sees them all."""
        return DataLoader(self.train_dataset, batch_size=1, shuffle=False)

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Tensor:
        """The loss of one piece; where it is a rollout's first, the rollout is drawn."""
        options = self.options
        step, piece = divmod(int(inputs["number"]), options.pieces)
        rollout, rest = divmod(step, options.steps)
        if self.experience is None or self.experience.number != rollout:
            self.begin(rollout)
        epoch, mini = divmod(rest, options.num_mini_batches)
        rows = self.parts[epoch][mini]
        tokens = sum(len(self.gathered.completions[row].tokens) for part in rows for row in part)
        own = rows[piece * distributed.world() + distributed.rank()]
        loss = self.surrogate(model, own, tokens, first=rest == 0)
        return loss * self.parts_each  # the Trainer divides by the number of pieces, and of processes

    @property
    def parts_each(self) -> int:
        """Into how many parts a minibatch is cut, over all processes."""
        return self.options.pieces * distributed.world()

    @property
    def gathered(self) -> Experience:
        """The rollout that is being learned from."""
        assert self.experience is not None
        return self.experience

    def begin(self, number: int) -> None:
        """Draw a rollout, log it, and cut it into the pieces of its steps."""
        self.finish()
        with torch.no_grad(), distributed.unhooked(self.model_wrapped):
            self.experience = self.collect(number)
        self.actor.train()  # the first piece is computed as the others are, so that its ratio tells of dropout
        found = self.gathered
        lengths = [len(p) + len(c.tokens) for p, c in zip(found.prompts, found.completions, strict=True)]
        size, count = len(lengths), self.options.num_mini_batches
        self.tokens += sum(lengths)
        self.parts = [
            minibatches(size, count, self.parts_each, lengths, (self.options.seed, number, epoch))
            for epoch in range(self.options.num_ppo_epochs)
        ]
        self.measured = worth(found) | self.observed | {"policy/kl_coef": self.controller.value}
        self.learned.clear()
        self.controller.update(self.measured["policy/kl"], size)
        self.begun = time.monotonic()

    def finish(self) -> None:
        """Log the rollout that has been learned from."""
        if self.experience is not None:
            self.seconds["update"] += time.monotonic() - self.begun
            found = distributed.gathered(dict(self.learned))
            means = {name: fmean(value for one in found for value in one[name]) for name in self.learned}
            self.log({**self.measured, **means})
            self.watch.step(self.experience.number + 1, {**self.measured, **means})
            self.experience = None

    def collect(self, number: int) -> Experience:
        """Draw completions, score them, and note what the networks say of each token."""
        options, actor = self.options, self.actor
        actor.eval()
        rows = places(len(self.ids), options.batch_size, number, options.seed)
        ids = [self.ids[row] for row in rows]
        with self.timed("rollouts"), self.compute_loss_context_manager():
            seed = mixed(options.seed, number) % 2**63
            draw = partial(engine(options.engine), generator(actor.policy), self.tokenizer, ids)
            completions = distributed.divided(len(ids), lambda own: draw(options.sampling, seed, own))
        with self.timed("reward"), self.at_hand("reward"):
            asked, texts = [self.prompts[row] for row in rows], [completion.text for completion in completions]
            finished = [completion.finished for completion in completions]
            scores = torch.tensor(self.reward.score(asked, texts, finished))
            self.observed = self.watch.observe(self.reward, asked, texts, finished)
        with self.timed("policy, value and reference"), self.at_hand("reference"):
            measured = self.measure(ids, completions)
        if options.standardize and self.scale is None:
            self.scale = scale_of(scores)
        shaped = shape(scores, finished, self.scale, options.missing_eos_penalty)
        return experience(number, ids, completions, scores, shaped, measured, self.controller.value, options.settings)

    def measure(self, ids: Sequence[list[int]], completions: Sequence[Completion]) -> Measured:
        """What policy, reference and value function say of completions: each process is told of its share by all."""
        options = self.options

        def some(own: list[int]) -> list[tuple[Tensor, ...]]:
            size = -(-len(own) // (options.num_mini_batches * options.pieces))
            with self.compute_loss_context_manager():
                return measure_rows(self.actor, self.reference, ids, completions, own, size, self.batch)

        rows = distributed.divided(len(ids), some)
        return Measured(*(torch.stack(column) for column in zip(*rows, strict=True)))

    def surrogate(self, model: Any, rows: Sequence[int], tokens: int, first: bool) -> Tensor:
        """PPO's loss over some rows, as their share of a minibatch of so many tokens."""
        found, options = self.gathered, self.options
        batch = self.batch([found.prompts[row] for row in rows], [list(found.completions[row].tokens) for row in rows])
        size = batch.completion.shape[1]
        old, past, advantage, returns = (
            tensor[list(rows), :size].to(batch.mask.device)
            for tensor in (found.measured.logps, found.measured.values, found.advantages, found.returns)
        )
        logits, values = model(batch)
        logps = logps_of(logits, batch)
        mask = batch.mask
        policy = (losses.clipped_policy(logps, old, advantage, options.cliprange) * mask).sum() / tokens
        value = (losses.clipped_value(values, past, returns, options.cliprange_value) * mask).sum() / tokens
        loss = policy + options.vf_coef * value
        if options.entropy_coef:
            loss = loss - options.entropy_coef * (losses.entropy(logits) * mask).sum() / tokens
        self.note(logps.detach(), old, mask, policy, value, first)
        return loss

    def note(self, logps: Tensor, old: Tensor, mask: Tensor, policy: Tensor, value: Tensor, first: bool) -> None:
        """Keep what is logged of an update."""
        ratio = (logps - old).exp()
        off = ((ratio - 1).abs() > self.options.cliprange).float()
        self.learned["policy/clip_fraction"].append(losses.masked_mean(off, mask).item())
        self.learned["policy/loss"].append(policy.item() * self.parts_each)
        self.learned["value/loss"].append(value.item() * self.parts_each)
        if first:
            self.first_ratio = max(distributed.gathered(((ratio - 1) * mask).abs().max().item())) + 1
            self.learned["policy/first_ratio"].append(self.first_ratio)
            if self.gathered.number == 0:
                self.watch.start(self.reward, self.measured, self.first_ratio)

    def batch(self, prompts: Sequence[list[int]], completions: Sequence[list[int]]) -> Tokens:
        """Lay rows out on the device; what stands for padding does not matter, since masks say what is real."""
        return lay_out(prompts, completions, self.tokenizer.pad_token_id or 0, self.args.device)

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The policy's tokenizer."""
        return self.processing_class

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add up what a part of the loop takes."""
        started = time.monotonic()
        yield
        self.seconds[name] += time.monotonic() - started

    def train(self, resume_from_checkpoint: str | None = None, **options: Any) -> Any:
        """Train, and say where the time went."""
        if resume_from_checkpoint:
            path = Path(resume_from_checkpoint) / STATE
            self.load_state_dict(json.loads(path.read_text(encoding="utf-8")))
        output = super().train(resume_from_checkpoint=resume_from_checkpoint, **options)
        self.finish()
        total = sum(self.seconds.values()) or 1.0
        shares = ", ".join(f"{name} {value:.1f} s ({value / total:.0%})" for name, value in self.seconds.items())
        say(f"ppo: {self.tokens / total:,.0f} tokens a second; {shares}")
        return output

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write a checkpoint's weights (policy and value function) and all that the loop has learned by the way."""
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if not self.is_deepspeed_enabled:  # which keeps the weights with the optimizer
            torch.save(self.actor.state_dict(), folder / WEIGHTS)
        (folder / STATE).write_text(json.dumps(self.state_dict()), encoding="utf-8")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Log the rollout that was learned from, on every process, before the first one writes."""
        self.finish()
        if self.args.should_save:
            self._save(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Go on from what `_save` wrote."""
        folder = Path(resume_from_checkpoint)
        self.actor.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True, map_location="cpu"))

    def state_dict(self) -> dict[str, Any]:
        """The loop's own state between two rollouts."""
        return {
            "scale": self.scale,
            "kl_coef": self.controller.value,
            "reward": self.reward.state_dict(),
            "watch": self.watch.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.scale = None if state["scale"] is None else (state["scale"][0], state["scale"][1])
        self.controller.value = state["kl_coef"]
        self.reward.load_state_dict(state["reward"])
        self.watch.load_state_dict(state["watch"])


def generator(policy: Any) -> Any:
    """The model that generates: an adapted policy's own network, whose settings are the ones that count."""
    return policy.get_base_model() if hasattr(policy, "get_base_model") else policy
