"""Score completions with a reward model. It is a proxy: where it rises and gold does not, it is being exploited.

`reward/mean` is by the reward model of the run's own chain, if it has one. `reward/held_out` is by the one that the
config names, which trains no policy.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alignlab.evaluation.scores import Scores
from alignlab.models.references import scorer_source

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Subject


def measure(subject: "Subject") -> list[Scores]:
    """Score every completion with the reward model, and with the held-out one; nothing where there is none."""
    if subject.reward_model is None:
        return []
    scores = [score(subject, "reward/mean", subject.reward_model)]
    if named := subject.config.evaluation.reward_model:
        held_out = scorer_source(subject.config, "evaluation.reward_model", named).path
        if held_out != subject.reward_model:
            scores.append(score(subject, "reward/held_out", held_out))
    return scores


def score(subject: "Subject", name: str, folder: Path) -> Scores:
    """Score every completion with one reward model."""
    from alignlab.rewards import load_reward_model

    samples = subject.samples
    rewards = load_reward_model(folder, subject.config.hardware).score(
        [sample.prompt for sample in samples],
        [sample.completion for sample in samples],
        [sample.finished for sample in samples],
    )
    return Scores(name, np.array(rewards.total, float), tuple(sample.id for sample in samples), False, "higher")
