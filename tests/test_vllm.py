"""Rollouts on a server that speaks vLLM's protocol: exact samples, fresh weights, the mismatch, and every failure."""

import json
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import torch
from command import config
from safetensors.torch import load_file
from tiny import ask, tiny_model, tiny_tokenizer
from vllm_server import vllm_server

from alignlab import losses
from alignlab.chat import encode_prompt
from alignlab.errors import Failure, Mistake
from alignlab.methods import ppo
from alignlab.models.engines import engine
from alignlab.models.sampling import Completion, Sampling, sample_token_ids
from alignlab.models.vllm_engine import VLLMEngine, merged_weights, row_seed
from alignlab.models.vllm_process import VLLMProcess
from alignlab.runtime.stage_run import Run
from alignlab.training import gates
from alignlab.training.ppo import engine_mismatch

SMALL = [
    *("method=ppo", "model=pocket_small", "dataset=pocket_small", "reward=function", "evaluation=quick"),
    *(f"reward.function={__name__}:words", "hardware.device=cpu", "hardware.threads=1", "method.value=shared"),
    *("method.batch_size=8", "method.total_episodes=24", "method.num_ppo_epochs=1", "method.num_mini_batches=1"),
    *("method.max_new_tokens=12", "method.max_length=48", "method.gates.min_finished=0", "method.save_steps=1"),
    *("method.engine=vllm", "method.vllm.retries=1", "method.vllm.backoff=0", "method.vllm.concurrency=4"),
    *("method.gates.during=stop", "method.gates.window=9", "method.learning_rate=0.01"),
]


def words(prompts, completions, finished):
    """Reward words."""
    return [float(len(text.split())) for text in completions]


def test_importance_weights_by_hand() -> None:
    """Probabilities 0.5 against 0.25, 0.1 against 0.4, and 0.9 against 0.1, whose weight of 9 is cut at 2."""
    trainer, sampler = torch.tensor([0.5, 0.1, 0.9]).log(), torch.tensor([0.25, 0.4, 0.1]).log()
    weights = losses.truncated_importance(trainer, sampler, 2.0)
    assert weights.tolist() == pytest.approx([2.0, 0.25, 2.0])
    assert losses.truncated_importance(trainer, sampler, 10.0).tolist() == pytest.approx([2.0, 0.25, 9.0])
    assert losses.truncated_importance(trainer, trainer, 2.0).tolist() == [1.0, 1.0, 1.0]


def test_weighted_advantages_are_weighted_losses() -> None:
    logps, old = torch.tensor([-1.0, -0.2, -3.0]), torch.tensor([-1.5, -0.1, -3.0])
    advantages, weights = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([2.0, 0.25, 1.0])
    weighted = losses.clipped_policy(logps, old, advantages * weights, 0.2)
    assert torch.allclose(weighted, weights * losses.clipped_policy(logps, old, advantages, 0.2))


def test_the_mismatch_by_hand() -> None:
    """Distances 0.5 and 0 in two tokens: mean 0.25, maximum 0.5, KL (e^0.5 - 1 - 0.5) / 2; padding counts nothing."""
    trainer, engine = torch.tensor([[-1.0, -2.0, -9.0]]), torch.tensor([[-1.5, -2.0, 0.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0]])
    assert engine_mismatch.mismatch(trainer, engine, mask) == {
        "policy/engine_mismatch": pytest.approx(0.25),
        "policy/engine_mismatch_max": pytest.approx(0.5),
        "policy/engine_kl": pytest.approx((math.exp(0.5) - 1.5) / 2),
    }


def test_the_gate_of_the_engine() -> None:
    assert gates.check_engine(0.004, 0.005) is None
    assert gates.check_engine(0.3, 0.005).gate == "engine"


def test_completions_of_the_trainers_model_change_no_advantage() -> None:
    own = SimpleNamespace(
        completions=[Completion("a", True, (1,))], measured=SimpleNamespace(logps=torch.zeros(1, 1)), mask=None
    )
    assert engine_mismatch.correct(own, 2.0) == (own, {})


def test_partitioned_weights_are_refused() -> None:
    with pytest.raises(Mistake, match=r"^method\.engine: hardware=zero3 partitions the weights that vllm needs"):
        config(*SMALL, "hardware=zero3")


def test_a_password_in_the_address_is_refused() -> None:
    with pytest.raises(Mistake, match=r"method\.vllm\.url: holds a password"):
        config(*SMALL, "method.vllm.url=http://me:secret@host:8000")


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    from alignlab.pipeline.prepare_inputs import prepare_data

    prepare_data(config(*SMALL))
    folder = tmp_path_factory.mktemp("policy")
    tiny_model(context=48).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def served(policy):
    with vllm_server(policy) as server:
        yield server


def engine_of(server, *overrides):
    bound = config(*SMALL, f"method.vllm.url={server.url}", *overrides)
    return VLLMEngine(bound.method.vllm, torch.float32)


def test_samples_have_the_distribution_of_the_model(served) -> None:
    """300 first tokens at temperature 0.7, the likely ones within four standard errors, with the model's own logps."""
    model, tokenizer = tiny_model(1, context=48), tiny_tokenizer()
    sample = engine_of(served)
    settings = Sampling(temperature=0.7, top_p=1.0, max_new_tokens=1, batch_size=8)
    ids = [encode_prompt(tokenizer, ask("how"))] * 300
    with sample.serving(model, tokenizer):
        drawn = sample(model, tokenizer, ids, settings, seed=3)
    with torch.no_grad():
        logits = model(torch.tensor(ids[:1])).logits[0, -1]
    logits[[0, 1]] = -torch.inf
    shares = torch.softmax(logits.double() / 0.7, dim=0).tolist()
    likely = {token: share for token, share in enumerate(shares) if share > 0.02}
    assert len(likely) > 3
    for token, share in likely.items():
        count = sum(one.tokens[0] == token for one in drawn)
        assert abs(count / 300 - share) <= 4 * math.sqrt(share * (1 - share) / 300)
    assert {one.tokens[0] for one in drawn}.isdisjoint({0, 1})
    assert all(one.logps[0] == pytest.approx(math.log(shares[one.tokens[0]]), abs=1e-4) for one in drawn)


def test_a_row_is_sampled_alike_alone_and_among_others(served) -> None:
    model, tokenizer = tiny_model(context=48), tiny_tokenizer()
    sample = engine_of(served)
    settings = Sampling(1.0, 1.0, 8, 8, max_new_tokens_from=3)
    ids = [encode_prompt(tokenizer, ask(*words)) for words in (("how",), ("why", "now"), ("do", "i"))] * 2
    every = sample(model, tokenizer, ids, settings, seed=5)
    assert sample(model, tokenizer, ids, settings, seed=5, rows=[4, 1]) == [every[4], every[1]]
    assert every != sample(model, tokenizer, ids, settings, seed=6)
    assert len({row_seed(5, 1), row_seed(5, 2), row_seed(6, 1)}) == 3
    for completion in every:
        assert len(completion.tokens) == len(completion.logps) <= 8
        assert completion.finished == (completion.tokens[-1] == tokenizer.eos_token_id)


@pytest.mark.parametrize("tied", [True, False])
def test_adapters_are_merged_into_what_is_sent_and_the_policy_is_left_alone(tied) -> None:
    from peft import LoraConfig, get_peft_model

    model = tiny_model()
    if tied:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    adapted.add_adapter("value", LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    adapted.set_adapter("default")
    before = {name: weight.clone() for name, weight in adapted.state_dict().items()}
    ids = torch.tensor([[4, 6, 7, 5]])
    weights = merged_weights(adapted.get_base_model(), torch.float32)
    plain = tiny_model(seed=1)
    plain.load_state_dict(weights)
    assert torch.allclose(plain(ids).logits, adapted(ids).logits, atol=1e-5)
    assert all(torch.equal(weight, before[name]) for name, weight in adapted.state_dict().items())


def trained(policy, folder, server, *overrides):
    bound = config(*SMALL, f"method.vllm.url={server.url}", *overrides)
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    logged = []
    track = SimpleNamespace(log=lambda metrics, step: logged.append(metrics))
    ppo.train(Run(bound, bound.method, {"policy": policy}, folder, track))
    return [metrics for metrics in logged if "reward/mean" in metrics]


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["model/adapter=lora"], ["method.temperature=0.7", "method.num_mini_batches=2"]])
def test_the_server_samples_from_the_policy_as_it_is_learned(policy, served, tmp_path, more) -> None:
    logged = trained(policy, tmp_path, served, *more)
    assert len(logged) == 3
    assert all(metrics["policy/engine_mismatch_max"] < 1e-4 for metrics in logged)
    assert all(metrics["policy/importance_weight"] == pytest.approx(1, abs=1e-4) for metrics in logged)
    assert logged[-1]["policy/kl_exact"] > 1e-3  # it has moved
    assert not (tmp_path / "gates.jsonl").exists()
    assert (tmp_path / "model" / "config.json").exists()
    reloads = [body["kwargs"]["weights_path"] for path, _, body, _ in served.asked if path == "/collective_rpc"]
    assert len(reloads) == 3


@pytest.mark.slow
def test_in_bfloat16_the_engines_differ_within_the_bound_and_tokens_are_weighted(policy, served, tmp_path) -> None:
    """The server computes in float32 with weights that were rounded to bfloat16, the trainer in bfloat16."""
    logged = trained(policy, tmp_path, served, "hardware.dtype=bfloat16")
    assert all(1e-4 < metrics["policy/engine_mismatch"] < 0.05 for metrics in logged)
    assert all(metrics["policy/importance_weight"] != 1 for metrics in logged)
    assert not (tmp_path / "gates.jsonl").exists()


@pytest.mark.slow
def test_a_server_that_ignores_new_weights_is_named(policy, served, tmp_path) -> None:
    served.ignore_updates = True
    message = (
        r"^gate engine, stage ppo: the mean distance between the sampling engine's and the trainer's "
        r"log-probabilities is 0\.\d+, and has to be at most 0\.005; check that it gets the new weights"
    )
    with pytest.raises(Failure, match=message):
        trained(policy, tmp_path, served)
    triggered = [json.loads(line) for line in (tmp_path / "gates.jsonl").read_text().splitlines()]
    assert [(gate["gate"], gate["step"]) for gate in triggered] == [("engine", 2)]


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_weights(policy, served, tmp_path) -> None:
    """The server keeps nothing of a run: each rollout's seeds and weights are the trainer's."""
    whole = tmp_path / "whole"
    trained(policy, whole, served)
    parts = tmp_path / "parts"
    before = len(served.asked)

    def fail_in_the_third_rollout(path, query, body, reply=served.reply):
        reloads = sum(path == "/collective_rpc" for path, *_ in served.asked[before:])
        return (400, {"error": "stop"}) if reloads == 3 and path == "/v1/completions" else reply(path, query, body)

    served.reply = fail_in_the_third_rollout
    with pytest.raises(Failure, match=r"answers /v1/completions with 400"):
        trained(policy, parts, served)
    del served.reply
    trained(policy, parts, served)
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


def message(server, *overrides) -> str:
    """The sentence that stops a run."""
    sample = engine_of(server, *overrides)
    model, tokenizer = tiny_model(context=48), tiny_tokenizer()
    with pytest.raises(Failure) as error, sample.serving(model, tokenizer):
        sample(model, tokenizer, [encode_prompt(tokenizer, ask("how"))] * 3, Sampling(1.0, 1.0, 4, 8), seed=1)
    assert len(error.value.faults) == 1
    return str(error.value)


def test_a_server_that_is_not_there(served) -> None:
    gone = SimpleNamespace(url="http://127.0.0.1:9")
    assert message(gone) == (
        "method.vllm.url: http://127.0.0.1:9 cannot be reached (ConnectError) (tried 2 times); "
        "start it, then the same command resumes from the last checkpoint"
    )


def test_a_server_that_is_silent(served) -> None:
    served.silent = 0.5
    assert message(served, "method.vllm.timeout=0.1") == (
        f"method.vllm.url: {served.url} gives no answer within 0.1 s (tried 2 times); "
        "start it, then the same command resumes from the last checkpoint"
    )


def test_a_server_of_another_model(served) -> None:
    assert message(served, "method.vllm.model=llama") == (
        f"method.vllm.model: {served.url} serves policy, and not llama; "
        "give the name of a model that is served, or null"
    )


def test_a_server_of_another_architecture(policy, tmp_path) -> None:
    from transformers import AutoConfig, LlamaForCausalLM

    settings = AutoConfig.from_pretrained(policy)
    settings.num_hidden_layers = 1
    LlamaForCausalLM(settings).save_pretrained(tmp_path)
    with vllm_server(tmp_path) as server:
        told = message(server)
    assert "answers /collective_rpc with 500" in told
    assert re.search(r"\(tried 2 times\); serve .*, or a model of its architecture with 20 tokens$", told)


def test_a_server_without_the_endpoints_of_development(served) -> None:
    served.broken = {"/collective_rpc": [404]}
    assert message(served).endswith("start it with VLLM_SERVER_DEV_MODE=1, see docs/vllm.md")


def test_what_fails_once_is_retried_and_the_key_is_sent(served, monkeypatch) -> None:
    monkeypatch.setenv("VLLM_KEY", "secret")
    served.broken = {path: [503] for path in ("/v1/models", "/collective_rpc", "/v1/completions")}
    sample = engine_of(served, "method.vllm.key_env=VLLM_KEY")
    model, tokenizer = tiny_model(context=48), tiny_tokenizer()
    with sample.serving(model, tokenizer):
        answers = sample(model, tokenizer, [encode_prompt(tokenizer, ask("how"))], Sampling(1.0, 1.0, 4, 8), seed=1)
    assert len(answers) == 1
    assert {key for *_, key in served.asked} == {"Bearer secret"}
    assert [path for path, *_ in served.asked] == [
        *("/v1/models", "/v1/models", "/collective_rpc", "/collective_rpc", "/reset_prefix_cache"),
        *("/v1/completions", "/v1/completions"),
    ]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"text": "how"}, "answers without token_ids or logprobs"),
        ({"token_ids": [4, 5], "logprobs": {"token_logprobs": [-1.0]}}, "gives 2 tokens and 1 log-probabilities"),
        ({"token_ids": [4], "logprobs": {"token_logprobs": [-1.0]}, "prompt_token_ids": [9]}, "read other tokens"),
    ],
)
def test_answers_that_do_not_fit_are_refused(served, monkeypatch, choice, said) -> None:
    monkeypatch.setattr(served, "complete", lambda body: {"choices": [choice]})
    assert said in message(served)


def test_auto_is_generate_on_a_cpu() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    ids = [encode_prompt(tokenizer, ask("how"))] * 3
    settings = Sampling(1.0, 1.0, 6, 8)
    assert engine("auto")(model, tokenizer, ids, settings, 3) == sample_token_ids(model, tokenizer, ids, settings, 3)


SERVER = Path(__file__).parent / "vllm_server.py"
COLOCATED = ["method.vllm.mode=colocate", f"method.vllm.command=[{sys.executable},{SERVER}]"]


@pytest.mark.runs
def test_a_server_that_alignlab_starts_sleeps_between_rollouts_and_ends_with_it(policy, tmp_path, monkeypatch) -> None:
    started, asleep = [], []
    start = VLLMProcess.wait
    monkeypatch.setattr(VLLMProcess, "wait", lambda process: (started.append(process), start(process)))

    def learn(experience, cap, correct=engine_mismatch.correct):
        """Ask the server for a completion after its rollout."""
        asleep.append(httpx.post(f"{started[0].url}/v1/completions", json={"model": "policy"}).status_code)
        return correct(experience, cap)

    monkeypatch.setattr(engine_mismatch, "correct", learn)
    logged = trained(policy, tmp_path, SimpleNamespace(url="http://unused"), *COLOCATED)
    assert len(logged) == 3
    assert all(metrics["policy/engine_mismatch_max"] < 1e-4 for metrics in logged)
    assert len(started) == 1
    assert asleep == [404] * 3  # the test's server answers so while it sleeps
    assert started[0].process.returncode is not None
    assert not started[0].log.parent.exists()


def test_a_server_that_cannot_be_started_or_ends_at_once() -> None:
    gone = SimpleNamespace(url="http://unused")
    assert message(gone, "method.vllm.mode=colocate", "method.vllm.command=[no_such_vllm]") == (
        "method.vllm.command: no_such_vllm is not installed here; install vllm, or use mode=server"
    )
    assert message(gone, "method.vllm.mode=colocate", "method.vllm.command=[sh,-c,'echo no memory; exit 3']") == (
        "method.vllm.command: sh ended with code 3; its last log line: no memory; "
        "try the command by itself, lower method.vllm.gpu_memory_utilization, or use mode=server"
    )


def test_a_server_of_its_own_is_for_one_process() -> None:
    with pytest.raises(Mistake, match=r"^method\.vllm\.mode: colocate is for one process, and hardware=ddp"):
        config(*SMALL, "hardware=ddp", "method.vllm.mode=colocate")
