"""Measure how the CPU time of training grows with the work, beside the operations that the work takes.

    python benchmarks/growth.py FOLDER                           # SFT, RM and DPO: eleven minutes on two idle cores
    python benchmarks/growth.py FOLDER --methods=sft,rm,dpo,ppo  # others, and PPO; --rows=16 is a quick try

Each figure is the CPU time of a command that a user types, with its workers, less that of the same command with one
optimizer step. So start-up and the first step do not count, and tokenising and reading the rows do. Theory is the
ratio of the floating-point operations that `flops.py` counts over the rows' tokens, with a pair's prompt counted once.
Several processes share the operations of one, and lay out their steps by rows (`hardware.layout`).
The folder keeps the cost of each command: those that it has are not run again. Rows are HH-RLHF's.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import MODEL
from flops import Shape, forward, shape_of
from growth_rows import BATCH, COMMON, Counts, files, prepare, token_counts

HERE = Path(__file__).parent
PICTURE = HERE / "growth.png"
METHODS = ("sft", "rm", "dpo")
ROWS, NEW_TOKENS, TOLERANCE = 64, 24, 1.1
PASSES = {"sft": (3, 0), "rm": (0, 3), "dpo": (4, 0), "ppo": (12, 10)}  # as many as forward: with the head, without
PPO = (
    "reward=function", "reward.function=shortness:shortness", "method.gates.before=off", "method.gates.during=off",
    "method.num_mini_batches=1", "method.num_ppo_epochs=3", "method.value=separate",
)  # fmt: skip


class Work(NamedTuple):
    """The work of a command: rows, how many times the length and the layers, processes, and the layout of a step."""

    rows: int
    length: int = 1
    layers: int = 1
    processes: int = 1
    layout: str = "tokens"


class Cost(NamedTuple):
    """The CPU seconds of a command and its workers, and its seconds of wall time."""

    cpu: float
    wall: float


class Ratio(NamedTuple):
    """One line of the table: what has grown, its CPU seconds, their ratio to those before, and the operations'."""

    method: str
    name: str
    seconds: float
    measured: float
    theory: float
    masked: float  # theory without the keys that are masked
    note: str = ""


def main(arguments: Sequence[str] = sys.argv[1:]) -> None:
    """Measure what the command line names, and write the table and the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--rows", type=int, default=ROWS)
    options = parser.parse_args(arguments)
    from evidence import write_part

    write_part("growth", measure(options.folder, options.methods.split(","), options.rows))


def growth() -> Iterator[str]:
    """Measure SFT, a reward model and DPO; a part of `evidence.py`."""
    with tempfile.TemporaryDirectory() as name:
        yield from measure(Path(name), METHODS, ROWS)


def measure(folder: Path, methods: Sequence[str], rows: int) -> Iterator[str]:
    """Run the commands, draw the picture, and yield the table."""
    folder = folder.absolute()
    texts = prepare(folder, rows)
    counts = token_counts(folder, texts)
    ratios = [ratio for method in methods for ratio in compare(method, costs(folder, method, rows), counts, rows)]
    draw(ratios, PICTURE)
    yield from table(ratios, rows)


def table(ratios: Sequence[Ratio], rows: int) -> Iterator[str]:
    """Yield the table, with a verdict for each ratio."""
    steps = (10 * rows - BATCH) / (rows - BATCH)
    yield f"`python benchmarks/growth.py FOLDER`: the Llama of `make bench`, {rows} HH-RLHF rows, batches of {BATCH},"
    yield "one thread a process; CPU time after the first step. Theory is the ratio of the operations that"
    yield f"`benchmarks/flops.py` counts; up to {TOLERANCE:g} times theory is no worse (grey in the picture). Masked:"
    yield "without the keys that the mask hides. Ten times the rows are"
    yield f"{steps:.1f} times the steps after the first."
    yield ""
    yield "| method | work | CPU seconds | times as many | theory | measured / theory | masked | verdict |"
    yield "|---|---|--:|--:|--:|--:|--:|---|"
    for ratio in ratios:
        share = ratio.measured / ratio.theory
        verdict = "lost in noise" if share <= 0 else "no worse" if share <= TOLERANCE else "**worse**"
        numbers = (f"{number:.2f}" for number in (ratio.measured, ratio.theory, share, ratio.masked))
        yield f"| {ratio.method} | {ratio.name} | {ratio.seconds:.1f} | {' | '.join(numbers)} | {verdict}{ratio.note} |"
    yield ""
    yield "`benchmarks/sampling.py` measures the growth of sampling, see"
    yield "[five completions a prompt](#five-completions-a-prompt-beside-generate), and `benchmarks/preparing.py` that"
    yield "of preparing rows (`evidence.py preparing`)."
    yield ""
    yield "![Measured growth of the CPU time over the growth of the counted operations](growth.png)"


def works(rows: int) -> dict[str, Work]:
    """Return the work of each command by its name; the first two are one optimizer step."""
    return {
        "start": Work(BATCH),
        "start, 2 processes": Work(BATCH, processes=2),
        "once": Work(rows),
        "10 times the rows": Work(10 * rows),
        "4 times the length": Work(rows, length=4),
        "4 times the layers": Work(rows, layers=4),
        "layout=rows": Work(2 * rows, layout="rows"),
        "2 processes": Work(2 * rows, processes=2),
    }


def costs(folder: Path, method: str, rows: int) -> dict[str, Cost]:
    """Run the commands of a method that the folder does not have yet; return all costs."""
    record = folder / "costs.json"
    for name, work in works(rows).items():
        known: dict[str, Any] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
        if (key := f"{method}, {rows}, {name}") not in known:
            known[key] = run(folder, method, work)
            record.write_text(json.dumps(known, indent=1), encoding="utf-8")
            print(key, known[key], flush=True, file=sys.stderr)
    return {name: Cost(*known[f"{method}, {rows}, {name}"]) for name in works(rows)}


def run(folder: Path, method: str, work: Work) -> Cost:
    """Run one command from an empty cache."""
    settings = [f"method={method}", *COMMON, "model=local", f"model.path={folder}/model-{work.layers}"]
    settings += [*files(folder, work.length), f"dataset.max_rows={work.rows}", f"hardware.layout={work.layout}"]
    if work.processes > 1:
        settings += ["hardware=ddp", f"hardware.processes={work.processes}"]
    if method == "ppo":
        new_tokens = f"method.max_new_tokens={NEW_TOKENS * work.length}"
        settings += [*PPO, f"method.total_episodes={work.rows}", new_tokens]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        environment = os.environ | {"ALIGNLAB_CACHE": f"{place}/cache", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "alignlab", *settings, f"hydra.run.dir={place}/run"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - began)


def operations(method: str, shape: Shape, counts: Sequence[Counts], work: Work, is_masked: bool = False) -> float:
    """Count the operations of the steps after the first; the rows of a step are taken to be like all others."""
    shape = shape._replace(num_hidden_layers=shape.num_hidden_layers * work.layers)
    with_head, without = PASSES[method]
    total = 0
    for prompt, pair in counts[: work.rows]:
        completions = {"sft": pair[:1], "ppo": [NEW_TOKENS]}.get(method, pair)
        lengths = work.length * prompt, [work.length * count for count in completions]
        for passes, head in ((with_head, True), (without, False)):
            total += passes * forward(shape, *lengths, head, is_masked)
    return total * (work.rows - BATCH) / work.rows


def compare(method: str, costs: dict[str, Cost], counts: Sequence[Counts], rows: int) -> Iterator[Ratio]:
    """Yield the ratios of a method, each beside theory.

    The cost of a row is the slope from `rows` to ten times as many, which no noise of start-up changes. Several
    processes lay out their steps by rows, so one process does so, too, in the first of their two comparisons.
    """
    spent = {name: cost.cpu - costs["start"].cpu for name, cost in costs.items()}
    once = (costs["10 times the rows"].cpu - costs["once"].cpu) / (9 * rows) * (rows - BATCH)
    theory = {name: theories(method, counts, works(rows)["once"], work) for name, work in works(rows).items()}
    name = "10 times the rows"
    yield Ratio(method, name, spent[name], spent[name] / spent["once"], *theory[name])
    yield Ratio(method, f"{name}, whole command", costs[name].cpu, costs[name].cpu / costs["once"].cpu, 10, 10)
    for name in ("4 times the length", "4 times the layers"):
        yield Ratio(method, name, spent[name], spent[name] / once, *theory[name])
    both, one, start = costs["2 processes"], costs["layout=rows"], costs["start, 2 processes"]
    together, wall = both.cpu - start.cpu, (both.wall - start.wall) / (one.wall - costs["start"].wall)
    note = f"; wall time {wall:.2f}"
    yield Ratio(method, "2 processes, one with layout=rows", together, together / spent["layout=rows"], 1, 1, note)
    twice = once * (2 * rows - BATCH) / (rows - BATCH)
    yield Ratio(method, "2 processes, one with layout=tokens", together, together / twice, 1, 1)


def theories(method: str, counts: Sequence[Counts], before: Work, after: Work) -> tuple[float, float]:
    """Return the ratio of operations after work has grown, with masked keys and without them."""
    shape = shape_of(MODEL)
    every, masked = (
        operations(method, shape, counts, after, is_masked) / operations(method, shape, counts, before, is_masked)
        for is_masked in (False, True)
    )
    return every, masked


def draw(ratios: Sequence[Ratio], picture: Path) -> None:
    """Draw measured ratios over those of theory, on logarithmic axes; what lies in the grey area is no worse."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5.5), layout="constrained")
    ends = [0.8, 14.0]
    axes.fill_between(ends, 0.1, [end * TOLERANCE for end in ends], color="#eeeeee")
    (line,) = axes.loglog(ends, ends, color="#555555", label="theory")
    colours = {ratio.method: f"C{number}" for number, ratio in enumerate({one.method: one for one in ratios}.values())}
    markers = dict(zip(dict.fromkeys(ratio.name for ratio in ratios), "osD^vP", strict=True))
    for ratio in ratios:
        axes.plot(ratio.theory, ratio.measured, markers[ratio.name], color=colours[ratio.method], ms=9, alpha=0.8)
    dots = [pyplot.Line2D([], [], color=colour, marker="s", ls="", label=name) for name, colour in colours.items()]
    marks = [pyplot.Line2D([], [], color="black", marker=mark, ls="", label=name) for name, mark in markers.items()]
    axes.legend(handles=[line, *dots, *marks], frameon=False)
    axes.set(xlim=ends, ylim=(0.4, 14), xlabel="operations: times as many", ylabel="CPU time: times as much")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(matplotlib.ticker.FixedLocator([0.5, 1, 2, 4, 10]))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(matplotlib.ticker.NullLocator())
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    main()
