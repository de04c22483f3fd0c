"""Two parts of the evidence: GRPO beside PPO on pocket, and a real model before and after DPO and PPO."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ppo_targets import percent

Rows = dict[str, dict[str, Any]]
Chain = Callable[..., tuple[Rows, str]]  # of a seed and settings: the measurements of a run, and its command


def grpo(chain: Chain, seeds: Sequence[int]) -> Iterator[str]:
    """Yield the table of PPO and GRPO, which start from the same SFT model and learn from the same reward model."""
    yield "`python -m alignlab method=ppo seed=…` and `method=grpo seed=…`; 300 prompts a kind; KL in nats."
    yield ""
    yield (
        "| seed | method | base complies | after SFT | after | after − SFT | over-refusal "
        "| gold score − SFT | KL to SFT |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for seed in seeds:
        for method in ("ppo", "grpo"):
            rows, command = chain(seed, f"method={method}")
            print(command, flush=True)
            harm, score = rows["gold/harmful_compliance"], rows["gold/score"]["difference"]["previous"]
            cells = [
                str(seed),
                method,
                *(percent(part) for part in (harm["before"], harm["previous"], harm, harm["difference"]["previous"])),
                percent(rows["gold/over_refusal"]),
                f"{score['value']:+.3f} ({score['low']:+.3f} to {score['high']:+.3f})",
                f"{rows['eval/kl']['value']:.3f} ({rows['eval/kl']['low']:.3f} to {rows['eval/kl']['high']:.3f})",
            ]
            yield f"| {' | '.join(cells)} |"


def smollm2(chain: Chain, seeds: Sequence[int], experiment: str) -> Iterator[str]:
    """Yield what an experiment changes in SmolLM2-135M-Instruct, over seeds."""
    yield f"`python -m alignlab experiment={experiment} seed=…`; rates in per cent; differences are paired."
    yield ""
    yield (
        "| seed | harmful answered: base | before the last stage | after | after − base "
        "| safe answered: base | after | after − base | perplexity base → after |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for seed in seeds:
        rows, command = chain(seed, f"experiment={experiment}")
        print(command, flush=True)
        harm, safe, fit = (
            rows[name] for name in ("refusal/harmful_answered", "refusal/safe_answered", "eval/perplexity")
        )
        cells = [
            str(seed),
            *(percent(part) for part in (harm["before"], harm["previous"], harm, harm["difference"]["before"])),
            *(percent(part) for part in (safe["before"], safe, safe["difference"]["before"])),
            f"{fit['before']['value']:.2f} → {fit['value']:.2f}",
        ]
        yield f"| {' | '.join(cells)} |"
