"""Asks the gates of `alignlab.training.gates` at their time, and does what the config says where one rings.

`stop` ends the run in one sentence, `warn` says it once a gate and goes on, `off` does not ask. Whatever rang stands in
`gates.jsonl` of the stage's folder, with the rollout at which it did. On the pocket world gold is watched too; it is
said and drawn, and never stops a run.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from alignlab.chat import Turn
from alignlab.config.dataset import pocket_world
from alignlab.config.evaluation import Evaluation
from alignlab.config.gates import Gates
from alignlab.config.schema import Config
from alignlab.data import view
from alignlab.errors import Explained, Failure
from alignlab.evaluation import reward_model
from alignlab.evaluation.measures.gold import gold_scores
from alignlab.evaluation.statistics import Interval, wilson
from alignlab.models.references import given_reward
from alignlab.rewards import Checked, RewardModel, Scored, load_reward_model, reward_models
from alignlab.runtime import distributed
from alignlab.runtime.files import write_text
from alignlab.runtime.run_files import GATES
from alignlab.training import gates
from alignlab.training.gates import Quality, Rang

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

log = logging.getLogger("alignlab")

PAIRS = 1000  # that a reward model is tried on before it is used


class Watch:
    """The curves of a stage, and the gates that have rung."""

    def __init__(self, bounds: Gates, folder: Path, config: Config) -> None:
        self.bounds, self.folder, self.config = bounds, folder, config
        self.held_out = load_held_out(config)
        self.curves: dict[str, list[float]] = {}
        self.rang: list[dict[str, Any]] = []

    def start(self, reward: Checked, measured: Mapping[str, float], ratio: float) -> None:
        """Ask the gates before training: the reward models, the first rollout, and the ratio of its first pass."""
        if self.bounds.before == "off":
            return
        finished, kl = measured["completion/finished"], measured["policy/kl_exact"]
        self.heed(gates.before(finished, qualities(reward, self.config), ratio, kl, self.bounds), "before", 0)

    def observe(
        self, scored: Scored, prompts: Sequence[Sequence[Turn]], texts: Sequence[str], finished: Sequence[bool]
    ) -> dict[str, float]:
        """Return the means over a rollout of a reward's parts and terms, of the held-out reward model and of gold."""
        means = {f"reward/{name.rpartition('/')[2]}": fmean(values) for name, values in scored.parts.items()}
        means |= {f"reward/terms/{name}": fmean(values) for name, values in scored.terms.items()}
        if self.held_out:
            held_out = self.held_out.score(prompts, texts, finished).total
            means |= told("reward/held_out", "reward/held_out_error", held_out)
        if pocket_world(self.config.dataset):
            means |= told("gold/score", "gold/error", gold_scores(prompts, texts, finished))
        return means

    def step(self, number: int, measured: Mapping[str, float]) -> None:
        """Take in what was measured at a rollout, and ask the monitors."""
        for name, value in measured.items():
            self.curves.setdefault(name, []).append(value)
        if self.bounds.during != "off":
            known = {rang["gate"] for rang in self.rang if rang["step"]}
            fresh = [rang for rang in gates.during(self.curves, self.bounds) if rang.gate not in known]
            self.heed(fresh, "during", number)

    def heed(self, rang: Sequence[Rang], phase: Literal["before", "during"], step: int) -> None:
        """Write down what rang, and stop or warn."""
        if not rang:
            return
        self.rang += [{"step": step, **one._asdict()} for one in rang]
        if distributed.is_first():
            write_text(self.folder / GATES, "".join(json.dumps(one) + "\n" for one in self.rang))
            for one in rang:
                log.warning("%s", one.fault())
        stops = [one for one in rang if one.gate != "gold"] if getattr(self.bounds, phase) == "stop" else []
        if stops:
            way = f"; or go on all the same with method.gates.{phase}=warn"
            raise Failure([one.fault()._replace(now=one.remedy + way) for one in stops])

    def state_dict(self) -> dict[str, Any]:
        """Everything that was seen so far."""
        return {"curves": self.curves, "rang": self.rang}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.curves = {name: list(values) for name, values in state["curves"].items()}
        self.rang = list(state["rang"])


def told(mean: str, error: str, values: Sequence[float]) -> dict[str, float]:
    """The mean of some values and its standard error, under their names."""
    return {mean: fmean(values), error: gates.standard_error(values)}


def load_held_out(config: Config) -> Checked | None:
    """The reward model that only measures, where the config names one."""
    if config.evaluation.reward_model is None:
        return None
    path = given_reward(config, "evaluation.reward_model", config.evaluation.reward_model).path
    return Checked(load_reward_model(path, config.hardware)._replace(name="held_out"))


def qualities(reward: Checked, config: Config) -> dict[str, Quality]:
    """Try every reward model in a reward on the test pairs, which a gate does not choose by; none without pairs."""
    models = list(reward_models(reward))
    try:
        rows = {split: view(config.dataset, "pairs", split).to_list() for split in ("train", "test")} if models else {}
    except Explained:
        return {}
    if not rows.get("train") or not rows.get("test"):
        return {}
    return {stage(model): quality(model, rows["test"][:PAIRS], rows["train"], config) for model in models}


def stage(model: RewardModel) -> str:
    """What a reward model is called where it is at fault."""
    return "rm" if model.name == "model" else f"rm ({model.name})"


def quality(model: RewardModel, rows: list[dict[str, Any]], train: list[dict[str, Any]], config: Config) -> Quality:
    """Try one reward model on pairs."""
    prompts = [row["prompt"] for row in rows]
    chosen, rejected = (
        np.array(model.score(prompts, [row[side] for row in rows]).total) for side in ("chosen", "rejected")
    )
    return worth(chosen, rejected, rows, train, config.evaluation)


def worth(
    chosen: "Floats", rejected: "Floats", rows: list[dict[str, Any]], train: list[dict[str, Any]], settings: Evaluation
) -> Quality:
    """What scores are worth, [n] each: accuracy, what of it is more than length knows, calibration; with intervals."""
    right = reward_model.wins(chosen - rejected)
    longer = float(np.sign(reward_model.longer_by(train).mean())) or 1.0
    by_length = reward_model.wins(longer * reward_model.longer_by(rows))
    sizes = (np.array([len(row[side]) for row in rows], float) for side in ("chosen", "rejected"))
    error = reward_model.calibration(
        reward_model.Rewards(chosen, rejected, *sizes), tuple(map(str, range(len(rows)))), settings
    )[1]
    return Quality(
        wilson(right.sum(), len(right), settings.confidence),
        reward_model.difference(right, by_length, settings),
        Interval(error["value"], error["low"], error["high"]),
    )
