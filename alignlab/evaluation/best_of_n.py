"""Best of n: draw n answers, keep the one that the reward likes best. The simplest thing that PPO has to beat.

Its distance from the policy that it draws from is known: log n - (n - 1)/n nats (Stiennon et al. 2020), so it can be
drawn on the same axes. From N answers a prompt, the mean of the best of n is taken over every choice of n among them:
the i-th in order of the reward is the best in C(i - 1, n - 1) of the C(N, n) choices (Nakano et al. 2021, appendix I).
"""

import json
from math import comb, log, sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alignlab.config.schema import Config
from alignlab.models.references import Source
from alignlab.runtime.files import cache_root, digest, write_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alignlab.models.sampling import Sampling

    Floats = NDArray[np.float64]

SIZES = (1, 2, 4, 8, 16, 32, 64)
PROMPTS = 140  # of the training prompts, on which a policy's own curves are measured


class Best(NamedTuple):
    """What the best of n answers is worth, by the reward that chose it and by gold, with standard errors."""

    n: int
    kl: float
    proxy: float
    gold: float
    proxy_error: float
    gold_error: float


def distance(n: int) -> float:
    """The KL of the best of n to the policy that the answers come from, in nats."""
    return log(n) - (n - 1) / n


def shares(n: int, total: int) -> "Floats":
    """How often the i-th of `total` answers, worst first, is the best of n, [total]."""
    return np.array([comb(place, n - 1) / comb(total, n) for place in range(total)])


def best(proxy: "Floats", gold: "Floats", n: int) -> Best:
    """The mean over prompts of the best of n, from scores [prompts, answers]; equals are taken in their order."""
    order = np.argsort(proxy, axis=1, kind="stable")
    chances = shares(n, proxy.shape[1])
    worth = [np.take_along_axis(scores, order, 1) @ chances for scores in (proxy, gold)]  # [prompts] each
    errors = (float(one.std() / sqrt(len(one))) for one in worth)
    return Best(n, distance(n), *(float(one.mean()) for one in worth), *errors)


def best_of_n(policy: Source, reward: Source, config: Config, sampling: "Sampling") -> list[Best]:
    """Measure the best of 1, 2, … 64 answers to training prompts of the pocket world; done once for two models."""
    mark = digest(policy.fingerprint, reward.fingerprint, config.seed, sampling._asdict(), Best._fields, PROMPTS)
    file = cache_root() / "best_of_n" / f"{mark}.json"
    if not file.exists():
        proxy, gold = scores(policy, reward, config, sampling)
        write_text(file, json.dumps([best(proxy, gold, n) for n in SIZES]))
    return [Best(*one) for one in json.loads(file.read_text(encoding="utf-8"))]


def scores(policy: Source, reward: Source, config: Config, sampling: "Sampling") -> "tuple[Floats, Floats]":
    """Draw answers and score them by the reward model and by gold, [prompts, answers] each."""
    from alignlab.data import view
    from alignlab.evaluation.measures.gold import gold_scores
    from alignlab.models.load import load_policy
    from alignlab.models.sampling import sample
    from alignlab.rewards import load_reward_model

    rows = view(config.dataset, "prompts", "train").shuffle(seed=config.seed).to_list()[:PROMPTS]
    asked = [row["prompt"] for row in rows for _ in range(SIZES[-1])]
    answers = sample(*load_policy(policy.path, config.hardware), asked, sampling, config.seed)
    texts, finished = [answer.text for answer in answers], [answer.finished for answer in answers]
    proxy = load_reward_model(reward.path, config.hardware).score(asked, texts, finished).total
    gold = gold_scores(asked, texts, finished)
    by_proxy, by_gold = (np.array(values, float).reshape(len(rows), SIZES[-1]) for values in (proxy, gold))
    return by_proxy, by_gold
