"""Runs the gates of `alignlab.training.gates`, and does what the config says where one triggers.

`stop` ends the run with one sentence, `warn` logs it once a gate, `off` does not check. Every triggered gate is a line
of `gates.jsonl` in the stage's folder, with the rollout at which it triggered. On the pocket world the gold score is a
monitor too, which never stops a run.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from alignlab.chat import Turn
from alignlab.config.evaluation import Evaluation
from alignlab.config.gates import Gates
from alignlab.config.schema import Config
from alignlab.data import view
from alignlab.errors import Failure, Mistake
from alignlab.evaluation import reward_model
from alignlab.evaluation.calibration import calibration_error
from alignlab.evaluation.decisions import FEWEST_CLUSTERS
from alignlab.evaluation.measures.gold import gold_scores
from alignlab.evaluation.statistics import standard_error, wilson
from alignlab.models.load import precision
from alignlab.models.references import scorer_source
from alignlab.rewards import Checked, RewardModel, Scored, load_reward_model, reward_models
from alignlab.rewards.ensemble import SPREAD
from alignlab.runtime import distributed
from alignlab.runtime.files import write_text
from alignlab.runtime.progress import say
from alignlab.runtime.run_files import GATES, TriggeredGate
from alignlab.training import gates
from alignlab.training.gates import Quality, Stages, Triggered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

log = logging.getLogger("alignlab")

PAIRS = 1000  # held-out pairs on which a reward model is checked before it is used
ONLY = "model"  # the name of a reward model that is no part of another reward


class GateMonitor:
    """The metrics of a stage's rollouts, and the gates that have triggered.

    `stage` is the name of the stage that is trained, and `sources` are those of its inputs, as in `Run.sources`.
    """

    def __init__(self, bounds: Gates, folder: Path, config: Config, stage: str, sources: Mapping[str, str]) -> None:
        self.bounds, self.folder, self.config, self.sources = bounds, folder, config, sources
        self.stages = Stages(trained=stage, policy=sources.get("policy", "policy"))
        self.dtype = str(precision(config.hardware)).removeprefix("torch.")
        self.held_out = load_held_out(config)  # a reward model that is not trained on, if the config names one
        self.curves: dict[str, list[float]] = {}  # the metrics of each rollout so far, by name
        self.triggered: list[TriggeredGate] = []  # in the order in which they triggered

    def check_before(self, reward: Checked, metrics: Mapping[str, float], ratio: float) -> None:
        """Run the gates before training: reward models, the first rollout, and the ratio farthest from 1 on it."""
        if self.bounds.before == "off":
            return
        finished, kl = metrics["completion/finished"], metrics["policy/kl_exact"]
        of_models = qualities(reward, self.config, self.sources)
        triggered = gates.check_before(finished, of_models, ratio, kl, self.bounds, self.stages, self.dtype)
        self.report([*triggered, *self.check_engine(metrics)], "before", 0)

    def observe(
        self, scored: Scored, prompts: Sequence[Sequence[Turn]], texts: Sequence[str], finished: Sequence[bool]
    ) -> dict[str, float]:
        """Return the means over a rollout of a reward's parts and terms, of the held-out reward model and of gold."""
        means = {f"reward/{name.replace('/', '_')}": fmean(values) for name, values in scored.parts.items()}
        if spreads := [fmean(values) for name, values in scored.parts.items() if name.rpartition("/")[2] == SPREAD]:
            means["reward/spread"] = max(spreads)  # of the ensemble whose members agree least
        means |= {f"reward/terms/{name}": fmean(values) for name, values in scored.terms.items()}
        if self.held_out:
            held_out = self.held_out.score(prompts, texts, finished).total
            means |= mean_and_error("reward/held_out", "reward/held_out_error", held_out)
        if self.config.dataset.pocket_world:
            means |= mean_and_error("gold/score", "gold/error", gold_scores(prompts, texts, finished))
        return means

    def check_during(self, number: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of rollout `number`, counted from 1, and run the monitors that have not triggered yet."""
        for name, value in metrics.items():
            self.curves.setdefault(name, []).append(value)
        if self.bounds.during != "off":
            known = {gate["gate"] for gate in self.triggered if gate["step"]}
            every = [*gates.check_during(self.curves, self.bounds, self.stages.trained), *self.check_engine(metrics)]
            triggered = [gate for gate in every if gate.gate not in known]
            self.report(triggered, "during", number)

    def check_engine(self, metrics: Mapping[str, float]) -> list[Triggered]:
        """Run the gate of a sampling engine on one rollout; nothing where the trainer's own model samples."""
        if (distance := metrics.get("policy/engine_mismatch")) is None:
            return []
        gate = gates.check_engine(distance, getattr(self.bounds.max_engine_mismatch, self.dtype))
        return [gate._replace(stage=self.stages.trained)] if gate else []

    def report(self, triggered: Sequence[Triggered], phase: Literal["before", "during"], step: int) -> None:
        """Write triggered gates to `gates.jsonl`, log them, and raise a `Failure` where they stop the run."""
        if not triggered:
            return
        self.triggered += [cast(TriggeredGate, {"step": step, **gate._asdict()}) for gate in triggered]
        if distributed.is_first():
            write_text(self.folder / GATES, "".join(json.dumps(gate) + "\n" for gate in self.triggered))
            for gate in triggered:
                log.warning("%s", gate.fault())
        stops = [gate for gate in triggered if gate.gate != "gold"] if getattr(self.bounds, phase) == "stop" else []
        if stops:
            way = f"; or continue anyway with method.gates.{phase}=warn"
            raise Failure([gate.fault()._replace(now=gate.remedy + way) for gate in stops])

    def state_dict(self) -> dict[str, Any]:
        """Return the curves and the gates that have triggered."""
        return {"curves": self.curves, "triggered": self.triggered}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.curves = {name: list(values) for name, values in state["curves"].items()}
        self.triggered = list(state["triggered"])


def mean_and_error(mean: str, error: str, values: Sequence[float]) -> dict[str, float]:
    """Return the mean of some values and its standard error, under two names."""
    return {mean: fmean(values), error: standard_error(values)}


def load_held_out(config: Config) -> Checked | None:
    """Load the reward model that only measures, if the config names one."""
    if config.evaluation.reward_model is None:
        return None
    path = scorer_source(config, "evaluation.reward_model", config.evaluation.reward_model).path
    return Checked(load_reward_model(path, config.hardware)._replace(name="held_out"))


def qualities(reward: Checked, config: Config, sources: Mapping[str, str]) -> dict[str, Quality]:
    """Measure every reward model of a reward on the test pairs, by stage; nothing where too few pairs are held out.

    Even a model that is always right is then not better than chance by its interval.
    """
    models = list(reward_models(reward))
    try:
        rows = {split: view(config.dataset, "pairs", split).to_list() for split in ("train", "test")} if models else {}
    except Mistake:  # the data set holds no pairs
        return {}
    if not rows.get("train") or not rows.get("test"):
        return {}
    if (pairs := len(rows["test"])) < FEWEST_CLUSTERS:
        say(f"gates chance, length_only and calibration are not checked: {pairs} of {FEWEST_CLUSTERS} held-out pairs")
        return {}
    return {stage_of(model, sources): quality(model, rows["test"][:PAIRS], rows["train"], config) for model in models}


def stage_of(model: RewardModel, sources: Mapping[str, str]) -> str:
    """Return the stage, path or hub id that a reward model comes from, and its name where the reward has several.

    `reward.members.a` and `reward.parts.a.reward` are the places of a model that is named `a`.
    """
    if model.name == ONLY:
        return sources.get("reward") or sources.get("reward_model", "reward_model")
    by_name = {place.removesuffix(".reward").rpartition(".")[2]: source for place, source in sources.items()}
    return f"{by_name.get(model.name) or sources.get('reward_model', 'reward_model')} ({model.name})"


def quality(model: RewardModel, rows: list[dict[str, Any]], train: list[dict[str, Any]], config: Config) -> Quality:
    """Measure one reward model on pairs; `train` are the pairs that it learned from."""
    prompts = [row["prompt"] for row in rows]
    chosen, rejected = (
        np.array(model.score(prompts, [row[side] for row in rows]).total) for side in ("chosen", "rejected")
    )
    return quality_of_scores(chosen, rejected, rows, train, config.evaluation)


def quality_of_scores(
    chosen: "Floats", rejected: "Floats", rows: list[dict[str, Any]], train: list[dict[str, Any]], settings: Evaluation
) -> Quality:
    """Return accuracy, its lead over a rule by length, and calibration error of scores, [pairs] each.

    The rule prefers what the chosen completions of the training pairs are: the longer or the shorter one.
    """
    right = reward_model.wins(chosen - rejected)
    sign = float(np.sign(reward_model.longer_by(train).mean())) or 1.0
    by_length = reward_model.wins(sign * reward_model.longer_by(rows))
    probability = 1 / (1 + np.exp(-np.abs(chosen - rejected)))
    return Quality(
        wilson(right.sum(), len(right), settings.confidence),
        reward_model.difference(right, by_length, settings),
        calibration_error(probability, right, settings.confidence),
    )
