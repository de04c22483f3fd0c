"""PPO's completions as it learned from them: log-ratio, KL and advantage of each token."""

from pathlib import Path

from alignlab.explanations.record import Explanation
from alignlab.runtime.run_files import RolloutTokens, read_rollout_tokens

SHOWS = (
    "What PPO was trained on: its loss pushes a token with an advantage above 0 to be likelier, one below 0 to be less "
    "likely. The log-ratio and the KL are against the reference, before the step."
)
CANNOT_SHOW = (
    "Advantages come from the value function's guesses, which are poor at first, and are whitened over the rollout: "
    "their sign is relative to the other tokens of the same rollout."
)
SHOWN = 6  # completions of a stage, from its first and its last rollout


def explain_rollouts(stage: Path) -> list[Explanation]:
    """Return explanations of some completions of the first and of the last rollout that a stage kept."""
    rows = read_rollout_tokens(stage)
    numbers = sorted({row["rollout"] for row in rows})
    ends = dict.fromkeys((*numbers[:1], *numbers[-1:]))
    return [explain(row) for number in ends for row in [row for row in rows if row["rollout"] == number][: SHOWN // 2]]


def explain(row: RolloutTokens) -> Explanation:
    """Return the explanation of a completion that PPO has sampled."""
    return {
        "method": f"PPO's rollout {row['rollout'] + 1}: {row['prompt']}",
        "shows": SHOWS,
        "cannot_show": CANNOT_SHOW,
        "figures": {"reward": row["reward"]},
        "tokens": row["tokens"],
        "tracks": [
            {"name": "advantage", "unit": "standard deviations", "values": row["advantage"]},
            {"name": "log-ratio", "unit": "nats", "values": row["log_ratio"]},
            {"name": "KL", "unit": "nats", "values": row["kl"]},
        ],
    }
