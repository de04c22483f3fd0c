"""A decision on a candidate in words: each check with its figures, and what would decide it."""

from typing import NamedTuple

from alignlab.errors import Fault, Refused
from alignlab.evaluation.acceptance import OBJECTIVE, Check
from alignlab.evaluation.decisions import FEWEST_CLUSTERS
from alignlab.pipeline.candidates import DecisionRecord
from alignlab.reports.measure_names import label
from alignlab.reports.run_results import ends, number, rests_on, signed

WORDS = {  # of a task: a candidate that is accepted, and one that is not
    "gate": ("may ship", "must not ship"),
    "promote": ("is promoted", "is not promoted"),
}
MOST_PROMPTS = 1_000_000  # more are not worth a number


class Shown(NamedTuple):
    """A check as text: its part, the measure, what it asks for, what was seen, the outcome, and what would decide.

    `seen` is `change` with its `basis`; `direction` says whether a higher or a lower value is better (of a change).
    """

    part: str
    measure: str
    asks: str
    seen: str
    outcome: str
    now: str
    change: str
    basis: str
    direction: str


def shown(check: Check) -> Shown:
    """Return a check as text."""
    part = check["part"].replace("_", " ")
    if check["outcome"] == "unmeasured":
        asks, seen = "to be measured", "not measured"
        return Shown(part, check["measure"], asks, seen, "unmeasured", now(check), seen, "", "")
    change, rests = changed(check), basis(check)
    seen = f"{change[:-1]}, {rests})" if rests else change
    direction = "" if check["kind"] == "limit" else f"{'higher' if check['higher_is_better'] else 'lower'} is better"
    words = label(check["measure"])
    return Shown(part, words, asked(check), seen, check["outcome"], now(check), change, rests, direction)


def asked(check: Check) -> str:
    """Say what a check asks for."""
    allowed = amount(check["allowed"], check["rate"])
    if check["kind"] == "better":
        return "better: the interval of the change excludes 0"
    if check["kind"] == "not_worse":
        return f"a loss of at most {allowed}"
    return f"at most {number(check['allowed'], True)}% failures"


def changed(check: Check) -> str:
    """Say what was measured, with its interval."""
    value, (low, high) = check["value"], ends(check["value"])
    if check["kind"] == "limit":
        return f"{number(value['value'], True)}% failures ({number(low, True)} to {number(high, True)})"
    unit = " points" if check["rate"] else ""
    share = check["rate"]
    return f"{signed(value['value'], share)}{unit} ({signed(low, share)} to {signed(high, share)})"


def basis(check: Check) -> str:
    """Return what a value rests on: its scorer and its number of rows; empty in a decision of an older version."""
    if "n" not in check:
        return ""
    return rests_on(check["n"], check.get("scorer", ""))


def now(check: Check) -> str:
    """Say by how much a check fails, and how many prompts would decide it; empty for one that passes."""
    if check["outcome"] == "passed":
        return ""
    if check["outcome"] == "unmeasured":
        setting = "task.objective" if check["part"] == OBJECTIVE else f"task.bounds.{check['part']}"
        return f"add one of these to measure=, or change {setting}"
    parts = []
    if check["kind"] != "better":
        parts.append(f"the interval ends {amount(beyond(check), check['rate'])} beyond what is allowed")
    if check["clusters"] < FEWEST_CLUSTERS:
        parts.append(f"{check['clusters']} prompts decide nothing, {FEWEST_CLUSTERS} are the fewest")
    if check["outcome"] == "failed":
        parts.append("this is decided: more prompts would not change it")
    elif check["needed"] is None:
        parts.append("no number of prompts would show a gain, as none was seen" * (check["kind"] == "better"))
    elif check["needed"] > MOST_PROMPTS:
        parts.append(f"more than {MOST_PROMPTS:,} prompts would be needed to decide it")
    else:
        parts.append(f"about {check['needed']:,} prompts would decide it, {check['clusters']:,} were asked")
    return "; ".join(filter(None, parts))


def beyond(check: Check) -> float:
    """Return how far the worse end of an interval lies beyond what is allowed."""
    low, high = ends(check["value"])
    if check["kind"] == "limit":
        return high - check["allowed"]
    return (-low if check["higher_is_better"] else high) - check["allowed"]


def amount(value: float, share: bool) -> str:
    """Return a size as text, in points where it is of a rate."""
    return f"{number(value, share)}{' points' if share else ''}"


def refused(decision: DecisionRecord) -> Refused:
    """Return the error of a decision against a candidate: one line for each check that does not pass."""
    failing = [shown(one) for one in decision["checks"] if one["outcome"] != "passed"]
    where = f"task={decision['task']}"
    return Refused(
        [Fault(f"{where}: {one.part}", f"{one.measure}: {one.seen}; asked: {one.asks}", one.now) for one in failing]
    )


def headline(decision: DecisionRecord) -> str:
    """Say in one sentence what was decided, and which checks decided it."""
    checks, (yes, no) = decision["checks"], WORDS[decision["task"]]
    if decision["version"] is not None:
        yes = f"{yes} as version {decision['version']}"
    failing = [shown(one) for one in checks if one["outcome"] != "passed"]
    against = f"{decision['candidate']} against {decision['baseline']}"
    if not failing:
        gain = next((shown(one) for one in checks if one["part"] == OBJECTIVE), None)
        why = f"{gain.measure} {gain.seen}, and " if gain else ""
        return f"{against} {yes}: {why}all {len(checks) - bool(gain)} constraints hold."
    parts = {one.part: [other.measure for other in failing if other.part == one.part] for one in failing}
    named = "; ".join(f"{part} ({', '.join(dict.fromkeys(measures))})" for part, measures in parts.items())
    do = "does" if len(failing) == 1 else "do"
    return f"{against} {no}: {len(failing)} of {len(checks)} checks {do} not pass: {named}."
