"""Build a tiny model of every decoder that transformers names, with random weights.

A config is shrunk by the names of its fields, and its sub-configs likewise. Where that gives no model, the reason is
recorded.
"""

import re
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

NAMES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
POPULAR = (
    *("bloom", "codegen", "cohere", "falcon", "falcon_mamba", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_bigcode"),
    *("gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granite", "jamba", "llama", "mamba", "mistral", "mixtral", "mpt"),
    *("olmo2", "opt", "phi", "phi3", "qwen2", "qwen3", "rwkv", "smollm3", "stablelm", "starcoder2", "xglm"),
)
VOCABULARY, LAYERS, HEADS, HEAD_WIDTH, EXPERTS, WINDOW = 64, 2, 4, 8, 4, 16
LARGEST = 20_000_000  # parameters
WIDTH = HEADS * HEAD_WIDTH
# The name of a field and its value; the first pattern that matches decides.
SIZES: tuple[tuple[str, int], ...] = (
    (r"vocab_size|n_vocab|unpadded_vocab_size|vocab_size_per_layer_input|encoder_hash_byte_group_vocab", VOCABULARY),
    (r"n_group|topk_group|n_groups|n_shared_experts|num_shared_experts|moe_num_shared_experts", 1),
    (r"num_kv_shared_layers|num_nextn_predict_layers|first_k_dense_replace|num_dense_layers|max_window_layers", 0),
    (r"(num_|n_)?(hidden_|encoder_|decoder_)?layers?|num_blocks|depth|n_layer", LAYERS),
    (r"num_key_value_heads|n_kv_heads|kv_n_heads|num_kv_heads|swa_num_key_value_heads|linear_num_key_heads", HEADS),
    (r"linear_num_value_heads|linear_num_heads|index_n_heads", HEADS),
    (r"mamba_num_heads|mamba_n_heads", 2 * WIDTH // HEAD_WIDTH),
    (r"attn_layer_period", LAYERS),
    (r"attn_layer_offset", LAYERS - 1),
    (r"(num_|n_)?(encoder_|decoder_)?(attention_)?heads?|swa_num_attention_heads", HEADS),
    (r"head_dim|.*_head_dim|d_kv|dim_head|kv_channels|attention_head_dim|swa_head_dim|mamba_d_head", HEAD_WIDTH),
    (r"qk_head_dim", 2 * HEAD_WIDTH),
    (r"rotary_dim", HEAD_WIDTH // 2),
    (r"hidden_size|d_model|n_embd|n_embed|embed_dim|embedding_size|word_embed_proj_dim|attention_hidden_size", WIDTH),
    (r"hidden_size_global|hidden_size_per_layer_input|ple_embed_dim", WIDTH),
    (r".*intermediate_size(_mlp)?|.*ffn_dim|.*ffn_hidden_size|d_ff|dim_ff|n_inner|dff|mamba_d_ssm", 2 * WIDTH),
    (r".*lora_rank|laurel_rank|hc_lowrank|gated_norm_rank|mamba_dt_rank|time_step_rank", HEAD_WIDTH),
    (r"num_experts|n_routed_experts|num_local_experts|moe_num_experts", EXPERTS),
    (r"num_experts_per_tok(en)?|moe_topk|moe_top_k|moe_k", 2),
    (r"sliding_window|sliding_window_size|attention_chunk_size|window_size", WINDOW),
    (r"max_position_embeddings|n_positions|max_seq_len|n_ctx|max_target_positions|model_max_length", 128),
    (r"mamba_chunk_size|chunk_size|state_size|mamba_d_state|ssm_state_size", 16),
)
# Fields that no name decides.
SPECIAL: dict[str, dict[str, Any]] = {
    "bert": {"is_decoder": True},
    "deepseek_v2": {"topk_method": "greedy"},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "mamba2": {"num_heads": 2 * WIDTH // HEAD_WIDTH},
    "reformer": {"is_decoder": True},
    "xlm": {"n_words": VOCABULARY},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
}
UNSET = {"head_dim": HEAD_WIDTH, "num_key_value_heads": HEADS}  # fields that may be None and take no default then


def tiny_config(settings: PretrainedConfig, **changed: Any) -> PretrainedConfig:
    """Return a config of the same class in a tiny size."""
    sizes: dict[str, Any] = {}
    for name, value in vars(settings).items():
        if isinstance(value, PretrainedConfig):
            sizes[name] = tiny_config(value)
        elif isinstance(value, int) and not isinstance(value, bool) and (size := tiny_size(name)) is not None:
            sizes[name] = size
        elif value is None and name in UNSET:
            sizes[name] = UNSET[name]
        elif name in {"pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"} and value is not None:
            sizes[name] = {"pad_token_id": 0, "bos_token_id": 1}.get(name, 2)
    return type(settings)(**sizes | changed)


def tiny_size(name: str) -> int | None:
    """Return the tiny value of a field; None where its name says nothing about a size."""
    return next((size for pattern, size in SIZES if re.fullmatch(pattern, name)), None)


def tiny_model(name: str, auto: Any = AutoModelForCausalLM, **changed: Any) -> Any:
    """Build a tiny model of a type in float32, with weights large enough for differences to show."""
    torch.manual_seed(0)
    settings = tiny_config(CONFIG_MAPPING[name](), **SPECIAL.get(name, {}) | changed)
    with torch.device("meta"):
        size = auto.from_config(settings).num_parameters()
    if size > LARGEST:
        raise ValueError(f"its config cannot be shrunk below {size:,} parameters")
    model = auto.from_config(settings, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and parameter.is_floating_point():
                parameter.normal_(std=0.3)
    return model.eval()
