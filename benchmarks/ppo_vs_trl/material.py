"""What both sides of the comparison start from: a policy, a reward model, and prompts, made once and saved.

A Llama of 5M parameters with random weights from a fixed seed, a BPE tokenizer of 4,096 tokens trained on HH-RLHF's
rows, a reward model and value function of the same shape, and the first prompts of HH-RLHF that fit. Both sides load
the same folders.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

ROWS = "harmless-base.train.2000.jsonl"
LONGEST = 128  # tokens of a prompt
PROMPTS = 32


class Material(NamedTuple):
    """The folders and files that both sides read."""

    policy: Path
    judge: Path
    rows: Path
    prompts: Path


def material(folder: Path) -> Material:
    """Make everything in a folder where it is not there yet."""
    made = Material(folder / "policy", folder / "judge", folder / "rows.jsonl", folder / "prompts.json")
    if not made.prompts.exists():
        make(real_rows(), made)
    return made


def real_rows() -> Path:
    """HH-RLHF's file, or one clear sentence."""
    data = os.environ.get("ALIGNLAB_DATA")
    if not data or not (Path(data) / "hh-rlhf" / ROWS).exists():
        raise SystemExit(f"ALIGNLAB_DATA: names no folder that holds hh-rlhf/{ROWS}; set it to the real data's folder")
    return Path(data) / "hh-rlhf" / ROWS


def make(source: Path, made: Material) -> None:
    """Train the tokenizer, draw the weights, and choose the prompts."""
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification

    from alignlab.chat import encode_prompt
    from alignlab.data.hh_rlhf import Transcript, parse_transcript
    from alignlab.models.from_scratch import train_tokenizer

    lines = source.read_text(encoding="utf-8").splitlines()
    read = [(line, parse_transcript(json.loads(line)["chosen"])) for line in lines]
    said = [(line, one) for line, one in read if isinstance(one, Transcript)]
    texts = dict.fromkeys(
        text for _, one in said for text in (*(turn["content"] for turn in one.prompt), one.completion)
    )
    tokenizer = train_tokenizer(iter(texts), 4096)
    for seed, (path, kind) in enumerate(
        ((made.policy, LlamaForCausalLM), (made.judge, LlamaForSequenceClassification))
    ):
        save(kind, seed, tokenizer, path)
    fits: dict[tuple[int, ...], str] = {}
    for line, one in said:
        ids = encode_prompt(tokenizer, one.prompt)
        if len(ids) <= LONGEST:
            fits.setdefault(tuple(ids), line)
    chosen = list(fits.items())[:PROMPTS]
    made.rows.write_text("".join(line + "\n" for _, line in chosen), encoding="utf-8")
    made.rows.with_name("test.jsonl").write_text(list(fits.values())[PROMPTS] + "\n", encoding="utf-8")
    made.prompts.write_text(json.dumps([list(ids) for ids, _ in chosen]), encoding="utf-8")


def save(kind: Any, seed: int, tokenizer: Any, folder: Path) -> None:
    """Draw a Llama's weights from its own seed, and save it with the tokenizer."""
    import torch
    from transformers import LlamaConfig

    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=688, num_hidden_layers=5,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024, tie_word_embeddings=True,
        num_labels=1, bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(seed)
    kind(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
