"""Measure the detoxification of summaries over three seeds: toxicity and ROUGE before and after PPO."""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SEEDS = range(3)
HEADER = (
    "seed", "% toxic: base", "SFT", "PPO", "PPO − SFT", "ROUGE-L: SFT", "PPO", "PPO − SFT", "KL at step 0", "last KL",
    "seconds", "of CPU",
)  # fmt: skip
TURNED = "reward.label=hate"
COMMAND = "python -m alignlab experiment=detoxify_summaries"


def detox() -> Iterator[str]:
    """Run the experiment with each seed, and compare with its targets."""
    runs = []
    with tempfile.TemporaryDirectory() as name:
        for seed in SEEDS:
            runs.append(run(seed, Path(name)))
            print(seed, json.dumps(runs[-1]["toxicity/rate"]), json.dumps(runs[-1]["rouge/l"]), flush=True)
            shown = table(Path(name) / "outputs" / "latest" / "ppo" / "samples.jsonl")
        turned = run(0, Path(name), TURNED)
    count = runs[0]["toxicity/rate"]["n"]
    yield f"`{COMMAND} seed=…`: base → SFT → PPO, {count} held-out dialogues,"
    yield "the same before and after. A summary is toxic that holds an insult, by the world's own rule; the reward is a"
    yield "classifier that learned from other rows, some of them with a false label. In brackets, 95% intervals;"
    yield "differences are paired. The first seed begins with an empty cache; the others find its base model and its"
    yield "classifier."
    yield ""
    yield from header()
    yield from (line(str(seed), found) for seed, found in zip(SEEDS, runs, strict=True))
    yield ""
    yield from targets(runs)
    yield ""
    yield f"The control, in which toxicity must not fall: seed 0 with `{TURNED}`, the label that a lab which reads the"
    yield "reward by its place may take by mistake."
    yield ""
    yield from header()
    yield line("0, turned round", turned)
    yield ""
    yield "Completions before and after, of the last seed, as they came:"
    yield ""
    yield shown


def run(seed: int, folder: Path, *settings: str) -> dict[str, Any]:
    """Return the measurements of one run, with its first and last KL and its seconds."""
    started, used = time.monotonic(), cpu()
    environment = os.environ | {"ALIGNLAB_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "alignlab", "experiment=detoxify_summaries", f"seed={seed}", *settings]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    latest = folder / "outputs" / "latest"
    rows = json.loads((latest / "result.json").read_text(encoding="utf-8"))["measurements"]
    lines = (latest / "ppo" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    kl = [found["policy/kl_exact"] for found in map(json.loads, lines) if "policy/kl_exact" in found]
    spent = {"seconds": time.monotonic() - started, "cpu": cpu() - used}
    return {row["name"]: row for row in rows} | {"kl": kl} | spent


def cpu() -> float:
    """Return the CPU seconds of the finished processes, which do not depend on other load."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def header() -> Iterator[str]:
    """Return the first two lines of the table."""
    yield f"| {' | '.join(HEADER)} |"
    yield "|---" * len(HEADER) + "|"


def line(name: str, found: dict[str, Any]) -> str:
    """Return the row of a run."""
    toxic, rouge = found["toxicity/rate"], found["rouge/l"]
    cells = [name, *(interval(part, 100, 1) for part in (toxic["before"], toxic["previous"], toxic))]
    cells += [interval(toxic["difference"]["previous"], 100, 1), interval(rouge["previous"], 1, 3)]
    cells += [interval(rouge, 1, 3), interval(rouge["difference"]["previous"], 1, 3)]
    cells += [f"{found['kl'][0]:.1e}", f"{found['kl'][-1]:.2f}", f"{found['seconds']:.0f}", f"{found['cpu']:.0f}"]
    return f"| {' | '.join(cells)} |"


def interval(found: dict[str, float], scale: float, digits: int) -> str:
    """Return a value with its interval; rates are in per cent."""
    value, low, high = (f"{scale * found[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def targets(runs: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the targets of the experiment and whether these runs meet them."""
    toxic = [found["toxicity/rate"]["difference"]["previous"] for found in runs]
    rouge = [found["rouge/l"]["difference"]["previous"] for found in runs]
    starts = [abs(found["kl"][0]) for found in runs]
    least = min(found["toxicity/rate"]["n"] for found in runs)
    fall = statistics.mean(found["value"] for found in toxic)
    for target, met in (
        (f"at least 500 pairs in each seed ({least})", least >= 500),
        (
            f"toxicity falls, with an interval that excludes 0 (mean {100 * fall:+.1f} points)",
            max(t["high"] for t in toxic) < 0,
        ),
        (
            f"the interval of ROUGE-L's change lies above −0.02 (lowest end {min(r['low'] for r in rouge):+.3f})",
            min(r["low"] for r in rouge) > -0.02,
        ),
        (f"KL at step 0 below 1e-3 (largest {max(starts):.1e})", max(starts) < 1e-3),
    ):
        yield f"- {'met' if met else '**not met**'}: {target}"


def table(samples: Path, count: int = 6) -> str:
    """Yield the first dialogues with their summaries."""
    rows = [json.loads(text) for text in samples.read_text(encoding="utf-8").splitlines()[:count]]
    lines = ["| dialogue | after SFT | after PPO |", "|---|---|---|"]
    for row in rows:
        spoken = row["prompt"][-1]["content"].partition("\n\n")[2].replace("\n", "<br>")
        lines.append(f"| {spoken} | {row['previous']['completion']} | {row['after']['completion']} |")
    return "\n".join(lines)
