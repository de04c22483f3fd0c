"""Gates: checks between stages, before training on a reward, and monitors during it.

A gate is a pure function of numbers and a bound. It returns None, or a `Triggered` with the stage at fault, the number,
the bound and a remedy. Gates before training check the policy and the reward models that it starts from. Monitors
during training compare the means of the last few rollouts with those of the first ones.
`alignlab.training.gate_monitor` runs them, and stops, warns or stays silent as the config says.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import sqrt
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from alignlab.config.gates import Gates
from alignlab.errors import Fault

if TYPE_CHECKING:
    from alignlab.evaluation.statistics import Interval


class Triggered(NamedTuple):
    """A gate that triggered: what was measured, the bound that it broke, a remedy, and the stage at fault."""

    gate: str
    what: str
    number: float
    bound: str
    remedy: str
    stage: str = ""

    def fault(self) -> Fault:
        """Return the gate as one sentence."""
        what = f"{self.what} is {self.number:.3g}, and has to be {self.bound}"
        return Fault(f"gate {self.gate}, stage {self.stage}", what, self.remedy)


class Quality(NamedTuple):
    """The quality of a reward model on held-out pairs."""

    accuracy: "Interval"
    over_length: "Interval"  # its accuracy less that of a rule that knows only the completions' lengths
    calibration_error: "Interval"


class Stages(NamedTuple):
    """The names of the stage that is trained, and of the stage, path or hub id that its policy comes from."""

    trained: str
    policy: str


def check_before(
    finished: float,
    qualities: Mapping[str, Quality],
    ratio: float,
    kl: float,
    bounds: Gates,
    stages: Stages,
    dtype: str = "float32",
) -> list[Triggered]:
    """Run the gates before training; `qualities` are those of the reward models, by the name of their stage.

    `dtype` is the precision of the run, on which the bound of the ratio depends.
    """
    gates = [(check_finished(finished, bounds.min_finished), stages.policy)]
    for stage, quality in qualities.items():
        gates.append((check_accuracy(quality.accuracy) or check_length_only(quality.over_length), stage))
        gates.append((check_calibration(quality.calibration_error, bounds.max_calibration_error), stage))
    # Dropout moves the KL too, so only the ratio is reported.
    moved = check_first_ratio(ratio, getattr(bounds.max_first_ratio, dtype)) or check_first_kl(kl, bounds.max_first_kl)
    gates.append((moved, stages.trained))
    return [gate._replace(stage=stage) for gate, stage in gates if gate]


def check_finished(finished: float, bound: float) -> Triggered | None:
    """Check the share of completions that the policy ends by itself."""
    if finished >= bound:
        return None
    what, remedy = "the share of answers that end by themselves", "train on answers that end with the end-of-turn token"
    return Triggered("ends", what, finished, f"at least {bound:g}", f"{remedy}, or raise max_new_tokens")


def check_accuracy(accuracy: "Interval") -> Triggered | None:
    """Check that a reward model is better than chance."""
    if accuracy.low > 0.5:
        return None
    what = f"the accuracy on held-out pairs ({accuracy.value:.3g}), by the lower end of its interval,"
    remedy = "check that the labels are not shuffled or swapped, or train it on more pairs"
    return Triggered("chance", what, accuracy.low, "above 0.5", remedy)


def check_length_only(over_length: "Interval") -> Triggered | None:
    """Check that a reward model is better than a rule that knows only the lengths."""
    if over_length.low > 0:
        return None
    what = f"the accuracy less that of a rule by length ({over_length.value:.3g}), by its interval's lower end,"
    remedy = "balance the pairs by length: the model has learned to prefer by length"
    return Triggered("length_only", what, over_length.low, "above 0", remedy)


def check_calibration(error: "Interval", bound: float) -> Triggered | None:
    """Check that a reward model's margins are calibrated log-odds."""
    if error.low <= bound:
        return None
    what = f"the calibration error ({error.value:.3g}), by the lower end of its interval,"
    remedy = "train it for fewer epochs, or on more pairs"
    return Triggered("calibration", what, error.low, f"at most {bound:g}", remedy)


def check_first_ratio(ratio: float, bound: float) -> Triggered | None:
    """Check that the importance ratio is 1 before the first step; `ratio` is the one farthest from 1."""
    if abs(ratio - 1) <= bound:
        return None
    what = "the ratio on the first pass that is farthest from 1"
    remedy = "turn dropout off (method.dropout=0), and compute both in one precision"
    return Triggered("ratio", what, ratio, f"within {bound:g} of 1", remedy)


def check_first_kl(kl: float, bound: float) -> Triggered | None:
    """Check that policy and reference are the same model at step 0; `kl` is in nats a completion."""
    if abs(kl) <= bound:
        return None
    remedy = "merge the policy's adapter into its weights before a new one is put on, so that the reference has it too"
    return Triggered("reference", "the KL to the reference at step 0", kl, f"at most {bound:g}", remedy)


class Curve(NamedTuple):
    """A mean at each rollout, and its standard error."""

    means: Sequence[float]
    errors: Sequence[float]


Curves = Mapping[str, Sequence[float]]  # the metrics of each rollout, by name


def check_during(curves: Curves, bounds: Gates, stage: str) -> Iterator[Triggered]:
    """Run the monitors of the stage that is trained; those whose metrics were not measured are skipped."""
    size = bounds.window

    def last(name: str) -> float:
        return fmean(curves[name][-size:])

    def first(name: str) -> float:
        return fmean(curves[name][:size])

    single = dict(SINGLE)
    if len(curves.get("value/explained_variance", ())) < bounds.explained_variance_after + size:
        del single["value/explained_variance"]
    gates = [check(last(name), bounds) for name, check in single.items() if len(curves.get(name, ())) >= size]
    for name, compare in AGAINST_START.items():
        if len(curves.get(name, ())) > size:
            gates.append(compare(last(name), first(name), bounds))
    trained = Curve(curves.get("reward/mean", ()), curves.get("reward/error", ()))
    for gate, (name, error) in NOT_TRAINED_ON.items():
        if len(curves.get(name, ())) > size:
            gates.append(check_held_out(gate, Curve(curves[name], curves[error]), trained, bounds))
    yield from (gate._replace(stage=stage) for gate in gates if gate)


def above(gate: str, what: str, number: float, bound: float, remedy: str) -> Triggered | None:
    """Trigger where a number is above its bound."""
    return Triggered(gate, what, number, f"at most {bound:.3g}", remedy) if number > bound else None


def below(gate: str, what: str, number: float, bound: float, remedy: str) -> Triggered | None:
    """Trigger where a number is below its bound."""
    return Triggered(gate, what, number, f"at least {bound:.3g}", remedy) if number < bound else None


STAY_CLOSER = "raise method.kl_coef, or lower method.learning_rate"
READ = "read the completions, and raise method.kl_coef"


def check_kl(kl: float, bounds: Gates) -> Triggered | None:
    """Check that the policy has not left the completions that the reward was trained on."""
    return above("kl", "the KL to the reference", kl, bounds.max_kl, STAY_CLOSER)


def check_engine(distance: float, bound: float) -> Triggered | None:
    """Check that the engine that samples has the trainer's policy; `distance` is the mean |difference| of log p."""
    what = "the mean distance between the sampling engine's and the trainer's log-probabilities"
    remedy = "check that it gets the new weights, computes in the trainer's precision and returns processed_logprobs"
    return above("engine", what, distance, bound, remedy)


def check_explained_variance(variance: float, bounds: Gates) -> Triggered | None:
    """Check that the value function explains some of the returns."""
    remedy = "let the value function learn faster, or more often: method.num_ppo_epochs, method.vf_coef"
    what = "the value function's explained variance"
    return below("explained_variance", what, variance, bounds.min_explained_variance, remedy)


def check_clip_fraction(fraction: float, bounds: Gates) -> Triggered | None:
    """Check that the updates are not larger than the clipping allows."""
    remedy = "lower method.learning_rate or method.num_ppo_epochs"
    return above("clip_fraction", "the share of clipped ratios", fraction, bounds.max_clip_fraction, remedy)


def check_entropy(entropy: float, first: float, bounds: Gates) -> Triggered | None:
    """Check that the policy still explores."""
    return below("entropy", "the entropy", entropy, bounds.min_entropy_share * first, STAY_CLOSER)


def check_length(length: float, first: float, bounds: Gates) -> Triggered | None:
    """Check that the reward is not raised by the length of the completions."""
    what = "the mean length"
    remedy = "check whether the reward model prefers by length, or set a length penalty (reward=mixture)"
    longer = above("length", what, length, bounds.max_length_share * first, remedy)
    return longer or below("length", what, length, bounds.min_length_share * first, remedy)


def check_repetition(distinct: float, first: float, bounds: Gates) -> Triggered | None:
    """Check that completions do not repeat themselves; `distinct` is the share of distinct word pairs within one."""
    what = "the share of distinct word pairs in an answer"
    return below("repetition", what, distinct, bounds.min_distinct_share * first, READ)


def check_variety(variety: float, first: float, bounds: Gates) -> Triggered | None:
    """Check that completions do not become alike; `variety` is the share of distinct word pairs over all of them."""
    what = "the share of distinct word pairs over all answers"
    return below("variety", what, variety, bounds.min_variety_share * first, READ)


def check_strange(share: float, first: float, bounds: Gates) -> Triggered | None:
    """Check the share of completions with a token that the reference would hardly ever sample."""
    what = "the share of answers with a token that the reference gives less than 1 in 10,000"
    return above("strange", what, share, first + bounds.max_strange_growth, READ)


def check_truncated(finished: float, first: float, bounds: Gates) -> Triggered | None:
    """Check that no more completions are cut off than at the start."""
    remedy = "set a penalty for answers without an end, or raise max_new_tokens"
    what = "the share of answers that end by themselves"
    return below("truncated", what, finished, first - bounds.max_truncated_growth, remedy)


def check_ensemble_spread(spread: float, first: float, bounds: Gates) -> Triggered | None:
    """Check that the policy stays where the members of an ensemble agree."""
    remedy = "use reward.combine=minimum or mean_less_spread, and raise method.kl_coef"
    return above("ensemble", "the ensemble's spread", spread, bounds.max_spread_share * first, remedy)


def check_held_out(gate: str, held_out: Curve, trained: Curve, bounds: Gates) -> Triggered | None:
    """Check that a reward that is not trained on keeps its rise while the trained one keeps its own."""
    bound = bounds.max_held_out_loss
    remedy = f"the policy exploits the trained reward: raise method.kl_coef, or stop where {gate} was best"
    what = f"the share of its rise that {gate} has lost"
    lost = lost_share(held_out, bounds.window)
    return above(gate, what, lost, bound, remedy) if lost_share(trained, bounds.window) <= bound else None


SINGLE: dict[str, Callable[[float, Gates], Triggered | None]] = {
    "policy/kl": check_kl,
    "policy/clip_fraction": check_clip_fraction,
    "value/explained_variance": check_explained_variance,
}
AGAINST_START: dict[str, Callable[[float, float, Gates], Triggered | None]] = {
    "policy/entropy": check_entropy,
    "completion/length": check_length,
    "completion/distinct": check_repetition,
    "completion/variety": check_variety,
    "completion/strange": check_strange,
    "completion/finished": check_truncated,
    "reward/spread": check_ensemble_spread,
}
NOT_TRAINED_ON = {"held_out": ("reward/held_out", "reward/held_out_error"), "gold": ("gold/score", "gold/error")}
SIGNIFICANT = 4  # standard errors that a fall has to exceed: the maximum over many rollouts does not by chance


def lost_share(curve: Curve, window: int) -> float:
    """Return the share of its rise that a curve has lost since its peak; 0 where the fall may be chance."""
    means = moving_average(curve.means, window)
    fall, rise = max(means) - means[-1], max(means) - means[0]
    error = sqrt(2 / window) * fmean(curve.errors)  # of a difference of two windows
    return fall / max(rise, fall) if fall > SIGNIFICANT * error else 0.0


def moving_average(curve: Sequence[float], window: int) -> list[float]:
    """Return the means of each `window` neighbours."""
    return [fmean(curve[i : i + window]) for i in range(len(curve) - window + 1)]
