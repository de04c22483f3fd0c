"""The page on reward hacking: for each reward two drawings and a table, and what was found in sentences."""

from collections.abc import Iterator, Sequence
from math import inf, sqrt
from pathlib import Path

from markupsafe import Markup

from alignlab.evaluation.scores import IntervalRecord
from alignlab.pipeline.run_folder import write_json
from alignlab.pipeline.sweep_folder import HACKING, HACKING_PAGE
from alignlab.reports.charts import Mark, Series, curves
from alignlab.reports.reward_hacking import (
    REWARDS,
    WINDOW,
    Beside,
    Policy,
    What,
    facts,
    outcome,
    policies,
    smooth,
    step_of,
    verdict,
)
from alignlab.runtime.files import write_text

NEAR = 3.0  # the root of a KL of 9 nats: what is drawn apart where a policy went far beyond
TITLES: dict[What, str] = {"proxy": "trained reward", "gold": "gold"}


def write_hacking(folder: Path) -> Path | None:
    """Write `hacking.html` into a sweep's folder; None where its runs hold no rollouts with gold."""
    found = list(policies(folder))
    if len({policy.kl_coef for policy in found}) < 2:
        return None
    place = folder / HACKING_PAGE
    write_text(place, str(page(found)))
    write_json(folder / HACKING, [facts(policy) for policy in found])
    return place


def page(found: Sequence[Policy]) -> Markup:
    """The page."""
    groups = {policy.reward: [one for one in found if one.reward == policy.reward] for policy in found}
    sections = (section(reward, own) for reward, own in groups.items())
    return PAGE.format(style=STYLE, body=Markup("").join(sections))


def section(reward: str, own: Sequence[Policy]) -> Markup:
    """What became of the policies of one reward."""
    limits = [NEAR, inf] if max(max(one.kl) for one in own) > (2 * NEAR) ** 2 else [inf]
    drawn = Markup("").join(drawing(own, what, limit) for limit in limits for what in REWARDS)
    told = Markup(" ").join(findings(own))
    return Markup("<h2>{}</h2><p>{}</p>{}<table>{}{}</table>").format(
        reward, told, drawn, HEAD, Markup("").join(map(row, own))
    )


def findings(own: Sequence[Policy]) -> Iterator[str]:
    """What the policies of one reward show, in sentences."""
    free, kept = own[0], max(own, key=gold_gained)
    yield f"With the least weight of the KL ({free.kl_coef:g}), {outcome(free)}: the reward changed by"
    yield f"{change(free.changes.get(REWARDS['proxy']))}, gold by {change(free.changes.get(REWARDS['gold']))}."
    if held_out := free.changes.get("reward/held_out"):
        yield f"A reward model that was held out saw {change(held_out)} of its own."
    yield f"Gold was best with the weight {kept.kl_coef:g}: {change(kept.changes.get(REWARDS['gold']))}."
    if free.best:
        top, last = max(free.best, key=lambda one: one["gold"]), free.best[-1]
        yield f"Best of n gets most gold with n = {top['n']} ({top['gold']:.3f}, at {top['kl']:.2f} nats); with"
        yield f"n = {last['n']} it is {last['gold']:.3f}, where one answer has {free.best[0]['gold']:.3f}."


def gold_gained(policy: Policy) -> float:
    """The change of gold on held-out prompts; last where it was not measured."""
    gained = policy.changes.get(REWARDS["gold"])
    return gained["value"] if gained else -inf


def drawing(own: Sequence[Policy], what: What, limit: float) -> Markup:
    """A reward over the distance, a curve a policy; a dot where a monitor first rang, a ring where gold fell."""
    shown = [Series(f"KL × {one.kl_coef:g}", over_distance(one, REWARDS[what]), marks(one, what)) for one in own]
    if best := own[0].best:
        shown.append(Series("best of n", [(sqrt(one["kl"]), one[what]) for one in best]))
    title = TITLES[what] if limit == inf else f"{TITLES[what]}, near the start"
    return curves(title, [within(one, limit) for one in shown], "√KL")


def within(series: Series, limit: float) -> Series:
    """A curve and its marks up to a distance."""
    points = [point for point in series.points if point[0] <= limit]
    return series._replace(points=points, marks=tuple(mark for mark in series.marks if mark.step <= limit))


def over_distance(policy: Policy, name: str) -> list[tuple[float, float]]:
    """A curve over the square root of the KL, smoothed over rollouts."""
    return list(zip(map(sqrt, policy.kl), smooth(policy.curves[name]), strict=True))


def marks(policy: Policy, what: What) -> tuple[Mark, ...]:
    """Where the first monitor rang, and where gold had lost a tenth of its peak."""
    points = over_distance(policy, REWARDS[what])
    found = [(step_of(policy.first), f"{policy.first['gate']} rang", True)] if policy.first else []
    found += [(policy.fell, FELL, False)] if policy.fell else []
    return tuple(Mark(*points[max(at, WINDOW) - WINDOW], name, full) for at, name, full in found)


FELL = "gold had lost a tenth of its peak"


def row(policy: Policy) -> Markup:
    """A run in the table."""
    cells = [
        f"{policy.kl_coef:g}",
        f"{policy.kl[-1]:.2f}",
        *(change(policy.changes.get(name)) for name in REWARDS.values()),
        *(beside(policy.beside_best(what)) for what in REWARDS),
        verdict(policy),
    ]
    return Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in cells))


def change(found: IntervalRecord | None) -> str:
    """A difference with its interval."""
    if found is None:
        return ""
    return f"{found['value']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})".replace("-", "−")


def beside(found: Beside | None) -> str:
    """What a policy has over the best of n, and at which KL."""
    if found is None:
        return ""
    ends: IntervalRecord = {"value": found.value, "low": found.low, "high": found.high}
    return f"{change(ends)} at {found.kl:.2f}"


HEAD = Markup(
    "<tr><th>weight of the KL</th><th>KL at the end</th><th>change of the reward (95%)</th>"
    "<th>change of gold (95%)</th><th>reward less best of n’s at equal KL (95%)</th>"
    "<th>gold less best of n’s at equal KL (95%)</th><th>what became of it</th></tr>"
)
STYLE = Markup(
    "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "figure{display:inline-block;width:49%;margin:0;vertical-align:bottom}table{border-collapse:collapse;font-size:13px}"
    "td,th{padding:.3rem .6rem;text-align:left;vertical-align:top;border-top:1px solid #ccc}"
    ".grid{stroke:#ddd}.tick{font-size:10px;fill:#666}.line{fill:none;stroke-width:1.6;stroke:currentColor}"
    ".dot{fill:currentColor}.ring{fill:#fff;stroke:currentColor;stroke-width:1.6}"
    ".c0{color:#c0392b}.c1{color:#d68910}.c2{color:#1e8449}.c3{color:#2471a3}.c4{color:#777}.key{margin-left:.6rem}"
)
PAGE = Markup(
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Reward hacking</title><style>{style}</style>'
    "<h1>Reward hacking</h1><p>Across: the square root of the KL to the reference, in nats a completion. Each point "
    "is the mean of three rollouts; a dot stands where a monitor first rang, a ring where gold had lost a tenth of its "
    "peak. Changes are paired, on held-out prompts, against the policy that PPO started from. Best of n is drawn from "
    "that policy and chosen by the same reward; policies are held against it where they were last as near to their "
    "start as it is.</p>{body}</html>\n"
)
