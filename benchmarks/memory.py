"""Peak memory of what reads a large vocabulary, in units of rows × tokens × vocabulary × 4 bytes.

    make bench-memory                                             # the code as it is
    .venv/bin/python benchmarks/memory.py OTHER_CHECKOUT          # beside the code of another worktree

A unit is the size of the float32 logits of a micro-batch. The body is small, so that logits are nearly all there is.
Each case runs in a process of its own. On a CPU the peak is the kernel's (`VmHWM`), on a GPU the allocator's; what was
in use before the case is subtracted.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VOCABULARY, ROWS, PROMPT, COMPLETION = 152_000, 4, 32, 256
CASES = ("SFT", "PPO, measuring", "PPO, update", "PPO, update with entropy", "DPO", "judge, perplexity")
ROOT = Path(__file__).parents[1]


def memory(others: tuple[Path, ...] = ()) -> Iterator[str]:
    """Measure every case with the code of each folder."""
    folders = [*others, ROOT]
    unit = ROWS * COMPLETION * VOCABULARY * 4 / 1e9
    yield f"{ROWS} rows of {PROMPT} + {COMPLETION} tokens, vocabulary {VOCABULARY:,}: a unit is {unit:.2f} GB."
    yield "DPO's rows are two pairs, so that it has as many tokens; both its models run over them."
    yield ""
    names = [f"{commit(folder)} ({dtype})" for dtype in ("float32", "bfloat16") for folder in folders]
    yield f"| units at the peak | {' | '.join(names)} |"
    yield f"|---|{'--:|' * len(names)}"
    for case in CASES:
        peaks = [peak(case, dtype, folder) for dtype in ("float32", "bfloat16") for folder in folders]
        yield f"| {case} | {' | '.join(f'{value / unit:.2f}' for value in peaks)} |"


def commit(folder: Path) -> str:
    """Return the short hash of a folder's commit."""
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def peak(case: str, dtype: str, folder: Path) -> float:
    """Return the peak of one case in GB, measured in a process of its own."""
    command = [sys.executable, __file__, "--case", case, "--dtype", dtype]
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return float(done.stdout.split()[-1])


def measure(case: str, dtype: str) -> float:
    """Return the memory in GB that a case takes at its peak beyond what is in use before it."""
    import torch

    torch.set_num_threads(1)
    work = prepared(case, getattr(torch, dtype))
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return float(torch.cuda.max_memory_allocated() - before) / 1e9
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    work()
    return (status("VmHWM") - before) / 1e6


def status(name: str) -> int:
    """Return a value of this process's status, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def tiny(dtype: Any) -> Any:
    """Return a language model with a large vocabulary and a small body."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, tie_word_embeddings=False, **shape))
    return model.to("cuda" if torch.cuda.is_available() else "cpu", dtype)


def prepared(case: str, dtype: Any) -> Callable[[], Any]:
    """Return the function to measure; its weights and its small tensors exist already."""
    import torch

    from alignlab.chat import Encoded
    from alignlab.models import log_probs

    policy = tiny(dtype)
    ids = torch.randint(3, VOCABULARY, (ROWS, PROMPT + COMPLETION)).tolist()
    prompts, completions = [row[:PROMPT] for row in ids], [row[PROMPT:] for row in ids]
    if case == "judge, perplexity":
        rows = [Encoded(*pair) for pair in zip(prompts, completions, strict=True)]
        return lambda: list(log_probs.completion_log_probs(policy.eval(), rows, [range(ROWS)]))
    batch = log_probs.pad_rows(prompts, completions, 0, policy.device)
    if case == "SFT":
        return sft(policy, torch.cat([batch.prompt, batch.completion], 1))
    if case == "DPO":
        return dpo(policy, tiny(dtype), torch.cat([batch.prompt, batch.completion], 1))
    if case == "PPO, measuring":
        from alignlab.training.ppo.forward_pass import measure_batch

        actor, reference = actor_of(policy), tiny(dtype)
        return torch.no_grad()(lambda: measure_batch(actor, reference, batch))
    return update(actor_of(policy), batch, case.endswith("entropy"))


def actor_of(policy: Any) -> Any:
    """Return a policy with a value head."""
    from alignlab.training.ppo.actor_critic import ActorCritic

    return ActorCritic(policy, None, 0.7, [0, 1]).to(policy.device)


def update(actor: Any, batch: Any, with_entropy: bool) -> Callable[[], Any]:
    """Return PPO's forward and backward pass over one micro-batch."""
    import torch

    from alignlab import losses
    from alignlab.models import log_probs

    old = torch.zeros(batch.completion.shape, device=batch.completion.device)

    def step() -> None:
        if not hasattr(log_probs, "score_completions"):  # before logits were computed in chunks
            logits, values = actor(batch)
            logps = log_probs.token_log_probs(logits, batch.completion, batch.mask)
            entropy = losses.entropy_of(logits.log_softmax(-1)) if with_entropy else None
        else:
            (logps, entropy), values = actor(batch, with_entropy=with_entropy)
        loss = losses.clipped_policy(logps, logps.detach(), old + 1, 0.2).mean()
        loss = loss + losses.clipped_value(values, old, old, 0.2).mean()
        (loss - 0.01 * entropy.mean() if entropy is not None else loss).backward()

    return step


def sft(policy: Any, ids: Any) -> Callable[[], Any]:
    """Return SFT's forward and backward pass over completions, by TRL's output head as in training."""
    import torch
    from trl.trainer.utils import add_fused_lm_head

    from alignlab.models import log_probs

    limit_tiles = getattr(log_probs, "limit_tiles", lambda: None)  # earlier code has none
    limit_tiles()
    add_fused_lm_head(policy, outputs=("log_probs", "entropy", "is_top1"))
    labels = ids.clone()
    labels[:, :PROMPT] = -100

    def step() -> None:
        outputs = policy(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, fused_lm_head=True)
        (-outputs.log_probs.sum() / outputs.label_mask.sum()).backward()

    return step


def dpo(policy: Any, reference: Any, ids: Any) -> Callable[[], Any]:
    """Return DPO's forward and backward pass over pairs, by TRL's output head as in training."""
    import torch
    from trl.trainer.utils import add_fused_lm_head

    from alignlab import losses
    from alignlab.models.log_probs import fused_log_probs, limit_tiles

    limit_tiles()
    add_fused_lm_head(policy, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    add_fused_lm_head(reference)
    mask = torch.ones_like(ids)
    mask[:, :PROMPT] = 0

    def step() -> None:
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        ours = fused_log_probs(policy, inputs, mask)[0]
        with torch.no_grad():
            theirs = fused_log_probs(reference, inputs, mask)[0]
        chosen, rejected = (0.1 * (ours - theirs)).chunk(2)
        losses.preference(chosen - rejected, torch.ones_like(chosen)).mean().backward()

    return step


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--case")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("others", nargs="*", type=Path)
    arguments = parser.parse_args()
    if arguments.case:
        print(measure(arguments.case, arguments.dtype))
    else:
        for line in memory(tuple(folder.resolve() for folder in arguments.others)):
            print(line, flush=True)
