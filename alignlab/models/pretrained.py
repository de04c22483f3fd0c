"""Models that others have trained: fetched from the Hugging Face hub or taken from a folder, and made ready once.

Made ready means a folder of ours that every stage can start from: a tokenizer that holds the chat template, ends a
turn with the token that the template writes there, and pads with a token that is not that one. Weights are linked,
not copied, unless the vocabulary has to grow. The folder is named after the commit that was fetched, so that a
revision that moves on (main) makes a new model of it, and what was fetched once is found again without a hub.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from alignlab.config.model import PretrainedModel
from alignlab.config.schema import Config
from alignlab.errors import Failure, failure
from alignlab.models import chat_templates
from alignlab.models.chat_templates import FAMILIES
from alignlab.runtime.files import building, cache_root, digest, digest_files, write_text
from alignlab.runtime.hub_access import PATIENCE, reach
from alignlab.runtime.source_hash import hash_modules

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PADS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]")  # tokens that models have for nothing else
WEIGHTS = (".safetensors", ".bin")
FOLDER = "model=local model.path=…"  # how to do without a hub


def base_folder(model: PretrainedModel) -> Path:
    """Name the folder of the model made ready, by what is known without a network."""
    source = Path(model.path).expanduser()
    mark = digest_files([source]) if source.exists() else f"{model.path}@{commit(model) or model.revision}"
    made_by = hash_modules(__name__, chat_templates.__name__)
    return cache_root() / "pretrained" / digest(mark, model.chat_template, made_by)


def commit(model: PretrainedModel) -> str | None:
    """The commit that a revision stands for, as far as something of it has been fetched; None for a folder."""
    from huggingface_hub import try_to_load_from_cache

    if Path(model.path).expanduser().exists():
        return None
    found = try_to_load_from_cache(model.path, "config.json", revision=model.revision)
    return Path(found).parent.name if isinstance(found, str) else None


def pinned(config: Config) -> Config:
    """The config with the commit in place of a branch or tag, so that it stands for the same model for ever."""
    model = config.model
    if not isinstance(model, PretrainedModel) or (found := commit(model)) is None:
        return config
    return config.model_copy(update={"model": model.model_copy(update={"revision": found})})


def locate(model: PretrainedModel) -> None:
    """Make sure that the model is at hand or can be fetched, and settle the commit; says at once where it cannot."""
    from huggingface_hub import hf_hub_download

    check_attention(model)
    if Path(model.path).expanduser().exists() or commit(model):
        return
    reach("model.path", model.path, FOLDER)
    try:
        hf_hub_download(model.path, "config.json", revision=model.revision, etag_timeout=PATIENCE)
    except (OSError, ValueError) as error:
        refused(model, error)


def check_attention(model: PretrainedModel) -> None:
    """Refuse an implementation of attention that is not installed."""
    if model.attn_implementation != "flash_attention_2":
        return
    from transformers.utils import is_flash_attn_2_available

    if not is_flash_attn_2_available():
        raise failure(
            "model.attn_implementation",
            "flash_attention_2 needs a GPU and the package flash-attn, and one of them is not there",
            "use model.attn_implementation=sdpa",
        )


def refused(model: PretrainedModel, error: Exception) -> NoReturn:
    """Say why the hub did not give a model."""
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            what = "the model is gated, and this account or token may not fetch it"
            now = f"accept its terms at https://huggingface.co/{model.path} and set HF_TOKEN"
        case errors.RepositoryNotFoundError():
            what, now = f"{model.path} is not on the hub, or it is private", "check the name, or set HF_TOKEN"
        case errors.RevisionNotFoundError():
            what, now = f"{model.path} has no revision {model.revision!r}", "use model.revision=main"
        case errors.RemoteEntryNotFoundError():
            what, now = f"{model.path} holds no config.json, so it is no model of transformers", "give another one"
        case _:
            what = f"{model.path} could not be fetched ({' '.join(str(error).split())[:160]})"
            now = "try again, or give a folder: model=local model.path=…"
    raise failure("model.path", what, now) from error


def fetch(model: PretrainedModel) -> Path:
    """Give the folder of the model as it was published, fetching what of it is not there yet."""
    from huggingface_hub import HfApi, snapshot_download

    source = Path(model.path).expanduser()
    if source.exists():
        return source
    revision = commit(model) or model.revision
    try:
        reach("model.path", model.path, FOLDER)
    except Failure:
        if cached := whole_snapshot(model):
            return cached
        raise
    try:
        names = HfApi().list_repo_files(model.path, revision=revision)
        kind = "*.safetensors" if any(name.endswith(".safetensors") for name in names) else "*.bin"
        wanted = [kind, "*.json", "*.model", "*.txt", "*.jinja"]
        return Path(snapshot_download(model.path, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*"]))
    except (OSError, ValueError) as error:
        refused(model, error)


def whole_snapshot(model: PretrainedModel) -> Path | None:
    """The folder of a model that was fetched before, with all its weights; None where it is not whole."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model.path, "config.json", revision=commit(model) or model.revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    lists = [json.loads(path.read_text(encoding="utf-8"))["weight_map"] for path in folder.glob("*.index.json")]
    shards = {name for weights in lists for name in weights.values()}
    held = {path.name for path in folder.iterdir() if path.name.endswith(WEIGHTS) and path.exists()}
    return folder if held and shards <= held else None


def pretrained_model(model: PretrainedModel) -> Path:
    """Make the model ready where it is not yet; return its folder."""
    return once(base_folder(model), model, make_ready)


def published_folder(model: PretrainedModel) -> Path:
    """Name the folder of a model of the hub as it was published, by what is known without a network."""
    return cache_root() / "published" / digest(model.path, commit(model) or model.revision)


def published_model(model: PretrainedModel) -> Path:
    """Fetch the model as it was published where it is not there yet; return its folder."""
    return once(published_folder(model), model, lambda _, source, folder: link(source, folder, everything=True))


def once(final: Path, model: PretrainedModel, make: Callable[[PretrainedModel, Path, Path], None]) -> Path:
    """Make the folder of a model from what is fetched, unless it is there with all that it links to."""
    if final.exists() and all(path.exists() for path in final.iterdir()):
        return final
    if final.exists():  # what it links to was moved or cleared away; the same content is linked anew
        shutil.rmtree(final)
    source = fetch(model)
    with building(final) as folder:
        if folder is not None:
            make(model, source, folder)
    return final


def make_ready(model: PretrainedModel, source: Path, folder: Path) -> None:
    """Write the tokenizer, and link or grow the weights."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        settings = AutoConfig.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise failure("model.path", f"{model.path} cannot be read ({str(error).splitlines()[0][:160]})") from error
    dress(tokenizer, model)
    rows = settings.get_text_config().vocab_size
    if len(tokenizer) > rows:
        grow(source, folder, len(tokenizer))
    else:
        link(source, folder)
    tokenizer.save_pretrained(folder)
    settle(folder, tokenizer)


def dress(tokenizer: "PreTrainedTokenizerBase", model: PretrainedModel) -> None:
    """Give a tokenizer its template, the token that ends a turn, and padding of its own."""
    if model.chat_template is not None:
        family = FAMILIES[model.chat_template]
        tokenizer.chat_template = family.template
        learn(tokenizer, family.tokens)
        tokenizer.eos_token = family.end or tokenizer.eos_token
    elif tokenizer.chat_template is None:
        raise failure(
            "model.chat_template",
            f"{model.path} comes without a chat template",
            f"choose one of {', '.join(FAMILIES)}: model.chat_template=chatml",
        )
    elif end := end_of_turn(tokenizer):
        tokenizer.eos_token = end
    if tokenizer.pad_token_id in {None, tokenizer.eos_token_id}:
        known = tokenizer.get_vocab()
        pad = next((name for name in PADS if name in known), "<|pad|>")
        learn(tokenizer, (pad,))
        tokenizer.pad_token = pad


def learn(tokenizer: "PreTrainedTokenizerBase", names: tuple[str, ...]) -> None:
    """Make names special tokens; those that the vocabulary holds keep their ids."""
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names], special_tokens=True)


def end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """The first special token that a template writes behind an answer, if it writes one."""
    from alignlab.chat import Turn, fill_template, special_texts

    turns: list[Turn] = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    behind = fill_template(tokenizer, turns, {}, opens=False).rpartition("answer")[2]
    found = special_texts(tokenizer, len(tokenizer)).search(behind)
    return found[0] if found else None


def grow(source: Path, folder: Path, size: int) -> None:
    """Write the weights with embeddings for new tokens, drawn around the mean of the old ones, the same each time."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    reads = AutoConfig.from_pretrained(source).is_encoder_decoder
    kind = AutoModelForSeq2SeqLM if reads else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = kind.from_pretrained(source, dtype="auto")
        network.resize_token_embeddings(size)
    network.save_pretrained(folder)


def link(source: Path, folder: Path, everything: bool = False) -> None:
    """Link the weights and copy the settings of a model; or link everything that there is."""
    for path in source.iterdir():
        if everything or path.name.endswith((*WEIGHTS, ".index.json")):
            (folder / path.name).symlink_to(path.resolve())
        elif path.name in {"config.json", "generation_config.json"}:
            write_text(folder / path.name, path.read_text(encoding="utf-8"))


def settle(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Let the model's own settings name the tokenizer's pad token and ends; a former end still ends an answer."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    path = folder / "generation_config.json"
    generation: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    former = generation.get("eos_token_id", config.get("eos_token_id"))
    ends = [tokenizer.eos_token_id, *(former if isinstance(former, list) else [former])]
    ends = [end for end in dict.fromkeys(ends) if end not in {None, tokenizer.pad_token_id}]
    own = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id}
    write_text(folder / "config.json", json.dumps(config | own | {"eos_token_id": tokenizer.eos_token_id}, indent=2))
    write_text(path, json.dumps(generation | own | {"eos_token_id": ends}, indent=2))
