"""Train stages in two processes that are started once for all of them, and compare what they leave."""

import json
import os
from pathlib import Path

from command import config
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from alignlab.models.from_scratch import base_model
from alignlab.pipeline import elastic, workers
from alignlab.pipeline.workers import Job
from alignlab.runtime import distributed, signals
from alignlab.runtime.signals import Stopped

TINY = [
    "model=scratch", "model.vocab_size=300", "model.hidden_size=16", "model.intermediate_size=24",
    "model.num_hidden_layers=2", "model.num_attention_heads=2", "model.num_key_value_heads=2",
    "model.max_position_embeddings=128", "evaluation=none", "tracking=jsonl", "hardware.device=cpu",
    "hardware.threads=1", "method.policy=base", "method.max_length=96", "method.logging_steps=1",
]  # fmt: skip


STOP = 8  # the step at which what is to be interrupted is


class Lines:
    """A tracker that writes a line a step, and asks to stop where its folder says so."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def log(self, metrics, step):
        if (self.file.parent / "interrupt").exists() and step >= STOP:
            (self.file.parent / "interrupt").rename(self.file.parent / "interrupted")
            signals.request_stop()
        with self.file.open("a") as stream:
            stream.write(json.dumps({**metrics, "step": step}) + "\n")


def words(prompts, completions, finished):
    """A reward that tiny models can raise: the share of small letters."""
    return [sum("a" <= letter <= "z" for letter in text) / max(1, len(text)) for text in completions]


def write_rows(file: Path) -> Path:
    """Pairs in which the right answer names the question's number, and lengths differ."""
    rows = (
        {"prompt": f"What is {'very ' * (n % 5)}{n}?", "chosen": f"It is {n}{'!' * (n % 7)}.", "rejected": "No idea."}
        for n in range(96)
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def job(rows: Path, folder: Path, hardware: str, *more: str) -> Job:
    """A stage on the tiny model; its base model is made here."""
    settings = config(f"hardware={hardware}", "dataset=file", f"dataset.path={rows}", *TINY, *more)
    folder.mkdir(parents=True)
    policy = base_model(settings.model, settings.dataset)
    return Job(settings, settings.method, {"policy": policy}, folder, "test", 1)


def learn(one: Job) -> None:
    """Train a stage, and keep its curves in `lines.jsonl` of its folder."""
    track = Lines(one.folder / "lines.jsonl") if distributed.is_first() else workers.Wire(None)
    try:
        workers.learn(one, track)
    except Stopped:
        signals.clear_stop_request()
        workers.learn(one, track)


def learn_all(jobs: list[Job]) -> None:
    """What each of the two processes does."""
    distributed.configure_process(1)
    for one in jobs:
        with distributed.process_group(one.config.hardware):
            learn(one)


def in_two(jobs: list[Job]) -> None:
    """Train stages in two processes."""
    settings = LaunchConfig(
        1, 1, 2, run_id=str(os.getpid()), rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0", local_addr="127.0.0.1",
        max_restarts=0,
    )  # fmt: skip
    with elastic.contained(None):
        elastic_launch(settings, learn_all)(jobs)


def lines(one: Job) -> list[dict[str, float]]:
    """The curves of a stage."""
    return [json.loads(line) for line in (one.folder / "lines.jsonl").read_text().splitlines()]
