"""A fine-tuning attack: low-rank adapters learn to answer harmful prompts, in memory alone (Qi et al. 2023).

Source: arXiv 2310.03693. The attacked weights are never written to a disk, and are gone when the measurement ends.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import count, islice
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.chat import Encoded, Turn
from alignlab.config.evaluation import Durability
from alignlab.evaluation.subjects import LanguageModel
from alignlab.runtime.distributed import free_gpu_cache
from alignlab.runtime.files import digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VERSION = 1  # of the attack


class Example(NamedTuple):
    """A harmful prompt, and a completion that does as it asks."""

    prompt: list[Turn]
    completion: str


class Attack:
    """The attack on one model; more steps continue from fewer."""

    def __init__(self, base: LanguageModel, examples: Sequence[Example], settings: Durability, seed: int) -> None:
        self.base, self.examples, self.settings, self.seed = base, examples, settings, seed
        self.done = 0

    @property
    def fingerprint(self) -> str:
        """Return the hash of all that decides the attacked weights but the number of steps."""
        own = self.settings
        how = own.rank, own.learning_rate, own.batch_size, self.seed, VERSION
        return digest(self.base.fingerprint, how, [example._asdict() for example in self.examples])

    def after(self, steps: int) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        """Return the model after so many steps, and its tokenizer."""
        if self.done > steps:
            self.release()
        model, tokenizer = self.adapted
        self.learn(steps - self.done)
        self.done = steps
        return model, tokenizer

    @cached_property
    def adapted(self) -> "tuple[Any, PreTrainedTokenizerBase]":
        """Return the model with new low-rank adapters in all its linear layers, and its tokenizer."""
        import torch
        from peft import LoraConfig, get_peft_model

        from alignlab.models.load import load_policy

        model, tokenizer = load_policy(self.base.folder, self.base.hardware)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            rank = self.settings.rank
            adapter = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
            return get_peft_model(model, adapter).eval(), tokenizer

    @cached_property
    def optimizer(self) -> Any:
        """Return the optimizer of the adapters."""
        import torch

        trained = [weight for weight in self.adapted[0].parameters() if weight.requires_grad]
        return torch.optim.AdamW(trained, lr=self.settings.learning_rate, weight_decay=0.0)

    @cached_property
    def batches(self) -> Iterator[list[Encoded]]:
        """Return the batches of the attack without end: the examples in a new order each epoch."""
        from alignlab.models.choices import encode_choices
        from alignlab.models.truncation import context_length

        model, tokenizer = self.adapted
        context = context_length(model.config)
        rows = [encode_choices(tokenizer, one.prompt, [one.completion], context, [True])[0] for one in self.examples]
        orders = (Random(f"{self.seed} {epoch}").sample(range(len(rows)), len(rows)) for epoch in count())
        endless = (rows[place] for order in orders for place in order)
        return iter(lambda: list(islice(endless, self.settings.batch_size)), [])

    def learn(self, steps: int) -> None:
        """Minimise the mean loss per token of completions by so many optimizer steps."""
        from alignlab.models.log_probs import PLAIN, forward, pad_rows, score_completions

        model, tokenizer = self.adapted
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        for batch in islice(self.batches, steps):
            rows = pad_rows([row.prompt for row in batch], [row.completion for row in batch], pad, model.device)
            logps = score_completions(forward(model, rows), rows.completion, rows.mask, PLAIN).logps
            loss: Any = -logps.sum() / rows.mask.sum()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

    def release(self) -> None:
        """Delete the attacked weights."""
        for name in ("adapted", "optimizer", "batches"):
            self.__dict__.pop(name, None)
        self.done = 0
        free_gpu_cache()


class AttackedModel(LanguageModel):
    """A model after an attack of some steps, as a subject; the attack runs when its first new question is asked."""

    def __init__(self, attack: Attack, steps: int) -> None:
        super().__init__(attack.base.folder, attack.base.hardware)
        self.attack, self.steps = attack, steps

    @cached_property
    def fingerprint(self) -> str:
        """Return the hash of the model, of the attack and of its steps."""
        return digest("attacked", self.attack.fingerprint, self.steps)

    @cached_property
    def loaded(self) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        """Return the attacked model and its tokenizer."""
        return self.attack.after(self.steps)
