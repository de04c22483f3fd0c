"""SFT, reward model and DPO on every family of layers, whole and with low-rank adapters; T5 is an encoder-decoder."""

import json
from types import SimpleNamespace

import pytest
import torch
from command import config
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from alignlab.chat import Encoded, encode
from alignlab.config.compose import check
from alignlab.data import view
from alignlab.errors import Mistake
from alignlab.losses import language
from alignlab.methods import dpo, rm, sft
from alignlab.models.choices import log_probs
from alignlab.models.from_scratch import base_model
from alignlab.models.load import load_policy
from alignlab.models.prompt_layout import pack
from alignlab.models.reward_heads import DecoderConfig, DecoderReward, new_reward_model, scores
from alignlab.models.sampling import Sampling, sample
from alignlab.pipeline.model_references import check_models
from alignlab.rewards import load_reward_model
from alignlab.runtime.stage_run import Run
from alignlab.training.batching import ShuffledSteps
from alignlab.training.trainer import micro_batch_size

pytestmark = pytest.mark.slow

FAMILIES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "gpt_neox": "GPTNeoXForCausalLM"}
SMALL = [
    "model.vocab_size=300", "model.hidden_size=16", "model.intermediate_size=24", "model.num_hidden_layers=2",
    "model.num_attention_heads=2", "model.num_key_value_heads=2", "model.max_position_embeddings=128",
    "evaluation=none", "tracking=jsonl", "hardware.device=cpu", "hardware.threads=1",
]  # fmt: skip
VIEWS = {"sft": "demonstrations", "dpo": "pairs"}
METHODS = {"sft": sft, "rm": rm, "dpo": dpo}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Pairs in which the right answer names the question's number."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    file.write_text(
        "".join(
            json.dumps({"prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": "No idea."}) + "\n"
            for n in range(48)
        )
    )
    return file


def trained(rows, folder, method, family, *more):
    """Three steps of a method on a family; gives the run."""
    settings = config(
        f"method={method}", "model=scratch", f"model.family={family}", "dataset=file", f"dataset.path={rows}",
        *SMALL, "method.max_steps=3", "method.batch_size=8", "method.max_length=96", *more,
    )  # fmt: skip
    policy = base_model(settings.model, settings.dataset)
    folder.mkdir(exist_ok=True)
    run = Run(settings, settings.method, {"policy": policy}, folder, SimpleNamespace(log=lambda metrics, step: None))
    torch.manual_seed(0)
    METHODS[method].train(run)
    return run


def whole(folder):
    seq2seq = json.loads((folder / "config.json").read_text()).get("is_encoder_decoder")
    return (AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM).from_pretrained(folder).eval()


def answers(model, tokenizer):
    """The logits of an answer to a question."""
    prompt, completion = encode(tokenizer, [{"role": "user", "content": "What is 7?"}], "It is 7.")
    if model.config.is_encoder_decoder:
        return model(input_ids=torch.tensor([prompt]), labels=torch.tensor([completion])).logits
    return model(input_ids=torch.tensor([prompt + completion])).logits


@pytest.mark.parametrize("method", ["sft", "dpo"])
@pytest.mark.parametrize("family", [*FAMILIES, "t5"])
def test_an_adapter_that_is_merged_gives_the_logits_of_the_one_that_is_not(rows, tmp_path, family, method):
    if (family, method) == ("t5", "dpo"):
        with pytest.raises(Mistake, match="method: dpo does not train encoder-decoders; use method=sft or method=rm"):
            check(["method=dpo", "model=scratch", "model.family=t5"], binds=True, checks=[check_models])
        return
    run = trained(rows, tmp_path, method, family, "model/adapter=lora", "method.learning_rate=0.05")
    tokenizer = AutoTokenizer.from_pretrained(run.output)
    begun = whole(run.inputs["policy"])
    with torch.inference_mode():
        before = answers(begun, tokenizer)
        apart = answers(PeftModel.from_pretrained(begun, tmp_path / "adapter").eval(), tokenizer)
        merged = answers(whole(run.output), tokenizer)
    assert torch.allclose(apart, merged, atol=1e-5)
    assert (before - merged).abs().max() > 1e-3  # it has learned something


@pytest.mark.parametrize("family", [*FAMILIES, "t5"])
def test_every_weight_of_a_family_is_trained_saved_and_used(rows, tmp_path, family):
    run = trained(rows, tmp_path, "sft", family)
    before, after = (whole(folder).state_dict() for folder in (run.inputs["policy"], run.output))
    same = [name for name in before if torch.equal(before[name], after[name])]
    assert [name for name in same if "rotary" not in name and "inv_freq" not in name] == []
    model, tokenizer = load_policy(run.output, run.config.hardware)
    assert type(model).__name__ == FAMILIES.get(family, "T5ForConditionalGeneration")
    asked = [[{"role": "user", "content": f"What is {n}?"}] for n in (1, 22, 333)]
    drawn = sample(model, tokenizer, asked, Sampling(1.0, 1.0, 8, 2), seed=0)
    assert all(1 <= len(answer.tokens) <= 8 for answer in drawn)
    assert sample(model, tokenizer, asked, Sampling(1.0, 1.0, 8, 3), seed=0) == drawn  # the batch changes nothing


FULL, LORA = [], ["model/adapter=lora"]
REWARD_MODELS = [pytest.param(family, "last", FULL, marks=pytest.mark.runs) for family in (*FAMILIES, "t5")]
REWARD_MODELS += [(family, "last", LORA) for family in (*FAMILIES, "t5")]


@pytest.mark.parametrize(
    ("family", "head", "adapter"), [*REWARD_MODELS, ("qwen2", "pooled", FULL), ("t5", "pooled", LORA)]
)
def test_a_reward_model_of_a_family_scores_as_it_was_trained(rows, tmp_path, family, adapter, head):
    run = trained(rows, tmp_path, "rm", family, f"method.head={head}", *adapter)
    judge = load_reward_model(run.output, run.config.hardware)
    prompts = [[{"role": "user", "content": f"What is {n}?"}] for n in (1, 22)]
    both = judge.score(prompts, ["It is 1.", "No idea."]).total
    alone = [
        judge.score([prompt], [said]).total[0] for prompt, said in zip(prompts, ["It is 1.", "No idea."], strict=True)
    ]
    assert both == pytest.approx(alone, abs=1e-5)
    assert both[0] != both[1]
    encoded = encode(judge.tokenizer, prompts[0], "It is 1.", tail=True)
    packed = pack([encoded.prompt], [[encoded.completion]], judge.tokenizer.pad_token_id)
    with torch.inference_mode():
        assert scores(judge.model, packed).item() == pytest.approx(both[0], abs=1e-5)


@pytest.mark.parametrize(
    ("method", "family"), [pytest.param("sft", "llama", marks=pytest.mark.runs), ("sft", "t5"), ("dpo", "llama")]
)
def test_a_step_computed_in_micro_batches_is_the_step_of_the_whole_batch(rows, tmp_path, method, family):
    many = len(view(config("dataset=file", f"dataset.path={rows}", "model=scratch").dataset, VIEWS[method], "train"))
    one = [f"method.batch_size={many}", "method.max_steps=1", "method.warmup_steps=0", "method.learning_rate=0.01"]
    one += ["method.nll_weight=0"] if method == "dpo" else []
    runs = [
        trained(rows, tmp_path / str(size), method, family, *one, f"hardware.micro_batch_size={size}")
        for size in ("null", 1)
    ]
    together, apart = (whole(run.output).state_dict() for run in runs)
    assert max((together[name] - apart[name]).abs().max().item() for name in together) < 1e-5


def test_on_a_cpu_a_batch_of_long_rows_is_computed_in_micro_batches_that_divide_it():
    def size(longest, batch_size, micro=None, device="cpu"):
        own = SimpleNamespace(hardware=SimpleNamespace(device=device, micro_batch_size=micro))
        rows = Dataset.from_list(
            [{"prompt_ids": [1] * (longest - 3), "chosen_ids": [1, 2, 3]}, {"prompt_ids": [1], "chosen_ids": []}]
        )
        return micro_batch_size(SimpleNamespace(method=SimpleNamespace(batch_size=batch_size), config=own), rows)

    assert size(57, 32) == 32
    assert size(512, 32) == 4  # 2,048 tokens
    assert size(600, 32) == 2
    assert size(900, 6) == 2
    assert size(5000, 32) == 1
    assert size(512, 32, micro=16) == 16
    assert size(57, 8, micro=32) == 8


def test_micro_batches_of_similar_length_leave_the_rows_of_a_step_to_chance():
    order = ShuffledSteps([n % 17 for n in range(103)], 8, seed=0)
    first = [*order]
    steps = [first[start : start + 8] for start in range(0, 103, 8)]
    assert sorted(first) == list(range(103))
    assert all([n % 17 for n in step] == sorted(n % 17 for n in step) for step in steps)
    drawn = torch.randperm(103, generator=torch.Generator().manual_seed(0)).tolist()
    assert [{*step} for step in steps] == [{*drawn[start : start + 8]} for start in range(0, 103, 8)]
    order.set_epoch(1)
    assert [*order] != first


def t5(rows):
    settings = config(
        "method=sft", "model=scratch", "model.family=t5", "dataset=file", f"dataset.path={rows}", *SMALL
    )  # fmt: skip
    return base_model(settings.model, settings.dataset)


@pytest.mark.parametrize("pooled", [False, True])
def test_the_decoder_scores_each_completion_by_itself(rows, pooled):
    folder = t5(rows)
    torch.manual_seed(0)
    model = new_reward_model(folder, "pooled" if pooled else "last", 0.0)[0].eval()
    assert isinstance(model, DecoderReward)
    assert isinstance(model.config, DecoderConfig)
    prompts, completions = [[5, 6, 7], [8]], [[[9, 2], [10, 11, 2]], [[12, 13, 14, 2], [2]]]
    together = model(*pack(prompts, completions, 0)).logits
    one = [
        [model(*pack([p], [[c]], 0)).logits.item() for c in many] for p, many in zip(prompts, completions, strict=True)
    ]
    assert together.tolist() == pytest.approx(torch.tensor(one).numpy(), abs=1e-5)


def test_the_state_that_is_scored_is_the_one_after_the_last_word(rows):
    model = new_reward_model(t5(rows), "last", 0.0)[0].eval()
    begin = model.config.backbone.decoder_start_token_id
    states = model.backbone(
        input_ids=torch.tensor([[5, 6, 7]]), decoder_input_ids=torch.tensor([[begin, 9, 2]])
    ).last_hidden_state
    by_hand = (states[0, 2] @ model.score.weight[0]).item()
    assert model(*pack([[5, 6, 7]], [[[9, 2]]], 0)).logits.item() == pytest.approx(by_hand, abs=1e-6)


def test_the_loss_of_an_answer_is_the_decoders_and_padding_changes_nothing(rows):
    model = whole(t5(rows))
    encoded = [Encoded([5, 6, 7], [9, 10, 2]), Encoded([8], [11, 2])]
    found = log_probs(model, encoded)
    begin = model.config.decoder_start_token_id
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[8]]), decoder_input_ids=torch.tensor([[begin, 11]])).logits[0]
    by_hand = -(logits.log_softmax(-1)[torch.arange(2), torch.tensor([11, 2])]).sum().item()
    assert -found[1].score == pytest.approx(by_hand, abs=1e-5)
    assert found[1].tokens == 2


def test_the_loss_of_micro_batches_adds_up_to_that_of_the_batch():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 4, 5), torch.tensor([[1, 2, -100, -100], [3, 4, 0, 1], [2, -100, -100, -100]])
    micro_batches = [language(logits[i : i + 1], labels[i : i + 1], count=7) for i in range(3)]
    assert torch.stack(micro_batches).sum().item() == pytest.approx(language(logits, labels).item(), abs=1e-6)
    certain = torch.full((1, 1, 2), 0.0)
    assert language(certain, torch.tensor([[1]])).item() == pytest.approx(0.6931472, abs=1e-6)
