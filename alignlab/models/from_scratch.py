"""A model of any shape with random weights, and a tokenizer trained on the data set; it needs no download.

The result is a standard folder that `transformers` loads: a Llama, Qwen2, GPT-NeoX or T5, a fast byte-level BPE
tokenizer (Sennrich et al. 2016), and the ChatML template. It is built once for a shape, a seed and a data set, and
cached.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab import data
from alignlab.config.dataset import DataSet
from alignlab.config.model import ScratchModel
from alignlab.errors import Mistake, failure
from alignlab.models import chat_templates
from alignlab.models.chat_templates import CHATML, END, START
from alignlab.runtime.cache import building, is_intact
from alignlab.runtime.files import cache_root, digest
from alignlab.runtime.source_hash import hash_modules

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

PAD = "<|pad|>"


def base_folder(model: ScratchModel, dataset: DataSet) -> Path:
    """Return the model's folder; it may not exist yet."""
    shape, code = model.model_dump(exclude={"adapter"}), hash_modules(__name__, chat_templates.__name__)
    return cache_root() / "scratch" / digest(shape, data.content(dataset), code)


def base_model(model: ScratchModel, dataset: DataSet) -> Path:
    """Build the model and its tokenizer unless they exist; return their folder."""
    final = base_folder(model, dataset)
    if is_intact(final):
        return final
    with building(final) as folder:
        if folder is not None:
            tokenizer = train_tokenizer(texts(dataset), model.vocab_size)
            write_model(model, tokenizer, folder)
            tokenizer.save_pretrained(folder)
    return final


def texts(dataset: DataSet) -> Iterator[str]:
    """Yield the different turns and completions of the training demonstrations, else those of the prompts."""
    seen: set[str] = set()
    try:
        rows = data.view(dataset, "demonstrations", "train").to_list()
    except Mistake:
        rows = data.view(dataset, "prompts", "train").to_list()
    for row in rows:
        for text in (*(turn["content"] for turn in row["prompt"]), row.get("completion", "")):
            if text not in seen:
                seen.add(text)
                yield text


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> "PreTrainedTokenizerFast":
    """Train a byte-level BPE with special tokens for padding, the start of a turn and its end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, eos_token=END, additional_special_tokens=[START], padding_side="left"
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def write_model(model: ScratchModel, tokenizer: "PreTrainedTokenizerFast", folder: Path) -> None:
    """Write a model with weights drawn from the config's seed."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    settings = architecture(model, tokenizer)
    auto_class = AutoModelForSeq2SeqLM if settings.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(model.seed)
        auto_class.from_config(settings, trust_remote_code=False).save_pretrained(folder)
    if not (folder / "model.safetensors").exists():
        raise failure(str(folder), "the model was not written")


def architecture(model: ScratchModel, tokenizer: "PreTrainedTokenizerFast") -> "PreTrainedConfig":
    """Return the config of transformers; the vocabulary has the size of the tokenizer's."""
    from transformers import AutoConfig

    return AutoConfig.for_model(
        model.family,
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        **(t5_sizes(model, tokenizer) if model.family == "t5" else decoder_sizes(model)),
    )


def decoder_sizes(model: ScratchModel) -> dict[str, int]:
    """Return the sizes of a decoder, under the names that Llama, Qwen2 and GPT-NeoX share."""
    heads = {} if model.family == "gpt_neox" else {"num_key_value_heads": model.num_key_value_heads}
    return {
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "num_hidden_layers": model.num_hidden_layers,
        "num_attention_heads": model.num_attention_heads,
        "max_position_embeddings": model.max_position_embeddings,
        **heads,
    }


def t5_sizes(model: ScratchModel, tokenizer: "PreTrainedTokenizerFast") -> dict[str, Any]:
    """Return the sizes under T5's names; encoder and decoder have the same number of layers, and no dropout."""
    return {
        "d_model": model.hidden_size,
        "d_kv": model.hidden_size // model.num_attention_heads,
        "d_ff": model.intermediate_size,
        "num_layers": model.num_hidden_layers,
        "num_heads": model.num_attention_heads,
        "n_positions": model.max_position_embeddings,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }
