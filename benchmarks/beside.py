"""Two parts of the evidence: GRPO beside PPO on pocket, and a real model before and after DPO and PPO."""

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Any

from equal_kl import at, common, curve, difference
from ppo_targets import percent

Rows = dict[str, dict[str, Any]]
Steps = list[dict[str, float]]
Chain = Callable[..., tuple[Rows, str]]  # of a seed and settings: the measurements of a run, and its command
TrainedChain = Callable[..., tuple[Rows, str, Steps]]  # with what the last stage logged, step by step
METHODS = ("ppo", "grpo")
SCORES = {"reward/mean": "score of the reward model", "gold/score": "gold score"}


def rollouts(steps: Steps, score: str) -> Steps:
    """Return KL and score of each rollout, both means over its completions."""
    return [{"kl": step["policy/kl_exact"], "score": step[score]} for step in steps if "policy/kl_exact" in step]


def grpo(chain: TrainedChain, seeds: Sequence[int]) -> Iterator[str]:
    """Yield the tables of PPO and GRPO, which start from the same SFT model and learn from the same reward model."""
    yield "`python -m alignlab method=ppo seed=…` and `method=grpo seed=…`; 300 prompts a kind; KL in nats."
    yield ""
    yield (
        "| seed | method | base complies | after SFT | after | after − SFT | over-refusal "
        "| gold score − SFT | KL to SFT |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    logged: dict[str, list[Steps]] = {method: [] for method in METHODS}
    for seed in seeds:
        for method in METHODS:
            rows, command, steps = chain(seed, f"method={method}")
            print(command, flush=True)
            logged[method].append(steps)
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
    yield from at_equal_kl(logged)


def at_equal_kl(logged: dict[str, list[Steps]]) -> Iterator[str]:
    """Yield the scores of the rollouts at the KLs that all runs have reached, means over the seeds."""
    for score, title in SCORES.items():
        curves = {method: [curve(rollouts(steps, score)) for steps in runs] for method, runs in logged.items()}
        yield ""
        yield f"The {title} of the rollouts at equal KL to the SFT model, means over seeds:"
        yield ""
        yield f"| KL | {' | '.join(METHODS)} | grpo − ppo, 95% interval |"
        yield "|---|---|---|---|"
        for kl in common(curves):
            ppo, grpo = ([at(each, kl) for each in curves[method]] for method in METHODS)
            change = difference(grpo, ppo)
            interval = f"{change.value:+.3f} ({change.low:+.3f} to {change.high:+.3f})"
            yield f"| {kl:.2f} | {fmean(ppo):.3f} | {fmean(grpo):.3f} | {interval} |"


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
