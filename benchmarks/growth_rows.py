"""Prepare what `growth.py` trains on: HH-RLHF rows, the same rows four times as long, and models of two depths."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from bench import FILES, MODEL
from flops import shape_of

BATCH = 8
CHARACTERS = 300, 1400  # of both completions with their prompts: four times as long, they fit into max_length
ANSWER = "\n\nAssistant: "
COMMON = (
    "dataset=hh_rlhf", "dataset.learn=last", "dataset.validation=0", "method.policy=base", "method.max_length=2048",
    f"method.batch_size={BATCH}", "method.num_train_epochs=1", "evaluation=none", "tracking=jsonl",
    "hardware.device=cpu", "hardware.dtype=float32", "hardware.threads=1",
)  # fmt: skip
MAKE = """
import shutil, sys
import alignlab
from alignlab.models.kinds import base_model
config = alignlab.compose(*sys.argv[2:])
shutil.copytree(base_model(config.model, config.dataset), sys.argv[1])
"""
REWARD = '''def shortness(prompts, completions, finished):
    """Return 1 for an empty completion, and less for a longer one."""
    return [1 / (1 + len(text) / 100) for text in completions]
'''


class Counts(NamedTuple):
    """The tokens of a row: of the prompt, and of each completion."""

    prompt: int
    completions: list[int]


def prepare(folder: Path, rows: int) -> list[dict[str, str]]:
    """Write the rows, plain and four times as long, and the models; return ten times `rows` plain rows."""
    folder.mkdir(parents=True, exist_ok=True)
    file = Path(os.environ["ALIGNLAB_DATA"]) / "hh-rlhf" / FILES["train"]
    texts = [row for line in file.open(encoding="utf-8") if fits(row := json.loads(line))]
    texts, held_out = texts[: 10 * rows], texts[-BATCH:]
    for name, some in (("1", texts), ("4", [longer(row) for row in texts[:rows]]), ("held_out", held_out)):
        lines = "".join(json.dumps(row) + "\n" for row in some)
        (folder / f"rows-{name}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "shortness.py").write_text(REWARD, encoding="utf-8")
    for layers in (1, 4):
        if not (folder / f"model-{layers}").exists():
            make_model(folder, layers)
    return texts


def fits(row: dict[str, str]) -> bool:
    """Return whether a row is neither too short nor too long."""
    least, most = CHARACTERS
    return least <= len(row["chosen"]) + len(row["rejected"]) <= most


def split(transcript: str) -> tuple[str, str]:
    """Split a transcript into the prompt and the last answer."""
    prompt, _, completion = transcript.rpartition(ANSWER)
    return prompt, completion


def longer(row: dict[str, str], times: int = 4) -> dict[str, str]:
    """Return a pair whose prompt and completions are repeated; a short answer stands between two prompts."""
    parts = {name: split(text) for name, text in row.items()}
    return {
        name: f"{ANSWER}Yes.".join([prompt] * times) + ANSWER + " ".join([completion] * times)
        for name, (prompt, completion) in parts.items()
    }


def make_model(folder: Path, layers: int) -> None:
    """Make a model with random weights, its vocabulary from the plain rows."""
    shape = shape_of(MODEL)
    settings = (*MODEL, f"model.num_hidden_layers={layers * shape.num_hidden_layers}", *files(folder, 1))
    command = [sys.executable, "-c", MAKE, str(folder / f"model-{layers}"), "method=sft", *COMMON, *settings]
    subprocess.run(command, check=True, env=os.environ | {"ALIGNLAB_CACHE": str(folder / "cache")})


def files(folder: Path, length: int) -> tuple[str, str]:
    """Return the settings that name the rows."""
    return f"dataset.train={folder}/rows-{length}.jsonl", f"dataset.test={folder}/rows-held_out.jsonl"


def token_counts(folder: Path, texts: list[dict[str, str]]) -> list[Counts]:
    """Count the tokens of the rows, without those of the chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model-1")

    def count(text: str) -> int:
        return len(tokenizer(text)["input_ids"])

    pairs = [[split(row[name]) for name in ("chosen", "rejected")] for row in texts]
    return [Counts(count(pair[0][0]), [count(completion) for _, completion in pair]) for pair in pairs]
