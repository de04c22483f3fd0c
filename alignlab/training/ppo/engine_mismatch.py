"""Compare the engine that sampled a rollout with the trainer, and correct what is learned for their difference.

An engine such as vLLM computes with other kernels, often in another precision, so its samples come from a policy that
is not quite the trainer's (Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training").
The engine returns the log-probability of each token that it sampled; the trainer computes its own.
"""

from dataclasses import replace

import torch
from torch import Tensor

from alignlab import losses
from alignlab.training.ppo.experience import Experience


def correct(experience: Experience, cap: float | None) -> tuple[Experience, dict[str, float]]:
    """Weight the advantages by truncated importance weights; return the metrics of the mismatch, too.

    The weight of a token is positive and does not depend on the policy that is learned, so weighting its advantage is
    weighting its clipped loss. Without `cap`, or without the engine's log-probabilities, no advantage is changed.
    """
    engine = engine_logps(experience)
    if engine is None:
        return experience, {}
    metrics = mismatch(experience.measured.logps, engine, experience.mask)
    if cap is None:
        return experience, metrics
    weights = losses.truncated_importance(experience.measured.logps, engine, cap)
    metrics["policy/importance_weight"] = losses.masked_mean(weights, experience.mask).item()
    return replace(experience, advantages=experience.advantages * weights), metrics


def engine_logps(experience: Experience) -> Tensor | None:
    """Return the engine's log-probabilities, [batch, tokens], 0 at padding; None where the trainer's model sampled."""
    logps = torch.zeros_like(experience.measured.logps)
    for row, completion in enumerate(experience.completions):
        if completion.logps is None:
            return None
        logps[row, : len(completion.logps)] = torch.tensor(completion.logps)
    return logps


def mismatch(trainer: Tensor, engine: Tensor, mask: Tensor) -> dict[str, float]:
    """Return how far both engines' log-probabilities [batch, tokens] are apart: mean, maximum and KL per token.

    The KL of the engine's policy to the trainer's is estimated by k3, since the engine sampled the tokens.
    """
    distance = ((trainer - engine) * mask).abs()
    return {
        "policy/engine_mismatch": losses.masked_mean(distance, mask).item(),
        "policy/engine_mismatch_max": distance.max().item(),
        "policy/engine_kl": losses.masked_mean(losses.kl_estimate(engine, trainer, "k3") * mask, mask).item(),
    }
