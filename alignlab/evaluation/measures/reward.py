"""What a reward model says of the answers. It is a proxy: where it rises and the truth does not, it is being fooled.

`reward/mean` is by the reward model of the run's own chain, where it has one; then `reward/held_out` is by the one that
the config names, which nothing is trained on.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alignlab.evaluation.scores import Scores
from alignlab.models.references import given_reward

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Subject


def measure(subject: "Subject") -> list[Scores]:
    """Score every completion with the reward model, and with the held-out one; nothing where there is none."""
    if subject.reward_model is None:
        return []
    found = [scored(subject, "reward/mean", subject.reward_model)]
    if given := subject.config.evaluation.reward_model:
        held_out = given_reward(subject.config, "evaluation.reward_model", given).path
        if held_out != subject.reward_model:
            found.append(scored(subject, "reward/held_out", held_out))
    return found


def scored(subject: "Subject", name: str, folder: Path) -> Scores:
    """Score every answer with one reward model."""
    from alignlab.rewards import load_reward_model

    samples = subject.samples
    scored_samples = load_reward_model(folder, subject.config.hardware).score(
        [sample.prompt for sample in samples],
        [sample.completion for sample in samples],
        [sample.finished for sample in samples],
    )
    return Scores(name, np.array(scored_samples.total, float), tuple(sample.id for sample in samples), False, "higher")
