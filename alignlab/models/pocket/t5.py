"""The base model of pocket's dialogues: a small T5 that summarises them, trained on first use.

Like pocket's other base model it is a standard folder, trained by a plain loop, and the same for the same seed and
number of threads. Its summaries leave out much and repeat most insults, so there is something left to learn.
"""

import json
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.config.dataset import DataSettings
from alignlab.config.model import PocketT5Model
from alignlab.data.row_formats import SUMMARISE
from alignlab.models.chat_templates import PLAIN
from alignlab.models.pocket import dialogue_tokenizer
from alignlab.models.pocket.base import own_arithmetic, threads
from alignlab.pocket.dialogues import draw_pretraining_row, hash_sources
from alignlab.runtime.cache import building, is_intact
from alignlab.runtime.files import cache_root, digest
from alignlab.runtime.source_hash import hash_modules

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

WIDTH, HEADS, INNER, ENCODER_LAYERS, DECODER_LAYERS = 96, 4, 192, 2, 2
DIALOGUES, BATCH, LEARNING_RATE, WARMUP = 32_000, 32, 4e-3, 0.05


class Batch(NamedTuple):
    """Dialogues, their mask and their summaries, all [batch, length]; a label of padding is -100."""

    input_ids: "torch.Tensor"
    attention_mask: "torch.Tensor"
    labels: "torch.Tensor"


def base_folder(model: PocketT5Model, dataset: DataSettings | None = None) -> Path:
    """Return the model's folder; it may not exist yet."""
    from importlib.metadata import version

    versions = [version("torch"), version("transformers")]
    code = hash_modules(__name__, dialogue_tokenizer.__name__)
    texts = [hash_sources(), SUMMARISE, PLAIN]
    return cache_root() / "pocket" / f"t5-{digest(model.seed, threads(), versions, texts, code)}"


def base_model(model: PocketT5Model, dataset: DataSettings | None = None) -> Path:
    """Return the model's folder; train the model on first use."""
    final = base_folder(model)
    if not is_intact(final):
        with building(final) as folder:
            if folder:
                make(model, folder)
    return final


def make(model: PocketT5Model, folder: Path) -> None:
    """Train the model, and save it with its tokenizer and a record of its training."""
    import torch
    from transformers import GenerationConfig
    from transformers.utils.logging import disable_progress_bar

    started = time.perf_counter()
    tokenizer = dialogue_tokenizer.make_tokenizer()
    tokenizer.chat_template = PLAIN
    with own_arithmetic(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(model.seed)
        network = start(tokenizer)
        loss = train(network, batches(tokenizer, model.seed))
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    network.generation_config = GenerationConfig(**ends, decoder_start_token_id=tokenizer.pad_token_id)
    disable_progress_bar()
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    record = {
        "seed": model.seed,
        "threads": threads(),
        "loss": loss,
        "seconds": round(time.perf_counter() - started, 1),
    }
    (folder / "pocket.json").write_text(json.dumps(record, indent=2) + "\n")


def start(tokenizer: "PreTrainedTokenizerFast") -> "T5ForConditionalGeneration":
    """Return a T5 1.1 with random weights and tied embeddings."""
    from transformers import T5Config, T5ForConditionalGeneration

    config: Any = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=WIDTH // HEADS,
        d_ff=INNER,
        num_layers=ENCODER_LAYERS,
        num_decoder_layers=DECODER_LAYERS,
        num_heads=HEADS,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return T5ForConditionalGeneration(config).train()


def train(network: "T5ForConditionalGeneration", batches: list[Batch]) -> float:
    """Train for one pass over the batches; return the last loss."""
    import torch

    from alignlab.runtime.progress import progress

    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    loss = torch.zeros(())
    with progress(len(batches), "training pocket's T5", "steps") as advance:
        for step, batch in enumerate(batches):
            done = step / len(batches)
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min(1.0, (done + 1e-3) / WARMUP) * (1 - done)
            loss = network(**batch._asdict(), use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            advance(1)
    return round(float(loss.detach()), 4)


def batches(tokenizer: "PreTrainedTokenizerFast", seed: int) -> list[Batch]:
    """Return dialogues with their summaries, in batches of similar length, in random order."""
    random = Random(f"gossip {seed}")
    dialogues = [draw_pretraining_row(random) for _ in range(DIALOGUES)]
    rows = sorted(encode_dialogues(tokenizer, dialogues), key=lambda row: len(row[0]))
    groups = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    Random(seed).shuffle(groups)
    return [pad_batch(group, tokenizer.pad_token_id) for group in groups]


def encode_dialogues(
    tokenizer: "PreTrainedTokenizerFast", dialogues: list[tuple[str, str]]
) -> list[tuple[list[int], list[int]]]:
    """Return the token ids of prompts and summaries, as the chat template writes them, many times faster."""
    end = tokenizer.eos_token_id
    prompts = tokenizer([SUMMARISE.format(dialogue=dialogue) for dialogue, _ in dialogues])["input_ids"]
    summaries = tokenizer([summary for _, summary in dialogues])["input_ids"]
    return [([*prompt, end], [*summary, end]) for prompt, summary in zip(prompts, summaries, strict=True)]


def pad_batch(rows: list[tuple[list[int], list[int]]], pad: int) -> Batch:
    """Pad a batch on the right."""
    import torch

    wide, long = (max(len(row[side]) for row in rows) for side in (0, 1))
    ids = torch.tensor([prompt + [pad] * (wide - len(prompt)) for prompt, _ in rows])
    labels = torch.tensor([answer + [-100] * (long - len(answer)) for _, answer in rows])
    return Batch(ids, (ids != pad).long(), labels)
