"""Write the table of `bench.py` from all costs that are recorded: rates, ratios, memory, and which aims are met."""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypedDict

OURS, PACKING = "alignlab", "alignlab, packing"
PRODUCTS = "alignlab, matmul=torch"  # with torch's own products of matrices, as the other sides have them


class Recorded(TypedDict):
    """The costs of a case: its method, title and steps, and for each side one cost a round."""

    method: str
    title: str
    steps: int
    sides: dict[str, list[dict[str, Any]]]


Record = dict[str, dict[str, Recorded]]  # by the number of threads, then by the key of the case


class Aim(NamedTuple):
    """The least ratio of alignlab's rate to a side's, or the most where `most` is set."""

    case: str
    side: str
    least: float
    most: bool = False


AIMS = (
    Aim("sft-512", "trl_best", 1.8), Aim("sft-512", "bare", 0.8), Aim("rm", "trl", 3.5), Aim("dpo", "trl", 3.0),
    Aim("dpo", "trl_best", 2.5), Aim("lora", "trl", 2.5),
    *(Aim(f"sft-{length}", PACKING, 1.0, most=True) for length in (512, 1024, 2048)),
)  # fmt: skip


def table(record: Record) -> Iterator[str]:
    """Yield one block for each number of threads."""
    yield (
        "`make bench`: real HH-RLHF rows, batches of 8, float32, rounds in turns. Rates are tokens a second (median), "
        "no padding, a pair's prompt counted twice; ratios are alignlab's rate by that side's (median, lowest to "
        "highest). DPO's reference is computed once for each row on every side: in the steps, or before them "
        "(`trl_best`), which then counts by the share of the rows. TRL and the bare loop multiply matrices as torch "
        "does by itself; `alignlab, matmul=torch` is alignlab with the same products (see `hardware.matmul`)."
    )
    for threads, cases in sorted(record.items()):
        clock = "CPU time of the steps" if threads == "1" else "wall time of the steps"
        yield ""
        yield f"**Threads: {threads}** ({clock})"
        yield ""
        yield "| work | model | rounds × steps | side | rate | ratio | peak memory | the same work |"
        yield "|---|--:|---|---|--:|--:|--:|---|"
        for case in cases.values():
            yield from block(case)
        yield ""
        yield from verdicts(cases)


def block(case: Recorded) -> Iterator[str]:
    """Yield the rows of a case, one for each side."""
    for side, costs in case["sides"].items():
        rate, memory = (statistics.median(cost[name] for cost in costs) for name in ("rate", "peak_mb"))
        model = f"{costs[0]['weights'] / 1e6:,.1f}M"
        work = f"{case['title']} | {model} | {len(costs)} × {case['steps']}"
        ratio, checked = "", ""
        if side != OURS:
            each = ratios(case, side)
            ratio = f"{statistics.median(each):.2f} ({min(each):.2f}–{max(each):.2f})"
            checked = same_work(case, side)
        yield f"| {work} | {side} | {rate:,.0f} | {ratio} | {memory:,.0f} MB | {checked} |"


def ratios(case: Recorded, side: str) -> list[float]:
    """Return alignlab's rate by a side's, in each round."""
    pairs = zip(case["sides"][OURS], case["sides"][side], strict=True)
    return [ours["rate"] / theirs["rate"] for ours, theirs in pairs]


def same_work(case: Recorded, side: str) -> str:
    """Return whether a side saw the tokens that alignlab saw, and how far its losses are from alignlab's."""
    ours, theirs = case["sides"][OURS][0], case["sides"][side][0]
    if side == PACKING or (case["method"] == "sft" and side == "trl_best"):
        return f"{theirs['tokens']:,} tokens, packed"
    if case["method"] == "rm" and side == PRODUCTS:
        return f"{theirs['tokens']:,} tokens, {ours['tokens']:,} here; another new head"
    if case["method"] == "rm":
        return f"{theirs['tokens']:,} tokens, {ours['tokens']:,} here; rows in random order, another new head"
    same = "same tokens" if ours["tokens"] == theirs["tokens"] else f"{theirs['tokens']:,} tokens"
    return f"{same}; first loss within {abs(ours['losses'][0] - theirs['losses'][0]):.0e}"


def verdicts(cases: Mapping[str, Recorded]) -> Iterator[str]:
    """Yield each aim of the recorded cases, and whether it is met."""
    for aim in AIMS:
        if aim.case in cases:
            case = cases[aim.case]
            ratio = statistics.median(ratios(case, aim.side))
            met = ratio <= aim.least if aim.most else ratio >= aim.least
            bound = f"at {'most' if aim.most else 'least'} {aim.least:g} times {aim.side}"
            yield f"- {'met' if met else '**not met**'}: {case['title']}, {bound} ({ratio:.2f})"
    higher = [f"{case['title']} ({side})" for case in cases.values() for side in above(case)]
    which = f": not beside {', '.join(higher)}" if higher else ""
    yield f"- {'**not met**' if higher else 'met'}: peak memory no higher than TRL's{which}"


def above(case: Recorded) -> Iterator[str]:
    """Yield TRL's sides whose peak memory is below alignlab's."""
    memory = {side: statistics.median(cost["peak_mb"] for cost in costs) for side, costs in case["sides"].items()}
    yield from (side for side in memory if side.startswith("trl") and memory[side] < memory[OURS])


def relative(record: Record) -> dict[str, float]:
    """Return alignlab's rates on one thread by the bare loop's, which another machine changes little.

    Both have torch's products of matrices.
    """
    cases = record.get("1", {})
    bare = statistics.median(cost["rate"] for cost in cases["sft-512"]["sides"]["bare"])
    return {
        case["title"]: statistics.median(cost["rate"] for cost in case["sides"][PRODUCTS]) / bare
        for case in cases.values()
        if PRODUCTS in case["sides"]
    }
