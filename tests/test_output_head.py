"""Log-probabilities in chunks of tokens equal those of all logits at once, for every kind of output head."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from alignlab import losses
from alignlab.models import output_head
from alignlab.models.log_probs import Distribution, compare_completions, sampling_logits, score_completions
from alignlab.models.output_head import chunks, has_known_head, run_body

TINY = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "initializer_range": 0.5,
}  # fmt: skip
FAMILIES = {
    "llama": {},
    "mistral": {},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {"final_logit_softcapping": 0.5},
    "gemma3_text": {"final_logit_softcapping": 0.5},
    "cohere": {"logit_scale": 0.25},
    "cohere2": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 4.0},
    "granitemoe": {"logits_scaling": 4.0, "num_local_experts": 2, "num_experts_per_tok": 1},
    "mixtral": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "n_inner": 24},
    "gpt_neox": {},
    "gptj": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "rotary_dim": 4},
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 16, "dropout": 0.0},
    "bloom": {"n_layer": 2, "n_head": 2, "hidden_dropout": 0.0, "attention_dropout": 0.0},
    "falcon": {"head_dim": None},
    "mpt": {"d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 32},
    "phi": {},
    "biogpt": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "minicpm3": {"dim_model_base": 8, "head_dim": None},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
    "bart": {
        "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "decoder_start_token_id": 2,
    },
}  # fmt: skip
SAMPLED = Distribution(0.7, [0, 1])


def built(family):
    """A tiny random model of a family."""
    torch.manual_seed(0)
    settings = {name: value for name, value in (TINY | FAMILIES[family]).items() if value is not None}
    config = AutoConfig.for_model(family, **settings)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="eager").eval()
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_()
    return model


def inputs(model):
    ids = torch.randint(3, 40, (3, 7), generator=torch.Generator().manual_seed(0))
    decoder = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False} | decoder


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def close(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        difference = (tensor - second[name]).abs().max()
        assert difference <= 2e-6 * max(1.0, second[name].abs().max()), name


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of two tokens."""
    monkeypatch.setattr(output_head, "LOGITS", 80)
    monkeypatch.setattr(output_head, "TOKENS", 1)


def compared(model):
    """Compare log-probabilities, entropies and their gradients with those of all logits at once."""
    given = inputs(model)
    tokens, mask = given["input_ids"].roll(-1, 1), torch.ones(3, 7)
    mask[1, 5:] = 0
    logits = sampling_logits(model(**given).logits, *SAMPLED)
    logps = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0].where(mask > 0, 0.0)
    entropy = losses.entropy_of(logits.log_softmax(-1)) * mask
    scores = score_completions(run_body(model, **given), tokens, mask, SAMPLED, with_entropy=True)
    assert torch.allclose(scores.logps, logps, atol=1e-6, rtol=1e-6)
    assert torch.allclose(scores.entropy, entropy, atol=1e-6, rtol=1e-6)
    weights = torch.rand(3, 7)
    plain = gradients(model, (logps * weights + 0.3 * entropy).sum())
    close(gradients(model, (scores.logps * weights + 0.3 * scores.entropy).sum()), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_equal_all_logits_at_once_with_their_gradients(family, small_chunks):
    model = built(family)
    assert has_known_head(model)
    compared(model)


@pytest.mark.parametrize("target", ["q_proj", "lm_head"])
def test_an_adapter_learns_the_same_in_chunks(target, small_chunks):
    model = get_peft_model(built("llama"), LoraConfig(r=2, target_modules=[target], init_lora_weights=False))
    compared(model)


def test_a_head_that_is_not_known_is_left_to_the_model(small_chunks):
    model = built("llama")
    head = model.lm_head
    plain = type(model).forward

    def forward(self, **given):
        out = plain(self, **given)
        out.logits = out.logits.sin()
        return out

    model.forward = forward.__get__(model)
    assert not has_known_head(model)
    compared(model)
    assert model.lm_head is head


def test_the_exact_kl_is_the_same_in_chunks(small_chunks):
    policy, reference = built("llama"), built("qwen2")
    given = inputs(policy)
    tokens, mask = given["input_ids"], torch.ones(3, 7)
    with torch.no_grad():
        ours, theirs = (sampling_logits(model(**given).logits, *SAMPLED) for model in (policy, reference))
        bodies = [run_body(model, **given) for model in (policy, reference)]
        found = compare_completions(*bodies, tokens, mask, SAMPLED)
    kl = losses.kl_of(ours.log_softmax(-1), theirs.log_softmax(-1))
    assert torch.allclose(found.exact_kl, kl, atol=1e-6)
    assert torch.allclose(found.entropy, losses.entropy_of(ours.log_softmax(-1)), atol=1e-6)
    chosen = [logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0] for logits in (ours, theirs)]
    assert torch.equal(found.logps.isinf(), chosen[0].isinf())
    assert torch.allclose(found.reference, chosen[1], atol=1e-6)


def test_one_chunk_has_the_bits_of_the_models_own_logits():
    model, given = built("llama"), inputs(built("llama"))
    tokens, mask = given["input_ids"], torch.ones(3, 7)
    logits = sampling_logits(model(**given).logits, *SAMPLED)
    logps = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    scores = score_completions(run_body(model, **given), tokens, mask, SAMPLED)
    assert torch.equal(scores.logps, logps)
    plain = gradients(model, logps.sum())
    assert all(torch.equal(each, plain[name]) for name, each in gradients(model, scores.logps.sum()).items())


def test_no_more_logits_than_a_chunk_are_computed_at_once(small_chunks):
    model, sizes = built("gpt2"), []
    project = output_head.Hidden.project

    def watched(self, *given, **named):
        logits = project(self, *given, **named)
        sizes.append(logits.numel())
        return logits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output_head.Hidden, "project", watched)
        compared(model)
    assert max(sizes) == 80
    assert sum(sizes) == 2 * 21 * 40  # forward and backward


def test_chunks_hold_every_token_once():
    assert [part.stop - part.start for part in chunks(300, 10**6)] == [128, 128, 128]
    assert len(list(chunks(2048, 217))) == 1
