"""alignlab's side: its PPO as a user runs it, on the material of the comparison; prints what it measured as JSON.

    python ours.py SETTINGS.json

The run is the method's own `train`; what is added is a note of the time whenever a rollout has been learned from.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from sides import Asked, Told, peak

from alignlab.config.compose import bind_tree, check
from alignlab.methods import ppo
from alignlab.models import sampling
from alignlab.runtime import matmul
from alignlab.runtime.stage_run import Run
from alignlab.training.ppo.trainer import PPOTrainer


class Curves:
    """Keeps what was logged of each rollout."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Keep a rollout's row."""
        if "reward/mean" in metrics:
            self.rows.append(metrics)


def main() -> None:
    """Train, and tell."""
    asked = Asked(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    torch.set_num_threads(asked.threads)
    matmul.use(asked.matmul)
    if not asked.ends:
        never_end()
    marks, curves = marked(), Curves()
    with tempfile.TemporaryDirectory() as name:
        config = bind_tree(check(overrides(asked), binds=False).trees[0])
        inputs = {"policy": Path(asked.policy), "reward_model": Path(asked.judge)}
        ppo.train(Run(config, config.method, inputs, Path(name), curves))
    rows = [{"score": penalised(row, asked.missing_eos_penalty), "kl": row["policy/kl"]} for row in curves.rows]
    print(json.dumps(Told(asked.batch_size, marks, peak(), rows)._asdict()))


def penalised(row: dict[str, float], penalty: float) -> float:
    """The mean score as trl counts it: less the penalty for completions that have no end."""
    return row["reward/mean"] - penalty * (1 - row["completion/finished"])


def overrides(asked: Asked) -> list[str]:
    """The command's words."""
    return [
        "method=ppo", "model=scratch", "dataset=hh_rlhf" if asked.rows else "dataset=pocket", *dataset(asked),
        "evaluation=none", "tracking=jsonl", "hardware.device=cpu", f"hardware.threads={asked.threads}",
        f"seed={asked.seed}", f"method.value={asked.value}", f"method.batch_size={asked.batch_size}",
        f"method.total_episodes={asked.batch_size * asked.updates}", f"method.num_ppo_epochs={asked.epochs}",
        f"method.num_mini_batches={asked.mini_batches}", f"method.max_new_tokens={asked.max_new_tokens}",
        f"method.learning_rate={asked.learning_rate}", f"method.kl_coef={asked.kl_coef}",
        f"method.missing_eos_penalty={asked.missing_eos_penalty}", f"method.vf_coef={asked.vf_coef}",
        "method.lr_scheduler_type=constant", "method.standardize=false", "method.max_grad_norm=1e9",
        "method.gates.before=off", "method.gates.during=off", "method.save_steps=null", *asked.more,
    ]  # fmt: skip


def dataset(asked: Asked) -> list[str]:
    """Where the prompts come from."""
    if not asked.rows:
        return []
    test = Path(asked.rows).with_name("test.jsonl")  # no row may stand on both sides
    return [f"dataset.train={asked.rows}", f"dataset.test={test}", "dataset.validation=0"]


def never_end() -> None:
    """Let completions have no end, as the other side does, so that all are equally long."""
    known = sampling.special_tokens
    sampling.special_tokens = lambda model, tokenizer: (known(model, tokenizer)[0], set())


def marked() -> list[dict[str, Any]]:
    """Note the time, and where it went so far, after each rollout that has been learned from."""
    marks: list[dict[str, Any]] = []
    log_rollout = PPOTrainer.log_rollout

    def noted(self: PPOTrainer) -> None:
        learned = self.rollout_log.number is not None
        log_rollout(self)
        if learned:
            marks.append({"at": time.monotonic(), **self.rollout_log.seconds})

    PPOTrainer.log_rollout = noted  # type: ignore[method-assign]
    return marks


if __name__ == "__main__":
    main()
