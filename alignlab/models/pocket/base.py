"""The pocket base model: a small Llama that is trained on the pocket corpus on first use.

Its folder is a standard one (config, safetensors, fast tokenizer, chat template, generation config), so the code that
loads it is the code that loads a large model. Training is a plain loop over batches of conversations of similar length:
on two cores it is faster than a trainer. The weights are the same for the same seed and number of threads.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.config.dataset import DataSettings
from alignlab.config.model import PocketModel
from alignlab.pocket.corpus import conversations
from alignlab.pocket.phrases import every_phrasing
from alignlab.pocket.vocabulary import every_word
from alignlab.pocket.world import TEXT_MODULES, Size, hash_sources
from alignlab.runtime.cache import building, is_intact
from alignlab.runtime.files import cache_root, digest
from alignlab.runtime.source_hash import hash_modules

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PAD, BEGIN, END, SYSTEM, USER, ASSISTANT = "<pad>", "<s>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}"
    "{{ '<|' + turn['role'] + '|>' + turn['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


class Recipe(NamedTuple):
    """The shape of the model and how long it trains."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    conversations: int
    batch_size: int
    learning_rate: float


class Batch(NamedTuple):
    """Token ids and labels, both [batch, length]; padding is on the right and has the label -100."""

    ids: "torch.Tensor"
    labels: "torch.Tensor"


RECIPES: dict[Size, Recipe] = {
    "full": Recipe(160, 320, 2, 5, conversations=32_000, batch_size=32, learning_rate=4e-3),
    "small": Recipe(64, 192, 2, 4, conversations=8_000, batch_size=16, learning_rate=6e-3),
}
_SLOT = re.compile(r"\{\w+\}")
_WORD = re.compile(r"▁?#\w+#|▁\(?[A-Za-z]+|[^\w▁]")
WARMUP, WEIGHT_DECAY, LONGEST = 0.05, 0.01, 512
INITIAL_DEVIATION = 0.06  # of the weights; at the usual 0.02 a model this narrow takes twice as long to learn to copy


def base_folder(model: PocketModel, dataset: DataSettings | None = None) -> Path:
    """Return the base model's folder; it may not exist yet."""
    from importlib.metadata import version

    versions = [version("torch"), version("transformers")]
    code = hash_sources(*TEXT_MODULES), hash_modules(__name__)
    return cache_root() / "pocket" / f"base-{digest(model.seed, model.size, threads(), versions, *code)}"


def base_model(model: PocketModel, dataset: DataSettings | None = None) -> Path:
    """Return the base model's folder; train the model on first use."""
    final = base_folder(model)
    if is_intact(final):
        return final
    with building(final) as folder:
        if folder:
            _make(model, folder)
    return final


def threads() -> int:
    """Return the number of threads that train the base model: OMP_NUM_THREADS or the machine's cores, at most two."""
    setting = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(2, os.cpu_count() or 1, int(setting) if setting.isdigit() else 2))


@contextmanager
def own_arithmetic() -> Iterator[None]:
    """Compute inside the block as pocket's models are trained, whatever the run's settings are."""
    import torch

    from alignlab.runtime import matmul

    before = torch.get_num_threads()
    torch.set_num_threads(threads())
    try:
        with matmul.using("auto"):
            yield
    finally:
        torch.set_num_threads(before)


def make_tokenizer() -> "PreTrainedTokenizerFast":
    """Build the tokenizer: every word of the world is one token, any other text is spelled out in letters.

    It is the same for both sizes of the world, so a model of one can be prompted about the other.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, BEGIN, END, SYSTEM, USER, ASSISTANT, "<unk>"]
    words = _words()
    vocabulary = [*((token, 0.0) for token in special), *((word, -1.0) for word in words), *_letters(words)]
    core = Tokenizer(models.Unigram(vocabulary, unk_id=special.index("<unk>"), byte_fallback=False))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    core.decoder = decoders.Metaspace(prepend_scheme="always")
    core.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=LONGEST,
        clean_up_tokenization_spaces=False,
    )


def _words() -> list[str]:
    """Return the world's words with the space before them, and its punctuation."""
    texts = [*every_word(), *every_phrasing()]
    words = {word for text in texts for word in _WORD.findall("▁" + _SLOT.sub("", text).replace(" ", "▁"))}
    return sorted(words | {word.removeprefix("▁") for word in words if "#" in word})


def _letters(words: list[str]) -> list[tuple[str, float]]:
    """Return single letters; they cost more than any word, so that no word is spelled out."""
    return [(character, -20.0) for character in ["▁", *map(chr, range(33, 127))] if character not in words]


def _make(model: PocketModel, folder: Path) -> None:
    import torch
    from transformers import GenerationConfig
    from transformers.utils.logging import disable_progress_bar

    started = time.perf_counter()
    with own_arithmetic(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(model.seed)
        tokenizer = make_tokenizer()
        llama, loss, tokens = _train(model, tokenizer)
    llama.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    disable_progress_bar()  # transformers shows one for a single small file
    llama.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    record = {"seed": model.seed, "size": model.size, "threads": threads(), "loss": loss, "tokens": tokens}
    record["seconds"] = round(time.perf_counter() - started, 1)
    (folder / "pocket.json").write_text(json.dumps(record, indent=2) + "\n")


def _train(model: PocketModel, tokenizer: "PreTrainedTokenizerFast") -> tuple["LlamaForCausalLM", float, int]:
    import torch

    recipe = RECIPES[model.size]
    llama = _new_model(recipe, tokenizer)
    batches = _batches(tokenizer, recipe, model)
    optimizer = torch.optim.AdamW(
        llama.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY, fused=True
    )
    loss, tokens = torch.zeros(()), 0
    for step, batch in enumerate(_with_progress(batches)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step / len(batches))
        loss = llama(input_ids=batch.ids, labels=batch.labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(llama.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += int((batch.ids != tokenizer.pad_token_id).sum())
    return llama.eval(), round(float(loss.detach()), 4), tokens


def _schedule(done: float) -> float:
    """Return the share of the learning rate: linear warm-up, then linear decay; `done` is the share of steps done."""
    return min(1.0, (done + 1e-3) / WARMUP) * (1.0 - done)


def _new_model(recipe: Recipe, tokenizer: "PreTrainedTokenizerFast") -> "LlamaForCausalLM":
    from transformers import LlamaConfig, LlamaForCausalLM

    config: Any = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_hidden_layers,
        num_attention_heads=recipe.num_attention_heads,
        num_key_value_heads=recipe.num_attention_heads,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=True,
        initializer_range=INITIAL_DEVIATION,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).train()


def _batches(tokenizer: "PreTrainedTokenizerFast", recipe: Recipe, model: PocketModel) -> list[Batch]:
    """Return batches of conversations of similar length, in random order."""
    texts = [_text(turns) for turns in islice(conversations(model.size, model.seed), recipe.conversations)]
    rows = sorted((encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch(texts)), key=len)
    groups = [rows[start : start + recipe.batch_size] for start in range(0, len(rows), recipe.batch_size)]
    Random(model.seed).shuffle(groups)
    opens, ends, pad = tokenizer.convert_tokens_to_ids([ASSISTANT, END, PAD])
    return [_batch(group, opens, ends, pad) for group in groups]


def _batch(rows: list[list[int]], opens: int, ends: int, pad: int) -> Batch:
    import torch

    longest = max(map(len, rows))
    ids = [row + [pad] * (longest - len(row)) for row in rows]
    labels = [_labels(row, opens, ends) + [-100] * (longest - len(row)) for row in rows]
    return Batch(torch.tensor(ids), torch.tensor(labels))


def _labels(row: list[int], opens: int, ends: int) -> list[int]:
    """Return the tokens of the assistant's turns as labels; the random questions cannot be predicted."""
    labels, in_answer = [], False
    for token in row:
        labels.append(token if in_answer else -100)
        in_answer = token == opens or (in_answer and token != ends)
    return labels


def _text(turns: Any) -> str:
    """Return a conversation as the chat template writes it, many times faster."""
    return BEGIN + "".join(f"<|{turn['role']}|>{turn['content']}{END}" for turn in turns)


def _with_progress(batches: list[Batch]) -> Iterator[Batch]:
    """Yield the batches, and show the progress."""
    from alignlab.runtime.progress import progress

    with progress(len(batches), "training the pocket base model", "steps") as advance:
        for batch in batches:
            yield batch
            advance(1)
