"""A callback of the Trainer that shows its progress and logs its metrics under our names."""

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

from transformers import TrainerCallback

from alignlab.runtime.progress import progress_bar, say

# The numbers that the progress shows, as far as a method logs them.
SHOWN = {"train/loss": "loss", "reward/accuracy": "accuracy", "reward/mean": "reward", "policy/kl": "KL"}


class TrackerCallback(TrainerCallback):  # type: ignore[misc]
    """Logs what the Trainer logs to a tracker, under our names, and shows the progress."""

    def __init__(self, track: Any, stage: str) -> None:
        self.track, self.stage = track, stage
        self.bar: Any = None  # in the first process, while training runs
        self.started = 0.0  # when training began, by time.monotonic
        self.loss = math.nan  # the last one that was logged
        self.shown: dict[str, float] = {}  # the last numbers that the progress shows, in the order of `SHOWN`
        self.tokens: list[tuple[float, float]] = []  # time and tokens so far at each log, if the trainer counts tokens

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        reset_peak_memory()
        self.started = time.monotonic()
        self.bar = progress_bar(state.max_steps, self.stage, state.global_step)
        if self.bar.disable or state.global_step:
            resumed = f", from {state.global_step:,}" if state.global_step else ""
            say(f"{self.stage}: {state.max_steps:,} steps{resumed}")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        numbers = {name: float(value) for name, value in (logs or {}).items() if isinstance(value, int | float)}
        metrics = {our_name(name): value for name, value in numbers.items() if our_name(name)}
        self.loss = metrics.get("train/loss", self.loss)
        self.shown |= {
            words: metrics[name] for name, words in SHOWN.items() if math.isfinite(metrics.get(name, math.nan))
        }
        if "train/num_tokens" in metrics:
            self.tokens.append((time.monotonic(), metrics["train/num_tokens"]))
        if metrics:
            self.track.log(metrics, state.global_step)
        if self.bar is not None and self.shown:
            self.bar.set_postfix_str(", ".join(f"{words} {value:.3f}" for words, value in self.shown.items()))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is None:
            return
        self.bar.close()
        last = "" if math.isnan(self.loss) else f", loss {self.loss:.3f}"
        costs = ", ".join(("", *throughput(self.tokens)))
        say(f"{self.stage}: {state.global_step:,} steps in {time.monotonic() - self.started:.0f} s{last}{costs}")


def reset_peak_memory() -> None:
    """Start a new measurement of peak GPU memory; an earlier stage may have run in this process."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def throughput(tokens: Sequence[tuple[float, float]]) -> Iterator[str]:
    """Yield the tokens a second from the first log to the last, and the peak GPU memory of this process."""
    import torch

    if len(tokens) > 1 and tokens[-1][0] > tokens[0][0]:
        yield f"{(tokens[-1][1] - tokens[0][1]) / (tokens[-1][0] - tokens[0][0]):,.0f} tokens a second"
    if torch.cuda.is_available():
        yield f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB of GPU memory"


OUR_NAMES = {
    "train_loss": "train/mean_loss",
    "train_runtime": "train/seconds",
    "train_samples_per_second": "train/rows_per_second",
    "train_steps_per_second": "train/steps_per_second",
    "total_flos": "",
    "rewards/accuracies": "reward/accuracy",
    "rewards/margins": "reward/margin",
    "accuracy": "reward/accuracy",
    "margin": "reward/margin",
    "mean_reward": "reward/mean",
    "min_reward": "reward/min",
    "max_reward": "reward/max",
    "runtime": "seconds",
    "samples_per_second": "rows_per_second",
}
GROUPS = {"rewards": "reward", "logps": "policy/logps", "logits": "policy/logits"}


def our_name(name: str) -> str:
    """Return our name of a metric of transformers or TRL, "" for one that is not logged.

    Metrics of the validation rows are in the group `eval`: `eval_rewards/margins` is `eval/reward_margin`.
    """
    if name.startswith("eval_"):
        return "eval/" + our_name(name[5:]).removeprefix("train/").replace("/", "_")
    if name in OUR_NAMES:
        return OUR_NAMES[name]
    group, _, rest = name.partition("/")
    if rest:
        group = GROUPS.get(group, group)
        return f"{group}_{rest}" if "/" in group else f"{group}/{rest}"
    return f"train/{name}"
