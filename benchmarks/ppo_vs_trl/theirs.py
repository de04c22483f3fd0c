"""trl's side: its PPOTrainer on the material of the comparison; prints what it measured as JSON.

    .venv-trl/bin/python theirs.py SETTINGS.json

The trainer runs as it is; what is added is a note of the time after each update, and a stopwatch around the functions
that it draws, scores and reads with.
"""

import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
from datasets import Dataset
from sides import Asked, Told, peak
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer


class Marks(TrainerCallback):  # type: ignore[misc]
    """Notes the time, and where it went so far, after each update; keeps what was logged."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds, self.marks, self.rows = seconds, [], []  # type: ignore[var-annotated]

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note an update."""
        self.marks.append({"at": time.monotonic(), **self.seconds})

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        """Keep an update's row."""
        self.rows.append({"score": logs["objective/scores"], "kl": logs["objective/kl"]})


def main() -> None:
    """Train, and tell."""
    asked = Asked(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as name:
        trainer, marks = made(asked, name)
        trainer.train()
    print(json.dumps(Told(asked.batch_size, marks.marks, peak(), marks.rows)._asdict()))


def made(asked: Asked, folder: str) -> tuple[Any, Marks]:
    """The trainer, with its stopwatches."""
    tokenizer = AutoTokenizer.from_pretrained(asked.policy, padding_side="left")
    policy, reference = (AutoModelForCausalLM.from_pretrained(asked.policy, dtype="float32") for _ in range(2))
    reward, value = (
        AutoModelForSequenceClassification.from_pretrained(asked.judge, num_labels=1, dtype="float32") for _ in range(2)
    )
    prompts = json.loads(Path(asked.prompts).read_text(encoding="utf-8"))
    seconds = timed(reward)
    marks = Marks(seconds)
    trainer = PPOTrainer(
        args=settings(asked, folder),
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=reward,
        value_model=value,
        train_dataset=Dataset.from_dict({"input_ids": prompts}),
        eval_dataset=Dataset.from_dict({"input_ids": prompts[:1]}),
        callbacks=[marks],
    )
    return trainer, marks


def settings(asked: Asked, folder: str) -> Any:
    """The same settings in trl's words."""
    return PPOConfig(
        output_dir=folder, seed=asked.seed, use_cpu=True, bf16=False, gradient_checkpointing=False,
        per_device_train_batch_size=asked.batch_size // asked.mini_batches,
        gradient_accumulation_steps=asked.mini_batches, num_mini_batches=asked.mini_batches,
        local_rollout_forward_batch_size=asked.batch_size, num_ppo_epochs=asked.epochs,
        total_episodes=asked.batch_size * asked.updates, response_length=asked.max_new_tokens, temperature=1.0,
        stop_token="eos" if asked.ends else None, missing_eos_penalty=asked.missing_eos_penalty or None,
        kl_coef=asked.kl_coef, vf_coef=asked.vf_coef, learning_rate=asked.learning_rate, adam_epsilon=1e-5,
        lr_scheduler_type="constant", num_sample_generations=0, save_strategy="no", report_to="none",
        logging_steps=1, disable_tqdm=True,
    )  # fmt: skip


def timed(reward: Any) -> dict[str, float]:
    """Put stopwatches around what trl draws, scores and reads with; the rest of the time is its update."""
    seconds: dict[str, float] = defaultdict(float)

    def watch(name: str, called: Any) -> None:
        known = getattr(ppo_trainer, name)

        def watched(*given: Any, **named: Any) -> Any:
            started = time.monotonic()
            found = known(*given, **named)
            if not torch.is_grad_enabled():
                seconds[called(*given)] += time.monotonic() - started
            return found

        setattr(ppo_trainer, name, watched)

    watch("batch_generation", lambda *_: "rollouts")
    watch("get_reward", lambda model, *_: "reward" if model is reward else "policy, value and reference")
    watch("forward", lambda *_: "policy, value and reference")
    return seconds


if __name__ == "__main__":
    main()
