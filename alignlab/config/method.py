"""Settings that methods share; the settings of one method are in its own file, `alignlab/methods/<name>.py`."""

from collections.abc import Iterator
from math import ceil
from typing import Literal

from alignlab.config.settings import Count, NotNegative, Positive, Reference, Settings, Share
from alignlab.errors import Fault


class Method(Settings):
    """Base class of the settings of every method."""

    name: str


class Training(Method):
    """Settings of every method that runs on `transformers.Trainer`, under transformers' names.

    `batch_size` is global: rows per optimizer step, on any hardware.
    """

    policy: Reference
    learning_rate: NotNegative
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    warmup_steps: NotNegative
    num_train_epochs: Positive
    max_steps: Count | None
    batch_size: Count
    max_length: Count
    prompt_share: Share
    weight_decay: NotNegative
    max_grad_norm: Positive
    adam_beta1: Share
    adam_beta2: Share
    adam_epsilon: Positive
    dropout: Share
    activation_checkpointing: bool
    logging_steps: Count
    eval_steps: Count | Literal["epoch"] | None
    save_steps: Count | None
    save_total_limit: Count
    load_best_model_at_end: bool
    early_stopping_patience: Count | None
    push_to_hub: bool
    hub_model_id: str | None

    @property
    def step_size(self) -> int:
        """Return the rows per optimizer step."""
        return self.batch_size

    def steps(self, rows: int) -> int:
        """Return the total number of optimizer steps for a number of training rows."""
        return self.max_steps or ceil(ceil(rows / self.batch_size) * self.num_train_epochs)

    def reads(self, rows: int) -> int:
        """Return the total number of rows read, where a row counts once per epoch."""
        return self.steps(rows) * min(self.batch_size, rows)

    def faults(self) -> Iterator[Fault]:
        if self.max_steps is not None and self.warmup_steps > self.max_steps:
            yield Fault("warmup_steps", f"{self.warmup_steps:g} is more than max_steps ({self.max_steps})")
        if self.early_stopping_patience and not self.load_best_model_at_end:
            yield Fault(
                "early_stopping_patience",
                "stopping early without going back to the best checkpoint keeps a worse model",
                "set load_best_model_at_end=true",
            )
        if self.load_best_model_at_end:
            if not isinstance(self.eval_steps, int):
                yield Fault(
                    "load_best_model_at_end", "the best is unknown without evaluation", "set eval_steps to a number"
                )
            elif not self.save_steps or self.save_steps % self.eval_steps:
                what = f"{self.save_steps} is no multiple of eval_steps ({self.eval_steps})"
                yield Fault("save_steps", f"{what}, as load_best_model_at_end needs")
        if self.push_to_hub and not self.hub_model_id:
            yield Fault("hub_model_id", "missing, though push_to_hub is on", "give hub_model_id=owner/name")
