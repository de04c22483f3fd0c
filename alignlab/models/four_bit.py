"""Frozen weights in 4 bits under low-rank adapters: QLoRA (Dettmers et al. 2023), by bitsandbytes on a GPU.

The weights of linear layers are stored as NF4 with double quantisation and computed in the run's precision. Adapters
train as ever. When a stage ends, each adapter is added to the dequantised weights, with which it was trained.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from alignlab.config.schema import Config
from alignlab.errors import failure

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def check(config: Config) -> None:
    """Raise a `Failure` where the config asks for weights in 4 bits and this machine cannot compute with them."""
    import torch

    if not is_set(config):
        return
    if config.hardware.device == "cpu" or not torch.cuda.is_available():
        raise failure("model.adapter.load_in_4bit", "weights in 4 bits need a CUDA GPU", "use model/adapter=lora")
    if find_spec("bitsandbytes") is None:
        what = "weights in 4 bits need the package bitsandbytes"
        raise failure("model.adapter.load_in_4bit", what, "pip install 'alignlab[qlora]', or use model/adapter=lora")


def is_set(config: Config) -> bool:
    """Return whether frozen weights are held in 4 bits."""
    return config.model.adapter is not None and config.model.adapter.load_in_4bit


def load_options(config: Config, precision: "torch.dtype") -> dict[str, Any]:
    """Return the arguments of `from_pretrained` that quantise the weights; none where the config sets no 4 bits."""
    if not is_set(config):
        return {}
    from transformers import BitsAndBytesConfig

    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=precision,
        llm_int8_skip_modules=["lm_head", "embed_out", "score"],  # the name is old; it holds for 4 bits
    )
    return {"quantization_config": quantised}


def merge(model: "PeftModel") -> "PreTrainedModel":
    """Return the model with whole weights: each dequantised in float32, plus its adapter."""
    import torch
    from peft.tuners.lora import LoraLayer
    from peft.utils import TrainableTokensWrapper
    from peft.utils.integrations import dequantize_module_weight
    from torch import nn

    base = model.get_base_model()
    for name, layer in list(base.named_modules()):
        is_adapted, weight = isinstance(layer, LoraLayer), getattr(layer, "weight", None)
        if not is_adapted and not hasattr(weight, "quant_state"):
            continue
        inner: Any = layer.get_base_layer() if is_adapted else layer
        with torch.no_grad():
            whole = dequantize_module_weight(inner).detach().float()
            for adapter in layer.active_adapters if is_adapted else ():
                whole = whole + layer.get_delta_weight(adapter).float()
        linear = nn.Linear(whole.shape[1], whole.shape[0], bias=inner.bias is not None, device="meta")
        linear.weight, linear.bias = nn.Parameter(whole), inner.bias
        parent, _, child = name.rpartition(".")
        if not (isinstance(base.get_submodule(parent), LoraLayer) and child == "base_layer"):
            setattr(base.get_submodule(parent), child, linear)
    for module in base.modules():
        if isinstance(module, TrainableTokensWrapper):  # the embeddings of new tokens, which are not quantised
            module.token_adapter.merge()
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(base.config, name):
            delattr(base.config, name)
    base.is_quantized = base.is_loaded_in_4bit = False
    base.hf_quantizer = None
    return model.unload()
