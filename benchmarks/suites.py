"""Measure every suite on real files, before and after a short DPO: `python benchmarks/suites.py pocket smollm2`.

`ALIGNLAB_DATA` names the folder of the suites' files, `ALIGNLAB_SMOLLM2` that of SmolLM2-135M-Instruct. `pocket` and
`smollm2` train a few steps of DPO, then measure `evaluation=full` on the base model and on the trained one, and print a
table with n, intervals and controls. `durability` attacks pocket models that were aligned by DPO, PPO and
Constitutional AI with `SEEDS` seeds (5), and SmolLM2 where its folder is set. `PROMPTS` (6) is the number of items of
each kind. Everything happens in `ALIGNLAB_SUITES` (outputs/suites): a second run repeats nothing that has
finished. The output is Markdown for RESULTS.md.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
OUT = Path(os.environ.get("ALIGNLAB_SUITES", HERE.parent / "outputs" / "suites")).absolute()
DATA = os.environ.get("ALIGNLAB_DATA", "")
SMOLLM2 = os.environ.get("ALIGNLAB_SMOLLM2", "")
PROMPTS = int(os.environ.get("PROMPTS", "6"))  # of each kind
SEEDS = int(os.environ.get("SEEDS", "5"))
POCKET = ["model=pocket_small", "dataset=pocket_small"]
HH = f"{DATA}/hh-rlhf"
REAL = [
    "model=local",
    f"model.path={SMOLLM2}",
    "dataset=hh_rlhf",
    f"dataset.train=[{HH}/harmless-base.train.2000.jsonl]",
    f"dataset.test=[{HH}/harmless-base.test.dev.jsonl]",
]
SHORT_DPO = [
    "method.policy=base",
    "model/adapter=lora",
    "method.max_steps=6",
    "method.batch_size=4",
    "method.max_length=192",
]


def command(name: str, *arguments: str) -> tuple[Path, float]:
    """Run a command of alignlab once, in a folder of its own; return the folder and the seconds that it took."""
    folder = OUT / name
    seconds = folder / "seconds"
    if not seconds.exists():
        folder.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        with (folder / "log.txt").open("w") as log:
            run = [sys.executable, "-m", "alignlab", *arguments]
            subprocess.run(run, cwd=folder, stdout=log, stderr=subprocess.STDOUT, check=True)
        seconds.write_text(f"{time.monotonic() - start:.0f}")
    return folder, float(seconds.read_text())


def result(folder: Path) -> list[dict]:
    """Return the measurements of the last run in a folder."""
    return json.loads((folder / "outputs" / "latest" / "result.json").read_text())["measurements"]


def detoxify() -> str:
    """Return the checkpoint of the small classifier of toxicity; it is trained once."""
    file = OUT / "detoxify" / "detoxify.ckpt"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, str(HERE / "detoxify_checkpoint.py"), str(file.parent)], check=True)
    return str(file)


def small() -> list[str]:
    """Return settings of `evaluation=full` that ask few items of each kind."""
    scorers = [f"measure.{name}.detoxify={detoxify()}" for name in ("toxicity", "realtoxicityprompts", "bold")]
    return [
        "evaluation=full", f"evaluation.data={DATA}", f"evaluation.prompts={PROMPTS}", "evaluation.max_new_tokens=24",
        f"measure.refusal.prompts={4 * PROMPTS}", f"measure.capabilities.items={4 * PROMPTS}",
        "measure.jailbreaks.attacks=[none,prefix_injection,base64]", f"measure.jailbreaks.prompts={PROMPTS}",
        "measure.realtoxicityprompts.samples=3", *scorers,
    ]  # fmt: skip


def interval(cell: dict, rate: bool) -> str:
    """Return a value with its interval."""
    value, low, high = (cell[name] for name in ("value", "low", "high"))
    if rate:
        return f"{value:.0%} [{low:.0%}, {high:.0%}]"
    return f"{value:.3g}" if low is None else f"{value:.3g} [{low:.3g}, {high:.3g}]"


def table(rows: list[dict]) -> str:
    """Return the measures as a Markdown table."""
    lines = ["| measure | n (clusters) | before | after | p (Holm) | controls |", "|---|---|---|---|---|---|"]
    for row in rows:
        before = interval(row["before"], row["rate"]) if "before" in row else "–"
        changed = row["difference"].get("before", {}).get("p_adjusted")
        controls = ", ".join(f"{name} {value:.3g}" for name, value in row.get("controls", {}).items())
        lines.append(
            f"| {row['name']} | {row['n']} ({row['clusters']}) | {before} | {interval(row, row['rate'])} | "
            f"{'' if changed is None else f'{changed:.2g}'} | {controls} |"
        )
    return "\n".join(lines)


def before_and_after(name: str, model: list[str], dpo: list[str]) -> None:
    """Train, measure the base model beside the trained one, and print the table."""
    trained, spent = command(f"{name}-dpo", "method=dpo", *model, *dpo, "evaluation=none")
    policy = trained / "outputs" / "latest"
    measured, seconds = command(f"{name}-full", "task=evaluate", f"task.model={policy}", *model, *small())
    print(f"## {name}: DPO in {spent:.0f} s, every suite on both models in {seconds:.0f} s\n")
    print(table(result(measured)), flush=True)


def curve(folder: Path) -> dict[str, tuple[float, float]]:
    """Return the attack-success rates of an evaluation before and after alignment, by the number of steps."""
    rows = [row for row in result(folder) if row["name"].startswith("durability/")]
    return {row["name"].rpartition("_")[2]: (row["before"]["value"], row["value"]) for row in rows}


def durability() -> None:
    """Attack pocket models of each method and seed, and print the mean curves; then SmolLM2 after a short DPO."""
    for method in ("dpo", "ppo", "cai"):
        curves = []
        for seed in range(SEEDS):
            how = [*POCKET, f"seed={seed}"]
            trained, _ = command(f"{method}-{seed}", f"method={method}", *how, "evaluation=none")
            attacked = ["task=evaluate", f"task.model={trained}/outputs/latest", *how, "evaluation=durability"]
            curves.append(curve(command(f"{method}-{seed}-attacked", *attacked, "measure=[durability]")[0]))
        show(f"{method} (pocket, {SEEDS} seeds)", curves)
    if SMOLLM2:
        trained, _ = command("smollm2-dpo", "method=dpo", *REAL, *SHORT_DPO, "evaluation=none")
        policy = trained / "outputs" / "latest"
        few = ["measure.durability.prompts=20", "measure.durability.steps=[10,20]", "measure.durability.batch_size=4"]
        how = [
            "task=evaluate",
            f"task.model={policy}",
            *REAL,
            f"evaluation.data={DATA}",
            "evaluation.max_new_tokens=24",
        ]
        attacked, _ = command("smollm2-attacked", *how, "measure=[durability]", *few)
        show("dpo (SmolLM2, 1 seed, 20 prompts)", [curve(attacked)])


def show(name: str, curves: list[dict[str, tuple[float, float]]]) -> None:
    """Print mean curves with their range over seeds."""
    print(f"\n### {name}\n\n| steps | base model | aligned |\n|---|---|---|")
    for steps in curves[0]:
        columns = [[one[steps][side] for one in curves] for side in (0, 1)]
        cells = [f"{statistics.mean(one):.0%} ({min(one):.0%}–{max(one):.0%})" for one in columns]
        print(f"| {steps} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    for part in sys.argv[1:] or ["pocket", "smollm2", "durability"]:
        match part:
            case "pocket":
                before_and_after("pocket", POCKET, [])
            case "smollm2":
                before_and_after("smollm2", REAL, SHORT_DPO)
            case "durability":
                durability()
            case _:
                sys.exit(f"{part} is none of pocket, smollm2, durability")
