"""The page on reward hacking: for each reward two charts, a table, and the findings in sentences."""

from collections.abc import Iterator, Sequence
from math import inf, sqrt
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from alignlab.evaluation.scores import IntervalRecord
from alignlab.pipeline.run_folder import write_json
from alignlab.pipeline.sweep_folder import HACKING, HACKING_PAGE
from alignlab.reports.charts import Mark, Series, curves
from alignlab.reports.reward_hacking import (
    REWARDS,
    WINDOW,
    OverBestOfN,
    Policy,
    What,
    facts,
    outcome,
    policies,
    smooth,
    step_of,
    verdict,
)
from alignlab.reports.run_results import ends
from alignlab.reports.templates import render
from alignlab.runtime.files import write_text

NEAR = 3.0  # square root of a KL of 9 nats: policies that go far beyond get a second chart up to here
TITLES: dict[What, str] = {"proxy": "trained reward", "gold": "gold"}
HEAD = (
    *("KL weight", "final KL", "change of the reward (95%)", "change of gold (95%)"),
    *("reward minus best of n at equal KL (95%)", "gold minus best of n at equal KL (95%)", "outcome"),
)
FELL = "gold had fallen 10% below its peak"


class Section(NamedTuple):
    """A reward, what its policies show in sentences, its charts, and a row of cells per policy."""

    reward: str
    findings: str
    charts: list[Markup]
    rows: list[list[str]]


def write_hacking(folder: Path) -> Path | None:
    """Write the page and its facts into a sweep's folder; None where fewer than two KL weights logged gold."""
    runs = list(policies(folder))
    if len({policy.kl_coef for policy in runs}) < 2:
        return None
    write_text(folder / HACKING_PAGE, page(runs))
    write_json(folder / HACKING, [facts(policy) for policy in runs])
    return folder / HACKING_PAGE


def page(runs: Sequence[Policy]) -> str:
    """Build the page."""
    groups = {policy.reward: [one for one in runs if one.reward == policy.reward] for policy in runs}
    sections = [section(reward, group) for reward, group in groups.items()]
    return render("reward_hacking.html", sections=sections, head=HEAD)


def section(reward: str, group: Sequence[Policy]) -> Section:
    """Build the section about the policies of one reward."""
    limits = [NEAR, inf] if max(max(policy.kl) for policy in group) > (2 * NEAR) ** 2 else [inf]
    charts = [chart(group, what, limit) for limit in limits for what in REWARDS]
    return Section(reward, " ".join(findings(group)), charts, [row(policy) for policy in group])


def findings(group: Sequence[Policy]) -> Iterator[str]:
    """Yield what the policies of one reward show, in sentences."""
    free, kept = group[0], max(group, key=gold_gained)
    yield f"With the smallest KL weight ({free.kl_coef:g}), {outcome(free)}: the reward changed by"
    yield f"{change(free.changes.get(REWARDS['proxy']))}, gold by {change(free.changes.get(REWARDS['gold']))}."
    if held_out := free.changes.get("reward/held_out"):
        yield f"The reward by the held-out reward model changed by {change(held_out)}."
    yield f"Gold was best with the KL weight {kept.kl_coef:g}: {change(kept.changes.get(REWARDS['gold']))}."
    if free.best:
        top, last = max(free.best, key=lambda point: point["gold"]), free.best[-1]
        yield f"Best of n has most gold at n = {top['n']} ({top['gold']:.3f}, at {top['kl']:.2f} nats); at"
        yield f"n = {last['n']} it is {last['gold']:.3f}, and at n = 1 it is {free.best[0]['gold']:.3f}."


def gold_gained(policy: Policy) -> float:
    """Return the change of gold on held-out prompts; minus infinity where it was not measured."""
    gained = policy.changes.get(REWARDS["gold"])
    return gained["value"] if gained else -inf


def chart(group: Sequence[Policy], what: What, limit: float) -> Markup:
    """Draw a score over the KL, one curve per policy, with a dot at the first monitor and a ring where gold fell."""
    shown = [Series(f"KL × {one.kl_coef:g}", over_kl(one, REWARDS[what]), marks(one, what)) for one in group]
    if best := group[0].best:
        shown.append(Series("best of n", [(sqrt(point["kl"]), point[what]) for point in best]))
    title = TITLES[what] if limit == inf else f"{TITLES[what]}, near the start"
    return curves(title, [within(one, limit) for one in shown], "√KL")


def within(series: Series, limit: float) -> Series:
    """Cut a curve and its marks off at a distance."""
    points = [point for point in series.points if point[0] <= limit]
    return series._replace(points=points, marks=tuple(mark for mark in series.marks if mark.step <= limit))


def over_kl(policy: Policy, name: str) -> list[tuple[float, float]]:
    """Return a smoothed curve over the square root of the KL."""
    return list(zip(map(sqrt, policy.kl), smooth(policy.curves[name]), strict=True))


def marks(policy: Policy, what: What) -> tuple[Mark, ...]:
    """Mark where the first monitor triggered, and where gold had fallen 10% below its peak."""
    points = over_kl(policy, REWARDS[what])
    events = [(step_of(policy.first), f"{policy.first['gate']} triggered", True)] if policy.first else []
    events += [(policy.fell, FELL, False)] if policy.fell else []
    return tuple(Mark(*points[max(at, WINDOW) - WINDOW], name, filled) for at, name, filled in events)


def row(policy: Policy) -> list[str]:
    """Return a run's cells of the table, in the order of `HEAD`."""
    return [
        f"{policy.kl_coef:g}",
        f"{policy.kl[-1]:.2f}",
        *(change(policy.changes.get(name)) for name in REWARDS.values()),
        *(over_best(policy.over_best_of_n(what)) for what in REWARDS),
        verdict(policy),
    ]


def change(difference: IntervalRecord | None) -> str:
    """Format a difference with its interval."""
    if difference is None:
        return ""
    low, high = ends(difference)
    return f"{difference['value']:+.3f} ({low:+.3f} to {high:+.3f})".replace("-", "−")


def over_best(difference: OverBestOfN | None) -> str:
    """Format a policy's difference to best of n, and the KL at which it was taken."""
    if difference is None:
        return ""
    record: IntervalRecord = {"value": difference.value, "low": difference.low, "high": difference.high}
    return f"{change(record)} at {difference.kl:.2f}"
