"""New tokens under low-rank adapters: their rows are trained, saved, merged and read back."""

from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel, get_peft_model
from tiny import tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

from alignlab.config.model import Adapter
from alignlab.models import reward_heads
from alignlab.models.load import NEW_TOKENS, adapter, save
from alignlab.models.output_head import run_body, score_tokens

ROWS = [20, 21]
IDS = torch.tensor([[4, 20, 7, 21, 8]])
LORA = Adapter(r=2, lora_alpha=4, lora_dropout=0.0, target_modules="all-linear")
CONFIG = SimpleNamespace(model=SimpleNamespace(adapter=LORA))


def model_folder(folder, tied):
    """Write a model whose last two tokens are new, as it is when it was made ready."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings = LlamaConfig(vocab_size=22, tie_word_embeddings=tied, initializer_range=0.3, pad_token_id=0, **sizes)
    setattr(settings, NEW_TOKENS, ROWS)
    LlamaForCausalLM(settings).save_pretrained(folder)
    return folder


def train_step(model, loss):
    """Take a step of gradient descent; the embeddings of new tokens must get a gradient."""
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.5)
    loss.backward()
    optimizer.step()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_new_rows_move_and_the_merged_model_is_the_adapters(tmp_path, tied):
    base = model_folder(tmp_path / "base", tied)
    model = AutoModelForCausalLM.from_pretrained(base)
    before = {name: weight.clone() for name, weight in model.state_dict().items() if "embed" in name or "head" in name}
    policy = get_peft_model(model, adapter(CONFIG, model)).train()
    for _ in range(2):
        train_step(policy, policy(input_ids=IDS, labels=IDS).loss)
    with torch.no_grad():
        logits = policy.eval()(input_ids=IDS).logits
        with policy.disable_adapter():  # the reference of DPO and PPO
            torch.testing.assert_close(
                policy(input_ids=IDS).logits, AutoModelForCausalLM.from_pretrained(base)(input_ids=IDS).logits
            )
    save(policy, tiny_tokenizer(), tmp_path / "stage" / "model", base)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "stage" / "model")
    torch.testing.assert_close(merged(input_ids=IDS).logits, logits, rtol=1e-4, atol=1e-5)
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "stage" / "adapter")
    torch.testing.assert_close(again(input_ids=IDS).logits, logits, rtol=1e-4, atol=1e-5)
    after = merged.state_dict()
    for name, weight in before.items():
        torch.testing.assert_close(after[name][:20], weight[:20])
        assert (after[name][20:] - weight[20:]).abs().max() > 1e-3
    assert getattr(merged.config, NEW_TOKENS) == ROWS  # the next stage trains them, too


def test_chunks_of_logits_give_tied_rows_their_gradient(tmp_path, monkeypatch):
    model = AutoModelForCausalLM.from_pretrained(model_folder(tmp_path, tied=True))
    policy = get_peft_model(model, adapter(CONFIG, model))
    (delta,) = (weight for name, weight in policy.named_parameters() if "trainable_tokens_delta" in name)

    def gradient():
        policy.zero_grad()
        (logps,) = score_tokens(run_body(policy, input_ids=IDS), lambda logits: (logits.log_softmax(-1)[:, 20],))
        logps.sum().backward()
        return delta.grad.clone()

    whole = gradient()
    monkeypatch.setattr("alignlab.models.output_head.TOKENS", 2)
    monkeypatch.setattr("alignlab.models.output_head.LOGITS", 0)
    torch.testing.assert_close(gradient(), whole)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_fused_head_of_trl_trains_the_new_rows(tmp_path, tied):
    from trl.trainer.utils import add_fused_lm_head

    model = AutoModelForCausalLM.from_pretrained(model_folder(tmp_path, tied))
    policy = get_peft_model(model, adapter(CONFIG, model))
    deltas = [weight for name, weight in policy.named_parameters() if "trainable_tokens_delta" in name]

    def loss_and_gradients(**options):
        policy.zero_grad()
        loss = policy(input_ids=IDS, labels=IDS, **options).loss
        loss.backward()
        return loss.detach(), [delta.grad.clone() for delta in deltas]

    plain = loss_and_gradients()
    add_fused_lm_head(model)
    torch.testing.assert_close(loss_and_gradients(fused_lm_head=True), plain)


@pytest.mark.parametrize("head", ["last", "pooled"])
def test_a_reward_model_trains_the_new_rows_that_it_reads(tmp_path, head):
    base = model_folder(tmp_path / "base", tied=True)
    tiny_tokenizer().save_pretrained(base)
    model, tokenizer = reward_heads.new_reward_model(base, head, 0.0)
    lora = adapter(CONFIG, model, task_type="SEQ_CLS", modules_to_save=["score"])
    judge = get_peft_model(model, lora).train()
    before = model.get_input_embeddings().weight.detach().clone()
    packed = reward_heads.Packed(IDS, torch.tensor([[0, 0, 1, 1, 1]]))
    train_step(judge, reward_heads.scores(judge, packed).sum())
    trained = reward_heads.scores(judge.eval(), packed).detach()
    save(judge, tokenizer, tmp_path / "stage" / "model", base)
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "stage" / "model")
    torch.testing.assert_close(reward_heads.scores(merged, packed), trained, rtol=1e-4, atol=1e-5)
    assert (merged.get_input_embeddings().weight[20:] - before[20:]).abs().max() > 1e-3


def test_a_model_without_new_tokens_trains_none(tmp_path):
    model = LlamaForCausalLM(LlamaConfig(vocab_size=22, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    assert adapter(CONFIG, model).trainable_token_indices is None
    assert adapter(SimpleNamespace(model=SimpleNamespace(adapter=None)), model) is None


def test_the_adapter_of_qlora_trains_new_rows_too(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(model_folder(tmp_path, tied=False))
    config = SimpleNamespace(model=SimpleNamespace(adapter=LORA.model_copy(update={"load_in_4bit": True})))
    assert adapter(config, model).trainable_token_indices == {"model.embed_tokens": ROWS, "lm_head": ROWS}
