"""Read a GGUF file, the format of llama.cpp: its weights are dequantised and its tokenizer is rebuilt, once.

The result is a standard folder in the cache. The chat template and the special tokens are those of the file; they are
checked against its fields, since a tokenizer that is rebuilt wrongly fails silently.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.errors import failure
from alignlab.models.model_folder import explained_loading
from alignlab.runtime.cache import building, is_intact
from alignlab.runtime.files import cache_root, digest, digest_files
from alignlab.runtime.source_hash import hash_modules

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SUFFIX = ".gguf"


def packaged_file(name: str) -> Path | None:
    """Return a file of an installed package, such as package/file.gguf; None where it is not installed."""
    package, _, file = name.partition("/")
    spec = find_spec(package)
    folders = spec.submodule_search_locations or [] if spec else []
    return next((path for folder in folders if (path := Path(folder) / file).exists()), None)


def check_reader(path: Path) -> None:
    """Raise a `Failure` where the package that reads GGUF files is not installed."""
    if path.suffix == SUFFIX and find_spec("gguf") is None:
        raise failure("model.path", f"{path.name} needs the package gguf", "pip install 'alignlab[gguf]'")


def convert(path: Path) -> Path:
    """Write a GGUF file as a folder of safetensors in float32, unless that is done; return the folder."""
    final = cache_root() / "gguf" / digest(digest_files([path]), hash_modules(__name__))
    if is_intact(final):
        return final
    check_reader(path)
    with building(final) as folder:
        if folder is not None:
            _convert(path, folder)
    return final


def _convert(path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, modeling_gguf_pytorch_utils

    modeling_gguf_pytorch_utils.tqdm = lambda tensors, **_: tensors  # its bar would fill a log, and has no switch
    options = {"gguf_file": path.name, "quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    with explained_loading("model.path", f"{path.name} cannot be read as a GGUF file", path.parent):
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(path.parent, **options, trust_remote_code=False)
    take_over(tokenizer, fields(path), path.name)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise failure("model.path", f"{path.name} has more tokens ({len(tokenizer)}) than rows of embeddings")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def fields(path: Path) -> dict[str, Any]:
    """Return the fields of a GGUF file that describe its tokenizer, without their prefix `tokenizer.`."""
    from gguf import GGUFReader

    wanted = ("chat_template", "ggml.bos_token_id", "ggml.eos_token_id", "ggml.padding_token_id", "ggml.tokens")
    known = GGUFReader(path).fields
    return {name: known[f"tokenizer.{name}"].contents() for name in wanted if f"tokenizer.{name}" in known}


def take_over(tokenizer: "PreTrainedTokenizerBase", stored: dict[str, Any], name: str) -> None:
    """Give a tokenizer the template and the special tokens of its file.

    Raises a `Failure` where the rebuilt tokenizer has other ids for the file's tokens.
    """
    if template := stored.get("chat_template"):
        tokenizer.chat_template = template
    tokens = stored.get("ggml.tokens", [])
    for kind, field in (
        ("bos_token", "bos_token_id"),
        ("eos_token", "eos_token_id"),
        ("pad_token", "padding_token_id"),
    ):
        if (token_id := stored.get(f"ggml.{field}")) is not None and token_id < len(tokens):
            if tokenizer.convert_tokens_to_ids(tokens[token_id]) != token_id:
                what = f"the tokenizer rebuilt from {name} gives {tokens[token_id]!r} another id than the file"
                raise failure("model.path", what, "give a folder of the same model with its own tokenizer")
            setattr(tokenizer, kind, tokens[token_id])
