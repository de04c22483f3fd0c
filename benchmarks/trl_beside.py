"""Train with TRL's SFTTrainer or DPOTrainer as it comes, on the model and the rows that alignlab prepares.

    python benchmarks/trl_beside.py sft|dpo SETTINGS…   # alignlab's settings: model, dataset, batch size, steps, length

It prints the throughput and the peak memory in the words of a run of alignlab, so that both are read alike. Tokens are
those that the trainer counts itself (`num_tokens`: all tokens that are no padding), from the first log to the last.
"""

import sys
import tempfile
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

import alignlab
from alignlab.data import view
from alignlab.models.kinds import base_model


class Clock(TrainerCallback):  # type: ignore[misc]
    """Keeps the time and the tokens so far of each log."""

    def __init__(self) -> None:
        self.logs: list[tuple[float, float]] = []

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        """Keep a log that counts tokens."""
        if "num_tokens" in logs:
            self.logs.append((time.monotonic(), logs["num_tokens"]))


def main(method: str, *settings: str) -> None:
    """Train, and print what it cost."""
    config = alignlab.compose(f"method={method}", *settings)
    folder, training, hardware = base_model(config.model, config.dataset), config.method, config.hardware
    on_gpu = hardware.device != "cpu" and torch.cuda.is_available()
    rows = view(config.dataset, "demonstrations" if method == "sft" else "pairs", "train")
    names = ("completion",) if method == "sft" else ("chosen", "rejected")
    rows = rows.map(lambda row: {name: [{"role": "assistant", "content": row[name]}] for name in names})
    rows = rows.select_columns(["prompt", *names]).select(
        range(min(len(rows), training.batch_size * training.max_steps))
    )
    trainer_class, config_class = (SFTTrainer, SFTConfig) if method == "sft" else (DPOTrainer, DPOConfig)
    with tempfile.TemporaryDirectory() as output:
        arguments = config_class(
            output_dir=output,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=max(1, training.batch_size // 8),
            max_steps=training.max_steps,
            max_length=training.max_length,
            learning_rate=training.learning_rate,
            logging_steps=2,
            report_to="none",
            save_strategy="no",
            bf16=on_gpu,
            use_cpu=not on_gpu,
            seed=config.seed,
        )
        clock = Clock()
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
        more = {"ref_model": AutoModelForCausalLM.from_pretrained(folder, dtype="float32")} if method == "dpo" else {}
        trainer = trainer_class(
            model=model,
            args=arguments,
            train_dataset=rows,
            processing_class=AutoTokenizer.from_pretrained(folder),
            callbacks=[clock],
            **more,
        )
        trainer.train()
    (first, before), (last, after) = clock.logs[0], clock.logs[-1]
    print(f"{method}: {(after - before) / (last - first):,.0f} tokens a second")
    if on_gpu:
        print(f"{method}: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB of GPU memory")


if __name__ == "__main__":
    main(*sys.argv[1:])
