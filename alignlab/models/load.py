"""Load models, put adapters on them, save them, and prove that what was saved can be read back.

A stage's model folder is always a whole model that `transformers` loads without us: low-rank adapters are
merged into the weights when a stage ends (and kept beside them), so that the next stage's reference is exactly
what this stage made.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.config.hardware import Hardware
from alignlab.config.model import PretrainedModel
from alignlab.config.schema import Config
from alignlab.errors import failure
from alignlab.runtime import distributed

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def device(hardware: Hardware) -> "torch.device":
    """The device to compute on."""
    import torch

    if hardware.device == "cuda" and not torch.cuda.is_available():
        raise failure("hardware.device", "no GPU is there", "use hardware.device=cpu or auto")
    return torch.device("cuda" if hardware.device != "cpu" and torch.cuda.is_available() else "cpu")


def precision(hardware: Hardware) -> "torch.dtype":
    """The number format to compute in: bfloat16 on a GPU and float32 on a CPU, unless the config says otherwise."""
    import torch

    if hardware.dtype != "auto":
        return torch.bfloat16 if hardware.dtype == "bfloat16" else torch.float32
    return torch.bfloat16 if device(hardware).type == "cuda" else torch.float32


def load_policy(path: Path, hardware: Hardware) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A language model for inference, on its device and in its precision, with its tokenizer."""
    model, tokenizer = _load(path, precision(hardware))
    return model.to(device(hardware)).eval(), tokenizer


def load_trainable(
    path: Path, dropout: float, attention: str | None = None
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A language model to train: weights in float32 (mixed precision is the trainer's affair), or shares of them."""
    import torch

    with distributed.loading():
        return _load(path, torch.float32, dropout, attn_implementation=attention)


def load_frozen(path: Path, attention: str | None = None) -> "PreTrainedModel":
    """The reference that a policy is held against, in float32; in shares where the policy lies in shares."""
    import torch

    with distributed.loading():
        return _load(path, torch.float32, attn_implementation=attention)[0].eval().requires_grad_(False)


DROPOUTS = ("attention_dropout", "hidden_dropout", "dropout_rate", "attn_pdrop", "resid_pdrop", "embd_pdrop")


def dropouts(settings: Any, share: float) -> dict[str, float]:
    """Set every dropout that a model's own settings have."""
    return {name: share for name in DROPOUTS if hasattr(settings, name)}


def without_dropout(settings: Any) -> Any:
    """Turn off every dropout in a model's own settings, and in those of the backbone that they may hold."""
    for part in (settings, getattr(settings, "backbone", None)):
        for name, share in dropouts(part, 0.0).items():
            setattr(part, name, share)
    return settings


def _load(
    path: Path, dtype: "torch.dtype", dropout: float = 0.0, **options: Any
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A decoder, or an encoder-decoder (`model.config.is_encoder_decoder` tells), and its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        settings = AutoConfig.from_pretrained(path)
        kind = AutoModelForSeq2SeqLM if settings.is_encoder_decoder else AutoModelForCausalLM
        model = kind.from_pretrained(path, dtype=dtype, **dropouts(settings, dropout), **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).splitlines()[0][:200]
        raise failure(str(path), f"no language model can be loaded from it ({reason})") from error
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise failure(str(path), "its tokenizer has no pad token of its own", "add one that is not eos")
    return model, tokenizer


def attention(config: Config) -> str | None:
    """The implementation of attention that the config asks for; None leaves it to transformers."""
    return config.model.attn_implementation if isinstance(config.model, PretrainedModel) else None


def adapter(config: Config, **options: Any) -> "LoraConfig | None":
    """The low-rank adapter that the config asks for."""
    settings = config.model.adapter
    if settings is None:
        return None
    from peft import LoraConfig

    targets = settings.target_modules
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        **({"lora_dropout": settings.lora_dropout} | options),
    )


def save(model: Any, tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Write a whole model to `folder` (an adapter also beside it, as `adapter/`) and prove that it reads back."""
    from peft import PeftModel, get_peft_model_state_dict

    if isinstance(model, PeftModel):
        for other in set(model.peft_config) - set(model.active_adapters):
            model.delete_adapter(other)  # a value function's: it is no part of the policy
        model.save_pretrained(folder.parent / "adapter")
        prove(get_peft_model_state_dict(model), folder.parent / "adapter")
        model = model.merge_and_unload()
    model.config.use_cache = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    prove(model.state_dict(), folder)


def prove(held: "Mapping[str, torch.Tensor]", folder: Path) -> None:
    """Compare the saved tensors with those in memory, one by one; fail where one is absent, empty or differs."""
    import torch
    from safetensors import safe_open

    if hollow := [name for name, tensor in held.items() if not tensor.numel()]:
        raise failure(str(folder), f"{len(hollow)} trained tensors are empty, {min(hollow)!r} among them")
    saved: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():
                if name not in held or not torch.equal(tensors.get_tensor(name), held[name].cpu()):
                    raise failure(str(file), f"the saved tensor {name!r} differs from the trained one")
                saved.add(name)
    places = {held[name].data_ptr() for name in saved}  # tensors that are tied are saved once
    if absent := [name for name in held if name not in saved and held[name].data_ptr() not in places]:
        raise failure(str(folder), f"{len(absent)} trained tensors were not saved, {min(absent)!r} among them")
