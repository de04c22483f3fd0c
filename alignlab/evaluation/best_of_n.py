"""Best of n: sample n completions and keep the one with the highest reward. The baseline that PPO has to beat.

Its KL to the policy that it samples from is log n - (n - 1)/n nats (Stiennon et al. 2020), so it can be drawn on the
same axes. From N completions per prompt, the mean of the best of n is taken over every choice of n among them: the i-th
in order of the reward is the best in C(i - 1, n - 1) of the C(N, n) choices (Nakano et al. 2021, appendix I).
"""

import json
from math import comb, log, sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alignlab.config.schema import Config
from alignlab.models.references import Source
from alignlab.runtime import manifest
from alignlab.runtime.files import cache_root, digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alignlab.models.sampling import Sampling

    Floats = NDArray[np.float64]

SIZES = (1, 2, 4, 8, 16, 32, 64)
PROMPTS = 140  # training prompts: PPO's own curves are measured on training prompts too


class Best(NamedTuple):
    """The mean reward (`proxy`) and gold score of the best of n, with standard errors, and its KL in nats."""

    n: int
    kl: float
    proxy: float
    gold: float
    proxy_error: float
    gold_error: float


def distance(n: int) -> float:
    """Return the KL of best of n to the policy that it samples from, in nats."""
    return log(n) - (n - 1) / n


def shares(n: int, total: int) -> "Floats":
    """Return how often the i-th of `total` completions, worst first, is the best of n, [total]."""
    return np.array([comb(place, n - 1) / comb(total, n) for place in range(total)])


def best(proxy: "Floats", gold: "Floats", n: int) -> Best:
    """Compute the mean over prompts of the best of n; both scores are [prompts, completions]."""
    order = np.argsort(proxy, axis=1, kind="stable")
    weights = shares(n, proxy.shape[1])
    means = [np.take_along_axis(scores, order, 1) @ weights for scores in (proxy, gold)]  # [prompts] each
    errors = (float(scores.std() / sqrt(len(scores))) for scores in means)
    return Best(n, distance(n), *(float(scores.mean()) for scores in means), *errors)


def best_of_n(policy: Source, reward: Source, config: Config, sampling: "Sampling") -> list[Best]:
    """Measure the best of 1, 2, … 64 completions of training prompts of the pocket world; cached by the two models."""
    key = digest(policy.fingerprint, reward.fingerprint, config.seed, sampling._asdict(), Best._fields, PROMPTS)
    file = cache_root() / "best_of_n" / f"{key}.json"
    if not manifest.is_sealed(file):
        proxy, gold = sample_scores(policy, reward, config, sampling)
        manifest.write_sealed(file, json.dumps([best(proxy, gold, n) for n in SIZES]))
    return [Best(*point) for point in json.loads(file.read_text(encoding="utf-8"))]


def sample_scores(policy: Source, reward: Source, config: Config, sampling: "Sampling") -> "tuple[Floats, Floats]":
    """Sample completions and score them by the reward model and by gold, [prompts, completions] each."""
    from alignlab.data import view
    from alignlab.evaluation.measures.gold import gold_scores
    from alignlab.evaluation.replies import Item, ask
    from alignlab.evaluation.subjects import LanguageModel
    from alignlab.rewards import load_reward_model

    rows = view(config.dataset, "prompts", "train").shuffle(seed=config.seed).to_list()[:PROMPTS]
    items = [Item(row["id"], row["prompt"], row["kind"], samples=SIZES[-1]) for row in rows]
    replies = ask(LanguageModel(policy.path, config.hardware), items, sampling, config.seed)
    prompts = [reply.item.turns for reply in replies for _ in reply.completions]
    texts = [one.text for reply in replies for one in reply.completions]
    finished = [one.finished for reply in replies for one in reply.completions]
    proxy = load_reward_model(reward.path, config.hardware).score(prompts, texts, finished).total
    gold = gold_scores(prompts, texts, finished)
    by_proxy, by_gold = (np.array(values, float).reshape(len(rows), SIZES[-1]) for values in (proxy, gold))
    return by_proxy, by_gold
