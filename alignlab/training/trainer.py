"""What every method on `transformers.Trainer` shares: arguments, checkpoints, the last save.

`batch_size` is global; micro-batches and gradient accumulation are derived from it here. See
`alignlab.training.step_weights` for the rows of a step, `alignlab.training.checkpoints` for resuming.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.config.hardware import Hardware
from alignlab.config.method import Training
from alignlab.errors import failure
from alignlab.models import load
from alignlab.models.log_probs import limit_tiles
from alignlab.runtime import distributed, sharding, signals
from alignlab.runtime.signals import RESUME
from alignlab.runtime.stage_run import Run, Track
from alignlab.training.step_weights import lengths

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback

SAME_NAME = (  # settings of a method that are keywords of TrainingArguments
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "num_train_epochs", "weight_decay", "max_grad_norm"),
    *("adam_beta1", "adam_beta2", "adam_epsilon", "activation_checkpointing", "logging_steps"),
)
TOKENS = 2048  # in a micro-batch on a CPU: with more, allocating the logits takes longer than computing them


def micro_batch_size(run: Run[Training], rows: "datasets.Dataset | None") -> int:
    """Return the rows of a step that a device computes at once; raises a `Failure` where steps would be unequal."""
    share = run.method.batch_size // distributed.world_size()
    size = rows_at_once(run, share, None if rows is None else lambda: max(lengths(rows)))
    if share % size:
        what = f"{size} does not divide a device's share of method.batch_size ({share})"
        raise failure("hardware.micro_batch_size", what, "every step has the same number of rows")
    return size


def rows_at_once(run: Run[Training], whole: int, longest: Callable[[], int] | None) -> int:
    """Return how many of `whole` rows are computed at once.

    It is what the config sets, else all of them; on a CPU, as many as stay under `TOKENS` by the longest row's tokens.
    """
    if run.config.hardware.micro_batch_size or longest is None or load.device(run.config.hardware).type != "cpu":
        return min(run.config.hardware.micro_batch_size or whole, whole)
    fit = TOKENS // longest()
    return max(size for size in range(1, whole + 1) if whole % size == 0 and size <= max(fit, 1))


def token_budget(run: Run[Training], model: Any, longest: int) -> int | None:
    """Return the most tokens of a micro-batch, None where steps are laid out by rows; `longest` is a row's tokens."""
    from alignlab.training.token_layout import applies

    if not applies(run.config.hardware, model):
        return None
    if run.config.hardware.micro_batch_size is None and load.device(run.config.hardware).type == "cpu":
        return TOKENS
    return rows_at_once(run, run.method.batch_size, None) * longest


def common_arguments(
    run: Run[Training],
    rows: "datasets.Dataset | None" = None,
    micro: int | None = None,
    budget: int | None = None,
) -> dict[str, Any]:
    """Return the keywords of `transformers.TrainingArguments` that follow from the config and the training rows.

    `micro` sets the rows of a micro-batch, if the caller derives it. With a `budget`, the trainer splits whole steps.
    """
    method, hardware = run.method, run.config.hardware
    micro = method.batch_size if budget else micro or micro_batch_size(run, rows)
    on_cpu = load.device(hardware).type == "cpu"
    return {
        "output_dir": str(run.folder / "checkpoints"),
        **{name: getattr(method, name) for name in SAME_NAME},
        "max_steps": method.max_steps or -1,
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": method.batch_size // (micro * distributed.world_size()),
        **evaluating_and_saving(method),
        "seed": run.config.seed,
        "data_seed": run.config.seed,
        "use_cpu": on_cpu,
        "ddp_backend": "gloo" if on_cpu and distributed.world_size() > 1 else None,
        "ddp_find_unused_parameters": False if distributed.world_size() > 1 else None,
        "deepspeed": deepspeed(run),
        "fsdp": True if hardware.fsdp else None,
        "fsdp_config": hardware.fsdp.block() if hardware.fsdp else None,
        "logging_nan_inf_filter": False,  # see FiniteLoss
        # Only DeepSpeed reads it: elsewhere it would mean autocast (see `alignlab.training.master_weights`).
        "bf16": hardware.deepspeed is not None and load.precision(hardware).itemsize == 2,
        "dataloader_pin_memory": not on_cpu,
        "disable_tqdm": True,
        "report_to": "none",
    }


def evaluating_and_saving(method: Training) -> dict[str, Any]:
    """Return the keywords that say when a trainer evaluates and saves."""
    return {
        "eval_strategy": "no" if not method.eval_steps else "epoch" if method.eval_steps == "epoch" else "steps",
        "eval_steps": None if method.eval_steps == "epoch" else method.eval_steps,
        "save_strategy": "steps" if method.save_steps else "no",
        "save_steps": method.save_steps or 500,
        "save_total_limit": None,  # see alignlab.training.checkpoints
        "load_best_model_at_end": method.load_best_model_at_end,
        "metric_for_best_model": "eval_loss" if method.load_best_model_at_end else None,
        "greater_is_better": False if method.load_best_model_at_end else None,
    }


def gather_in_precision(settings: Any, hardware: Hardware) -> None:
    """Let FSDP2 gather weights in the run's precision from shards in float32; it reduces gradients in float32."""
    if hardware.fsdp:
        from torch.distributed.fsdp import MixedPrecisionPolicy

        policy = MixedPrecisionPolicy(
            param_dtype=load.precision(hardware), reduce_dtype=load.trained_precision(hardware)
        )
        settings.fsdp_plugin_args["bases_precision_policy"] = policy


def deepspeed(run: Run[Training]) -> dict[str, Any] | None:
    """Return DeepSpeed's config, if it is used; it allows a last checkpoint in shards of other processes."""
    settings = run.config.hardware.deepspeed
    if settings is None:
        return None
    from alignlab.training.checkpoints import has_other_shards, last_checkpoint

    moved = has_other_shards(last_checkpoint(run.folder / "checkpoints"))
    return settings.block() | ({"checkpoint": {"load_universal": True}} if moved else {})


def fit(
    run: Run[Training],
    trainer_class: "type[Trainer]",
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    settings: Any,
    rows: "dict[str, datasets.Dataset]",
    every: int = 1,
    attributes: dict[str, Any] | None = None,
    **options: Any,
) -> "Trainer":
    """Train, from the last whole checkpoint if there is one, then save the model and prove that it reads back.

    `every` is the number of optimizer steps after which there is a state to save. `attributes` are the trainer's own.
    """
    from transformers import PrinterCallback

    from alignlab.training.checkpoints import Checkpoints
    from alignlab.training.measured_precision import PrecisionCallback, frozen_networks

    limit_tiles()
    gather_in_precision(settings, run.config.hardware)
    trainer = with_bases(trainer_class, attributes or {})(
        model=model,
        args=settings,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"] if run.method.eval_steps else None,
        processing_class=tokenizer,
        callbacks=[*callbacks(run.method, run.track), checkpoints := Checkpoints(run.method.save_total_limit, every)],
        **options,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(PrecisionCallback(run.folder, frozen_networks(trainer)))
    with signals.defer_stop():
        with checkpoints.open():
            trainer.train(resume_from_checkpoint=checkpoint_to_resume(Path(settings.output_dir)))
        if checkpoints.stopped:
            raise signals.stopped()
        save(getattr(trainer.model, "policy", trainer.model), tokenizer, run)
    return trainer


def with_bases(trainer_class: "type[Trainer]", attributes: dict[str, Any]) -> Any:
    """Return a trainer's class with what every trainer here has, and with attributes of its own."""
    from alignlab.training.master_weights import MasterWeights

    return type(
        trainer_class.__name__, (FiniteLoss, SingleStep, ReshardedOptimizer, MasterWeights, trainer_class), attributes
    )


def checkpoint_to_resume(folder: Path) -> str | None:
    """Return the last whole checkpoint, in the form that as many processes as there are now can read; None without."""
    from alignlab.training.checkpoints import has_other_shards, last_checkpoint, reshard

    last = last_checkpoint(folder)
    if last and has_other_shards(last):
        reshard(Path(last))
    return last


def callbacks(method: Training, track: Track) -> "list[TrainerCallback]":
    """Return the callbacks that every method has."""
    from transformers import EarlyStoppingCallback

    from alignlab.training.callbacks import TrackerCallback

    patience = method.early_stopping_patience
    return [TrackerCallback(track, method.name), *([EarlyStoppingCallback(patience)] if patience else [])]


def save(model: Any, tokenizer: "PreTrainedTokenizerBase", run: Run[Training]) -> None:
    """Save the trained model, whose weights may be sharded over processes."""
    if run.config.hardware.fsdp:
        sharding.unshard(model)
    with sharding.gather_weights(model):
        distributed.run_on_first(lambda: load.save(model, tokenizer, run.output, run.inputs["policy"]))


class ReshardedOptimizer:
    """A trainer whose DeepSpeed checkpoints hold what learns, and resume in another number of processes."""

    def _save_optimizer_and_scheduler(self: Any, output_dir: str) -> None:
        if self.is_deepspeed_enabled:  # the weights, too, less those that adapters leave as they were
            engine = self.model_wrapped
            engine.save_checkpoint = partial(type(engine).save_checkpoint, engine, exclude_frozen_parameters=True)
        super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]

    def _load_optimizer_and_scheduler(self: Any, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        import torch

        from alignlab.training.checkpoints import has_other_shards

        if has_other_shards(checkpoint):  # DeepSpeed gives all groups one step counter, which each would then raise
            states = self.deepspeed.optimizer.optimizer.state.values()
            for state in states:
                state["step"] = torch.as_tensor(state["step"]).clone()


class SingleStep:
    """A trainer without a warm-up where there is one step: the first step of a warm-up has the learning rate 0."""

    def create_scheduler(self: Any, num_training_steps: int, optimizer: Any = None) -> Any:
        if num_training_steps == 1:
            self.args.warmup_steps = 0
        return super().create_scheduler(num_training_steps, optimizer)  # type: ignore[misc]


class FiniteLoss:
    """A trainer that stops at a loss that is not finite, before it reaches the weights."""

    def training_step(self: Any, *args: Any, **options: Any) -> Any:
        loss = super().training_step(*args, **options)  # type: ignore[misc]
        if not math.isfinite(loss.item()):
            now = f"lower method.learning_rate, or use hardware.dtype=float32; {RESUME}"
            raise failure(f"step {self.state.global_step + 1}", f"the loss is {loss.item()}", now)
        return loss
