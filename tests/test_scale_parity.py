"""One process, two under DDP and two under ZeRO-3 compute the same: losses, weights, and what is saved."""

import pytest
import torch
from safetensors.torch import load_file
from several import STOP, in_two, job, learn, lines, write_rows

pytestmark = pytest.mark.scale

STEPS = 20
TRAINING = [
    "method.batch_size=8",
    "method.num_train_epochs=2",
    f"method.max_steps={STEPS}",
    "method.learning_rate=1e-3",
]
METHODS = {
    "sft": ["method=sft", *TRAINING],
    "rm": ["method=rm", *TRAINING],
    "rm_last": ["method=rm", "method.head=last", *TRAINING],
    "dpo": ["method=dpo", *TRAINING],
    "kto": ["method=kto", "dataset.label_pairs=true", *TRAINING],
    "ppo": [
        "method=ppo", "reward=function", "reward.function=several:words", "method.batch_size=8",
        "method.total_episodes=40", "method.num_mini_batches=2", "method.num_ppo_epochs=2", "method.max_new_tokens=6",
        "method.gates.before=off", "method.gates.during=off", "method.learning_rate=1e-3",
        "method.max_grad_norm=1000",  # DeepSpeed clips policy and value function by one norm, the others by two
    ],
}  # fmt: skip
ADAPTERS = {"full": [], "lora": ["model/adapter=lora"]}
STAGES = [(method, "full") for method in METHODS if method != "rm_last"]
STAGES += [(method, "lora") for method in METHODS if method != "rm"]
HARDWARE = ("single", "ddp", "zero3")
COMPARED = [(*stage, hardware) for stage in STAGES for hardware in HARDWARE[1:]]
COMPARED += [("sft", "full", "zero2"), ("sft", "full", "zero3_offload")]
INTERRUPTED = [
    *(("sft", "full", hardware) for hardware in ("single", "zero3")),
    ("kto", "full", "ddp"),
    *(("ppo", "full", hardware) for hardware in HARDWARE),
    ("ppo", "lora", "zero3"),
]


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Every stage on every hardware, trained; by names."""
    folder = tmp_path_factory.mktemp("parity")
    rows = write_rows(folder / "rows.jsonl")
    jobs = {
        (method, adapter, hardware): job(
            rows, folder / hardware / adapter / method, hardware, *METHODS[method], *ADAPTERS[adapter]
        )
        for method, adapter, hardware in [*((*stage, "single") for stage in STAGES), *COMPARED]
    }
    for method, adapter, hardware in INTERRUPTED:
        names = method, f"interrupted {adapter}", hardware
        jobs[names] = job(rows, folder / names[2] / names[1] / method, hardware, *METHODS[method], *ADAPTERS[adapter])
        (jobs[names].folder / "interrupt").touch()
    for names, one in jobs.items():
        if names[2] == "single":
            learn(one)
    in_two([one for names, one in jobs.items() if names[2] != "single"])
    return jobs


def weights(one):
    return load_file(one.folder / "model" / "model.safetensors")


@pytest.mark.parametrize(("method", "adapter", "hardware"), COMPARED)
def test_two_processes_compute_what_one_does(stages, method, adapter, hardware):
    alone, both = stages[method, adapter, "single"], stages[method, adapter, hardware]
    name = "policy/loss" if method == "ppo" else "train/loss"
    losses = [[line[name] for line in lines(one) if name in line] for one in (alone, both)]
    assert len(losses[0]) == len(losses[1]) == (5 if method == "ppo" else STEPS)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    first, second = weights(alone), weights(both)
    assert first.keys() == second.keys()
    assert max((first[name] - second[name]).abs().max().item() for name in first) < 1e-4
    started = load_file(alone.inputs["policy"] / "model.safetensors")
    own = {name.removeprefix("backbone.").removeprefix("model."): tensor for name, tensor in first.items()}
    inner = {name.removeprefix("model."): tensor for name, tensor in started.items()}
    assert any(not torch.equal(own[name], inner[name]) for name in own.keys() & inner.keys())


@pytest.mark.parametrize(("method", "adapter", "hardware"), INTERRUPTED)
def test_a_stage_that_was_asked_to_stop_goes_on_to_the_same_end(stages, method, adapter, hardware):
    """It saves between two steps (PPO: rollouts), and begins again from there; one process ends with the same bits."""
    stopped, whole = stages[method, f"interrupted {adapter}", hardware], stages[method, adapter, hardware]
    assert (stopped.folder / "interrupted").exists()
    first, second = weights(stopped), weights(whole)
    assert max((first[name] - second[name]).abs().max().item() for name in first) <= (hardware != "single") * 1e-6
    steps = [line["step"] for line in lines(stopped)]
    assert STOP in steps
    assert max(steps) == STEPS


def test_a_checkpoint_under_zero3_holds_what_learns_alone(stages):
    """Not the frozen base, which has 16 GB at 8B: the policy's adapter, and the value function with its head."""
    folder = stages["ppo", "interrupted lora", "zero3"].folder
    states = [torch.load(file, weights_only=False) for file in folder.glob("checkpoints/**/*model_states.pt")]
    assert states
    tensors = {name: tensor for state in states for name, tensor in state["module"].items()}
    assert any("lora_B" in name for name in tensors)
    others = {name for name in tensors if "lora_" not in name and not name.startswith(("value.", "head."))}
    assert others == {"policy.base_model.model.lm_head.weight"}  # the embeddings' second name,
    assert all(tensors[name].numel() == 0 for name in others)  # which holds nothing
    assert all(state["frozen_param_fragments"] is None for state in states)


@pytest.mark.parametrize("method", [method for method, adapter in STAGES if adapter == "lora"])
def test_an_adapter_is_saved_whole_under_zero3(stages, method):
    """The classic: an adapter whose tensors have no elements."""
    one, alone = stages[method, "lora", "zero3"], stages[method, "lora", "single"]
    saved, expected = (load_file(each.folder / "adapter" / "adapter_model.safetensors") for each in (one, alone))
    assert {name: tensor.shape for name, tensor in saved.items()} == {n: t.shape for n, t in expected.items()}
    assert all(tensor.numel() for tensor in saved.values())
    assert any(tensor.abs().max() > 0 for name, tensor in saved.items() if "lora_B" in name)


def test_ppo_draws_the_same_completions(stages):
    """Each process answers its share of the prompts, with random numbers that depend on a prompt's row alone."""
    runs = [lines(stages["ppo", "full", hardware]) for hardware in HARDWARE]
    for name in ("reward/mean", "completion/length", "policy/kl", "value/explained_variance"):
        first, *others = ([line[name] for line in run if name in line] for run in runs)
        assert all(other == pytest.approx(first, abs=1e-4) for other in others)
