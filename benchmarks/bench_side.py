"""Train with one of the sides that `bench.py` compares, on token ids that alignlab prepares, and print what it cost.

    python benchmarks/bench_side.py sft alignlab SETTINGS…    # prints one line of JSON, a `Cost`

Every side trains the same model on the same rows. SFT without packing and DPO have the same rows in each step, so that
their losses can be compared. Seconds are CPU time (`time.process_time`) with `hardware.threads=1`, else wall time. Step
1 fills caches: it is counted as start-up, and so is what comes before it, but for the imports and the tokenising.
"""

import json
import logging
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

import alignlab
from alignlab.methods import dpo, rm, sft
from alignlab.models.kinds import base_model
from alignlab.runtime import heap, matmul
from alignlab.runtime.stage_run import Run
from alignlab.training.batching import Buckets, ShuffledSteps

METHODS = {"sft": sft, "dpo": dpo, "rm": rm}
TOKENISE = {"sft": sft.tokenise_demonstrations, "dpo": dpo.tokenise_pairs, "rm": rm.tokenise_pairs}


class Cost(NamedTuple):
    """Seconds of start-up and of the steps after it, losses of all steps, work of these steps, and peak memory.

    `reference` is the part of TRL's start-up in which it computes the reference of the rows of these steps.
    `tokens` are no padding, and count each pair's prompt twice; `rows` are packed ones where TRL packs. `weights` are
    those of the base model.
    """

    start: float
    reference: float
    steps: float
    losses: list[float]
    tokens: int
    rows: int
    peak_mb: float
    weights: int


class Clock(TrainerCallback):  # type: ignore[misc]
    """Keeps the time and the loss of each step; it is a Trainer's callback, and a tracker of alignlab."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.ends: list[float] = []
        self.losses: list[float] = []
        self.tokens: list[float] = []
        self.reference = 0.0

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Keep a step of alignlab."""
        if "train/loss" in metrics:
            self.keep(metrics["train/loss"], metrics["train/num_tokens"])

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        """Keep a step of a Trainer."""
        if "loss" in logs:
            self.keep(logs["loss"], logs["num_tokens"])

    def keep(self, loss: float, tokens: float) -> None:
        """Keep the loss of a step that has just ended, and the tokens so far."""
        self.tokens.append(tokens)
        self.ends.append(self.now())
        self.losses.append(loss)


def main(method: str, side: str, *settings: str) -> None:
    """Train, and print what it cost."""
    logging.disable(logging.WARNING)
    config = alignlab.compose(f"method={method}", "method.logging_steps=1", *settings)
    torch.set_num_threads(config.hardware.threads or 1)
    torch.set_flush_denormal(True)
    clock = Clock(time.process_time if torch.get_num_threads() == 1 else time.perf_counter)
    policy = base_model(config.model, config.dataset)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, config.method, {"policy": policy}, Path(folder), clock)
        rows = in_order(run, TOKENISE[method](run, AutoTokenizer.from_pretrained(policy))["train"])
        began = clock.now()
        if side == "alignlab":
            matmul.use(config.hardware.matmul)  # as each run does; the other sides use torch as it comes
            heap.keep_freed()
            METHODS[method].train(run)
        else:
            SIDES[side](method, run, rows, clock)
    cost = Cost(
        clock.ends[0] - began,
        clock.reference * (1 - 1 / len(clock.ends)),
        clock.ends[-1] - clock.ends[0],
        clock.losses,
        round(clock.tokens[-1] - clock.tokens[0]),
        config.method.batch_size * (len(clock.ends) - 1),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        weights_of(policy),
    )
    print(json.dumps(cost._asdict()))


def weights_of(folder: Path) -> int:
    """Count the weights of a model in a folder, without loading them."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())
    return total


def in_order(run: Any, rows: Any) -> Any:
    """Return the rows in the order in which alignlab reads them in the first epoch."""
    if "length" in rows.column_names:
        order: Buckets = Buckets(rows["length"], run.method.batch_size, run.config.seed)
    else:
        order = ShuffledSteps([0] * len(rows), run.method.batch_size, run.config.seed)
    return rows.select(list(order))


def completions(row: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Return the token ids of a pair's completions."""
    return row.get("completion_ids") or (row["chosen_ids"], row["rejected_ids"])


class Sequential:
    """A trainer that reads rows as they come: prepared, and in the order of alignlab's steps."""

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore[attr-defined]


class Tokenised(Sequential):
    """A trainer whose rows are token ids already."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


class Timed:
    """A DPOTrainer whose reference in advance is timed: it computes the rows of all steps once, each epoch's reference.

    alignlab and TRL as it comes compute the reference of a row in its step, so that it is part of their steps.
    """

    clock: Clock

    def _precompute_ref_logps(self, *arguments: Any) -> Any:
        began = self.clock.now()
        rows = super()._precompute_ref_logps(*arguments)  # type: ignore[misc]
        self.clock.reference = self.clock.now() - began
        return rows


def common_arguments(is_best: bool, run: Any) -> dict[str, Any]:
    """Return the arguments of all of TRL's trainers; a length is for SFT alone, whose rows TRL may pack."""
    settings = run.method
    return {
        "output_dir": str(run.folder),
        "per_device_train_batch_size": settings.batch_size,
        "max_steps": settings.max_steps,
        "max_length": settings.max_length if settings.name == "sft" else None,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "bf16": str(run.config.hardware.dtype) == "bfloat16",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": run.config.seed,
        **{name: getattr(settings, name) for name in ("learning_rate", "lr_scheduler_type", "warmup_steps")},
        **({"gradient_checkpointing": False} if is_best else {}),
    }


def trl(is_best: bool, method: str, run: Any, rows: Any, clock: Clock) -> None:
    """Train with TRL as it comes, or with the best of its switches on a CPU with enough memory."""
    settings, path = run.method, run.inputs["policy"]
    if not (method == "sft" and is_best):  # packing needs more rows for as many steps
        rows = rows.select(range(settings.batch_size * settings.max_steps))
    common = common_arguments(is_best, run)
    tokenizer = AutoTokenizer.from_pretrained(path)
    options: dict[str, Any] = {"processing_class": tokenizer, "callbacks": [clock]}
    load = AutoModelForCausalLM.from_pretrained
    if run.config.model.adapter:
        from alignlab.models.load import adapter

        options["peft_config"] = adapter(run.config, load(path))
    if method == "sft":
        arguments, base = (
            SFTConfig(**common, packing=is_best, shuffle_dataset=False, completion_only_loss=True),
            type("", (Sequential, SFTTrainer), {}),
        )
    elif method == "dpo":
        arguments = DPOConfig(**common, beta=settings.beta, precompute_ref_log_probs=is_best)
        base = type("", (Timed, Tokenised, DPOTrainer), {"clock": clock})
        if not run.config.model.adapter:
            options["ref_model"] = load(path, dtype="float32")
    else:
        rows = rows.map(together, remove_columns=rows.column_names).shuffle(seed=run.config.seed)  # TRL has no buckets
        arguments, base = RewardConfig(**common), type("", (Tokenised, RewardTrainer), {})

        def load(path: Path, **options: Any) -> Any:
            torch.manual_seed(run.config.seed)
            model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, **options)
            model.config.pad_token_id = tokenizer.pad_token_id
            return model

    base(model=load(path, dtype="float32"), args=arguments, train_dataset=rows, **options).train()


def together(pair: dict[str, Any]) -> dict[str, list[int]]:
    """Return a pair as TRL's RewardTrainer reads it, each completion with its prompt."""
    chosen, rejected = completions(pair)
    return {"chosen_ids": pair["prompt_ids"] + chosen, "rejected_ids": pair["prompt_ids"] + rejected}


def bare(method: str, run: Any, rows: Any, clock: Clock) -> None:
    """Train by a loop with no trainer: rows one at a time without padding, logits of completions alone, fused AdamW."""
    model = AutoModelForCausalLM.from_pretrained(run.inputs["policy"], dtype="float32").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.method.learning_rate, weight_decay=0.0, fused=True)
    size = run.method.batch_size
    for step in range(run.method.max_steps):
        part = [rows[row] for row in range(step * size, (step + 1) * size)]
        count = sum(sum(row["completion_mask"][1:]) for row in part)
        total = 0.0
        for row in part:
            ids, mask = torch.tensor(row["input_ids"]), torch.tensor(row["completion_mask"])[1:].bool()
            states = model.model(input_ids=ids[None], use_cache=False).last_hidden_state[0, :-1][mask]
            loss = F.cross_entropy(model.lm_head(states), ids[1:][mask], reduction="sum") / count
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.keep(total, sum(clock.tokens[-1:]) + sum(len(row["input_ids"]) for row in part))


SIDES: dict[str, Callable[..., None]] = {
    "trl": lambda *arguments: trl(False, *arguments),
    "trl_best": lambda *arguments: trl(True, *arguments),
    "bare": bare,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
