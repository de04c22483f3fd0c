"""Load models, create adapters, save models, and check that a saved model reads back.

A stage's model folder is always a whole model that `transformers` loads by itself. A low-rank adapter is merged into
the weights when a stage ends, and also saved beside them: the next stage's reference is exactly this stage's model.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignlab.config.hardware import Hardware
from alignlab.config.schema import Config
from alignlab.errors import failure
from alignlab.models import four_bit, model_folder, own_code, weight_files
from alignlab.runtime import sharding
from alignlab.runtime.distributed import has_gpu

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


NEW_TOKENS = "new_token_ids"  # in a model's config.json: tokens that got their first embeddings when it was made ready
LAYER = re.compile(r"(.*\.(?:layers|h|blocks?)\.)\d+\.")
UNREADABLE = "no language model can be loaded from it"


def device(hardware: Hardware) -> "torch.device":
    """Return the device to compute on; raises a `Failure` where cuda is set and there is no GPU."""
    import torch

    if hardware.device == "cuda" and not torch.cuda.is_available():
        raise failure(
            "hardware.device", "there is no GPU", "use hardware.device=cpu or auto; dry_run=true plans for one"
        )
    return torch.device(device_type(hardware))


def device_type(hardware: Hardware) -> str:
    """Return cuda or cpu: the kind of device that a run uses, which a plan on another machine may lack."""
    return "cuda" if hardware.device == "cuda" or (hardware.device != "cpu" and has_gpu()) else "cpu"


def precision(hardware: Hardware) -> "torch.dtype":
    """Return the dtype of every forward pass of a run: the config's, else bfloat16 on a GPU and float32 on a CPU.

    Rollouts, measuring, the reference, rewards, judges and updates all compute with weights in this dtype, without
    autocast: policy and reference agree exactly at step 0, and keys and values have one dtype in the cache.
    """
    import torch

    return torch.bfloat16 if precision_name(hardware) == "bfloat16" else torch.float32


def precision_name(hardware: Hardware) -> Literal["bfloat16", "float32"]:
    """Return the name of `precision`, without importing torch where there is no GPU."""
    if hardware.dtype != "auto":
        return hardware.dtype
    return "bfloat16" if device_type(hardware) == "cuda" else "float32"


def load_policy(path: Path, hardware: Hardware) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load a language model for inference, on its device and in its precision, with its tokenizer."""
    model, tokenizer = _load(path, precision(hardware))
    return model.to(device(hardware)).eval(), tokenizer


def trained_precision(hardware: Hardware) -> "torch.dtype":
    """Return the dtype in which trained weights are loaded.

    FSDP2 gathers a copy in the run's precision from weights in float32. Elsewhere the weights have the run's precision
    themselves, and the optimizer keeps master weights in float32 (`alignlab.training.master_weights`, or DeepSpeed).
    """
    import torch

    return torch.float32 if hardware.strategy_record.uses_fsdp else precision(hardware)


def load_trainable(
    path: Path, hardware: Hardware, dropout: float, attention: str | None = None, **options: Any
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load a language model to train, in the run's precision; ZeRO-3 shards it."""
    with sharding.partition_on_load(precision(hardware)):
        return _load(path, trained_precision(hardware), dropout, attn_implementation=attention, **options)


def load_frozen(path: Path, hardware: Hardware, attention: str | None = None) -> "PreTrainedModel":
    """Load a frozen model in the run's precision, for the reference; ZeRO-3 shards it."""
    with sharding.partition_on_load(precision(hardware)):
        return _load(path, precision(hardware), attn_implementation=attention)[0].eval().requires_grad_(False)


def set_dropout(settings: "PretrainedConfig", rate: float) -> "PretrainedConfig":
    """Set every dropout of a model's config and its sub-configs to one rate, and return the config.

    Layers are never dropped and routers get no noise. A field that holds whole numbers alone stays at 0.
    """
    from huggingface_hub.errors import StrictDataclassFieldValidationError
    from transformers import PretrainedConfig

    for name, value in list(vars(settings).items()):
        if isinstance(value, PretrainedConfig):
            set_dropout(value, rate)
        elif isinstance(value, int | float) and not isinstance(value, bool) and ("drop" in name or "jitter" in name):
            setattr(settings, name, type(value)(0))
            if rate and "layer" not in name and "jitter" not in name:
                with suppress(StrictDataclassFieldValidationError):
                    setattr(settings, name, rate)
    return settings


def _load(
    path: Path, dtype: "torch.dtype", dropout: float = 0.0, **options: Any
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load a decoder or an encoder-decoder, and its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    model_folder.check(path)
    trust = own_code.is_trusted(path)
    with model_folder.explained_loading(str(weight_files.origin(path)), UNREADABLE, path):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust)
        settings = AutoConfig.from_pretrained(path, trust_remote_code=trust)
    auto_class = AutoModelForSeq2SeqLM if settings.is_encoder_decoder else AutoModelForCausalLM
    model = load_whole(auto_class, path, trust=trust, config=set_dropout(settings, dropout), dtype=dtype, **options)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise failure(str(path), "its tokenizer has no pad token that differs from eos", "add one")
    return model, tokenizer


def load_whole(auto_class: Any, path: Path, new: tuple[str, ...] = (), trust: bool = False, **options: Any) -> Any:
    """Load a model by one of transformers' auto classes, with all its weights; `trust` runs its folder's Python code.

    Raises a `Failure` where files are broken, weights are absent, but for those whose names begin with `new`, or are no
    numbers.
    """
    model_folder.check(path)
    with model_folder.explained_loading(str(weight_files.origin(path)), UNREADABLE, path):
        model, info = auto_class.from_pretrained(path, output_loading_info=True, **options, trust_remote_code=trust)
    absent = {name for name in info["missing_keys"] if not name.startswith(new)} if new else info["missing_keys"]
    check_weights(path, model, absent)
    check_layers(path, model, info["unexpected_keys"])
    return model


def check_layers(path: Path, model: Any, unused: "set[str]") -> None:
    """Raise a `Failure` where a model's files have layers that its config.json does not count."""
    own = [match for name, _ in model.named_parameters() if (match := LAYER.match(name))]
    layers, stacks = {match[0] for match in own}, {match[1] for match in own}
    found = [match for name in unused if (match := LAYER.match(name))]
    if beyond := {match[0] for match in found if match[1] in stacks and match[0] not in layers}:
        what = f"its files have the layer {min(beyond)[:-1]!r}, and by its config.json it has fewer layers"
        raise failure(str(weight_files.origin(path)), what, weight_files.AGAIN)


def check_weights(path: Path, model: Any, missing: "set[str]") -> None:
    """Raise a `Failure` where weights are absent from a model's files, or are no numbers."""
    import torch

    if missing:
        what = f"{len(missing)} of its weights are in no file, {min(missing)!r} among them"
        raise failure(str(weight_files.origin(path)), what, weight_files.AGAIN)
    if getattr(model, "is_quantized", False):  # the weights in memory are codes, which are always numbers
        broken = weight_files.not_finite(path)
    else:
        broken = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if broken:
        what = f"{len(broken)} of its weights hold NaN or infinity, {min(broken)!r} among them"
        raise failure(str(weight_files.origin(path)), what, f"{weight_files.AGAIN}, or take an earlier checkpoint")


def load_options(config: Config) -> dict[str, Any]:
    """Return how a model to train is loaded: its attention, and its weights in 4 bits where the config says so."""
    return {"attention": config.model.attention, **four_bit.load_options(config, precision(config.hardware))}


def adapter(config: Config, model: Any, **options: Any) -> "LoraConfig | None":
    """Return the config of a low-rank adapter, which also trains a model's new tokens; None where none is set."""
    settings = config.model.adapter
    if settings is None:
        return None
    from peft import LoraConfig

    targets = settings.target_modules
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        trainable_token_indices=trained_rows(model),
        **({"lora_dropout": settings.lora_dropout} | options),
    )


def trained_rows(model: Any) -> dict[str, list[int]] | None:
    """Return the rows of new tokens in a model's embeddings and in its output head, by module; None where none are new.

    PEFT computes a head without its bias, so one that has a bias stays as it is.
    """
    config = getattr(model.config, "backbone", model.config)
    rows: list[int] | None = getattr(config, NEW_TOKENS, None)
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    has_bias = getattr(head, "bias", None) is not None
    if not rows or (has_bias and head.weight is embeddings.weight):
        return None
    from peft.utils import TrainableTokensWrapper

    TrainableTokensWrapper.bias = None  # TRL's fused head asks PEFT's wrapper of the head for it
    trained = [embeddings] if has_bias else [embeddings, head]
    return {name: rows for name, module in model.named_modules() if any(module is layer for layer in trained)}


def save(model: Any, tokenizer: "PreTrainedTokenizerBase", folder: Path, base: Path | None = None) -> None:
    """Write a whole model to `folder`, and an adapter also to `adapter/` beside it; check that both read back.

    The weights are stored in the dtype of the model in `base`, from which training started.
    """
    from peft import PeftModel, get_peft_model_state_dict

    if isinstance(model, PeftModel):
        for other in set(model.peft_config) - set(model.active_adapters):
            model.delete_adapter(other)  # the value function's, which is no part of the policy
        model.save_pretrained(folder.parent / "adapter")
        check_saved(get_peft_model_state_dict(model), folder.parent / "adapter")
        model = merged(model)
    if base is not None and (dtype := stored_dtype(base)):
        cast(model, dtype)
    model.config.use_cache = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    check_saved(model.state_dict(), folder)


def merged(model: Any) -> Any:
    """Return a model with its adapter added to the weights, in float32."""
    if getattr(model, "is_loaded_in_4bit", False):
        return four_bit.merge(model)
    cast(model, torch_dtype("float32"))
    return model.merge_and_unload()


def stored_dtype(folder: Path) -> "torch.dtype | None":
    """Return the dtype that a model's config.json states for its weights; None where it states none."""
    file = folder / "config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    parts = (settings, settings.get("text_config") or {}, settings.get("backbone") or {})
    names = (part.get(key) for part in parts for key in ("dtype", "torch_dtype"))
    return next((torch_dtype(name) for name in names if name in {"float32", "bfloat16", "float16"}), None)


def torch_dtype(name: str) -> "torch.dtype":
    """Return the dtype of a name."""
    import torch

    dtype: torch.dtype = getattr(torch, name)
    return dtype


def cast(model: Any, dtype: "torch.dtype") -> None:
    """Cast the weights of a model in place; its buffers, such as rotary frequencies, stay as they are."""
    for weight in model.parameters():
        if weight.is_floating_point() and weight.dtype != dtype:
            weight.data = weight.data.to(dtype)


def check_saved(weights: "Mapping[str, torch.Tensor]", folder: Path) -> None:
    """Compare the saved tensors with those in memory; raise a `Failure` where one is missing, empty or different."""
    import torch
    from safetensors import safe_open

    if empty := [name for name, tensor in weights.items() if not tensor.numel()]:
        raise failure(str(folder), f"{len(empty)} trained tensors are empty, {min(empty)!r} among them")
    saved: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():
                if name not in weights or not torch.equal(tensors.get_tensor(name), weights[name].cpu()):
                    raise failure(str(file), f"the saved tensor {name!r} differs from the trained one")
                saved.add(name)
    pointers = {weights[name].data_ptr() for name in saved}  # tied tensors are saved once
    if missing := [name for name in weights if name not in saved and weights[name].data_ptr() not in pointers]:
        raise failure(str(folder), f"{len(missing)} trained tensors were not saved, {min(missing)!r} among them")
