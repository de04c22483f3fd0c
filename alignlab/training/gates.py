"""Checks between stages (is this one fit to build on?) and during training (does it still do what it is meant to?).

A gate is a small pure function: numbers and a bound in, nothing or a `Rang` out, which names the stage at fault, the
number, the bound and the remedy. Gates before training look at the policy and the reward models that it starts from;
monitors during training look at the means of a few rollouts beside those of the first ones.
`alignlab.training.gate_monitor` asks them all, and stops, warns or stays silent, as the config says.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, NamedTuple

from alignlab.config.gates import Gates
from alignlab.errors import Fault

if TYPE_CHECKING:
    from alignlab.evaluation.statistics import Interval


class Rang(NamedTuple):
    """A gate that rang: the stage at fault, what was measured, the bound that it broke, and what to do."""

    gate: str
    stage: str
    what: str
    number: float
    bound: str
    remedy: str

    def fault(self) -> Fault:
        """The same in a sentence."""
        said = f"{self.what} is {self.number:.3g}, and has to be {self.bound}"
        return Fault(f"gate {self.gate}, stage {self.stage}", said, self.remedy)


class Quality(NamedTuple):
    """What a reward model is worth on pairs that it has not learned from."""

    accuracy: "Interval"
    over_length: "Interval"  # its accuracy less that of a rule that knows only the answers' lengths
    calibration_error: "Interval"


def ends(finished: float, bound: float) -> Rang | None:
    """Ask whether the policy ends its answers; `finished` is the share that it does."""
    if finished >= bound:
        return None
    remedy = "train on answers that end with the end-of-turn token, or raise max_new_tokens"
    return Rang("ends", "sft", "the share of answers that end by themselves", finished, f"at least {bound:g}", remedy)


def beats_chance(accuracy: "Interval", stage: str = "rm") -> Rang | None:
    """Ask whether the reward model knows more than a coin."""
    if accuracy.low > 0.5:
        return None
    what = f"the accuracy on held-out pairs ({accuracy.value:.3g}), by the lower end of its interval,"
    remedy = "see whether the labels were shuffled or turned round, or train it on more pairs"
    return Rang("chance", stage, what, accuracy.low, "above 0.5", remedy)


def beats_length(over_length: "Interval", stage: str = "rm") -> Rang | None:
    """Ask whether the reward model knows more than which answer is longer."""
    if over_length.low > 0:
        return None
    what = f"the accuracy less that of a rule by length ({over_length.value:.3g}), by its interval's lower end,"
    remedy = "balance the pairs by length: what it has learned is to count"
    return Rang("length_only", stage, what, over_length.low, "above 0", remedy)


def calibrated(error: "Interval", bound: float, stage: str = "rm") -> Rang | None:
    """Ask whether the reward model's odds can be taken at their word."""
    if error.low <= bound:
        return None
    what = f"the calibration error ({error.value:.3g}), by the lower end of its interval,"
    return Rang(
        "calibration", stage, what, error.low, f"at most {bound:g}", "train it for fewer epochs, or on more pairs"
    )


def steady(ratio: float, bound: float) -> Rang | None:
    """Ask whether the policy that learns is the one that answered; `ratio` is the farthest from 1 on the first pass."""
    if abs(ratio - 1) <= bound:
        return None
    what = "the ratio on the first pass that is farthest from 1"
    remedy = "turn dropout off (method.dropout=0), and compute both in one precision"
    return Rang("ratio", "ppo", what, ratio, f"within {bound:g} of 1", remedy)


def same(kl: float, bound: float) -> Rang | None:
    """Ask whether policy and reference start as one; `kl` is in nats a completion, at step 0."""
    if abs(kl) <= bound:
        return None
    remedy = "merge the sft weights into the base before an adapter is put on, so that the reference has them too"
    return Rang("reference", "ppo", "the KL to the reference at step 0", kl, f"at most {bound:g}", remedy)


def before(finished: float, qualities: Mapping[str, Quality], ratio: float, kl: float, bounds: Gates) -> list[Rang]:
    """Ask the gates that stand before training; `qualities` are those of the reward models, by the stage's name."""
    rang = [ends(finished, bounds.min_finished)]
    for stage, quality in qualities.items():
        rang.append(beats_chance(quality.accuracy, stage) or beats_length(quality.over_length, stage))
        rang.append(calibrated(quality.calibration_error, bounds.max_calibration_error, stage))
    rang.append(steady(ratio, bounds.max_first_ratio) or same(kl, bounds.max_first_kl))  # dropout moves the KL too
    return [found for found in rang if found]


class Curve(NamedTuple):
    """A mean at each rollout, and its standard error."""

    means: Sequence[float]
    errors: Sequence[float]


Curves = Mapping[str, Sequence[float]]  # what was measured at each rollout, by name


def most(gate: str, what: str, now: float, bound: float, remedy: str) -> Rang | None:
    """Ring where a number is above its bound."""
    return Rang(gate, "ppo", what, now, f"at most {bound:.3g}", remedy) if now > bound else None


def least(gate: str, what: str, now: float, bound: float, remedy: str) -> Rang | None:
    """Ring where a number is below its bound."""
    return Rang(gate, "ppo", what, now, f"at least {bound:.3g}", remedy) if now < bound else None


def strayed(kl: float, bounds: Gates) -> Rang | None:
    """Ask whether the policy has gone where the reward was never trained."""
    remedy = "raise method.kl_coef, or lower method.learning_rate"
    return most("kl", "the KL to the reference", kl, bounds.max_kl, remedy)


def explained(variance: float, bounds: Gates) -> Rang | None:
    """Ask whether the value function knows anything yet."""
    remedy = "let the value function learn faster, or more often: method.num_ppo_epochs, method.vf_coef"
    what = "the value function's explained variance"
    return least("explained_variance", what, variance, bounds.min_explained_variance, remedy)


def clipped(fraction: float, bounds: Gates) -> Rang | None:
    """Ask whether the steps are larger than the clipping allows."""
    remedy = "lower method.learning_rate or method.num_ppo_epochs"
    return most("clip_fraction", "the share of clipped ratios", fraction, bounds.max_clip_fraction, remedy)


def collapsed(entropy: float, first: float, bounds: Gates) -> Rang | None:
    """Ask whether the policy has stopped trying anything."""
    remedy = "raise method.kl_coef, or lower method.learning_rate"
    return least("entropy", "the entropy", entropy, bounds.min_entropy_share * first, remedy)


def drifted(length: float, first: float, bounds: Gates) -> Rang | None:
    """Ask whether the answers' length is what is being rewarded."""
    what, remedy = "the mean length", "see whether the reward model counts, or set a length penalty (reward=mixture)"
    longer = most("length", what, length, bounds.max_length_share * first, remedy)
    return longer or least("length", what, length, bounds.min_length_share * first, remedy)


READ = "read the completions, and raise method.kl_coef"


def repeats(distinct: float, first: float, bounds: Gates) -> Rang | None:
    """Ask whether answers repeat themselves; `distinct` is the share of distinct word pairs within an answer."""
    what = "the share of distinct word pairs in an answer"
    return least("repetition", what, distinct, bounds.min_distinct_share * first, READ)


def alike(variety: float, first: float, bounds: Gates) -> Rang | None:
    """Ask whether all answers become one; `variety` is the share of distinct word pairs among those of all answers."""
    what = "the share of distinct word pairs over all answers"
    return least("variety", what, variety, bounds.min_variety_share * first, READ)


def strange(share: float, first: float, bounds: Gates) -> Rang | None:
    """Ask whether answers say what the reference would hardly ever have said."""
    what = "the share of answers with a token that the reference gives less than 1 in 10,000"
    return most("strange", what, share, first + bounds.max_strange_growth, READ)


def truncated(finished: float, first: float, bounds: Gates) -> Rang | None:
    """Ask whether fewer answers come to their end than at the start."""
    remedy = "set a penalty for answers without an end, or raise max_new_tokens"
    what = "the share of answers that end by themselves"
    return least("truncated", what, finished, first - bounds.max_truncated_growth, remedy)


def disagrees(spread: float, first: float, bounds: Gates) -> Rang | None:
    """Ask whether the policy has left the ground on which the ensemble's members were trained."""
    remedy = "take reward.combine=minimum or mean_less_spread, and raise method.kl_coef"
    return most("ensemble", "the ensemble's spread", spread, bounds.max_spread_share * first, remedy)


def fooled(gate: str, held_out: Curve, trained: Curve, bounds: Gates) -> Rang | None:
    """Ask whether a reward that is not trained on loses its rise while the one that is trained on keeps its own."""
    share = bounds.max_held_out_loss
    lost, kept = loss(held_out, bounds.window), loss(trained, bounds.window)
    remedy = f"the trained reward is being fooled: raise method.kl_coef, or stop where {gate} was best"
    what = f"the share of its rise that {gate} has lost"
    return most(gate, what, lost, share, remedy) if kept <= share else None


def standard_error(values: Sequence[float]) -> float:
    """How far the mean of some values may be off by luck."""
    return pstdev(values) / sqrt(len(values))


def loss(curve: Curve, window: int) -> float:
    """The share of its rise that a curve has lost since its peak; 0 where the fall may be luck."""
    means = smooth(curve.means, window)
    fall, rise = max(means) - means[-1], max(means) - means[0]
    luck = sqrt(2 / window) * fmean(curve.errors)  # the standard error of a difference of two windows
    return fall / max(rise, fall) if fall > NOISE * luck else 0.0


NOISE = 4  # standard errors: what the maximum over many rollouts does not reach by luck


def smooth(curve: Sequence[float], window: int) -> list[float]:
    """Means of each `window` neighbours."""
    return [fmean(curve[i : i + window]) for i in range(len(curve) - window + 1)]


UNTRAINED = (("held_out", "reward/held_out", "reward/held_out_error"), ("gold", "gold/score", "gold/error"))


def during(curves: Curves, bounds: Gates) -> Iterator[Rang]:
    """Ask the monitors; those whose numbers were not measured have nothing to say."""
    size = bounds.window

    def now(name: str) -> float:
        return fmean(curves[name][-size:])

    def first(name: str) -> float:
        return fmean(curves[name][:size])

    against_start = [(collapsed, "policy/entropy"), (drifted, "completion/length"), (repeats, "completion/distinct")]
    against_start += [(alike, "completion/variety"), (strange, "completion/strange")]
    against_start += [(truncated, "completion/finished"), (disagrees, "reward/spread")]
    alone = [(strayed, "policy/kl"), (clipped, "policy/clip_fraction")]
    if len(curves.get("value/explained_variance", ())) >= bounds.explained_variance_after + size:
        alone.append((explained, "value/explained_variance"))
    found = [gate(now(name), bounds) for gate, name in alone if len(curves.get(name, ())) >= size]
    found += [gate(now(name), first(name), bounds) for gate, name in against_start if len(curves.get(name, ())) > size]
    trained = Curve(curves.get("reward/mean", ()), curves.get("reward/error", ()))
    for gate, name, error in UNTRAINED:
        if len(curves.get(name, ())) > size:
            found.append(fooled(gate, Curve(curves[name], curves[error]), trained, bounds))
    yield from (rang for rang in found if rang)
