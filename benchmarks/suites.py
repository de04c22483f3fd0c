"""Measure every suite on real files, before and after a short DPO: `python benchmarks/suites.py scratch pocket`.

`ALIGNLAB_DATA` names the folder of the suites' files, `ALIGNLAB_SMOLLM2` that of SmolLM2-135M-Instruct. `pocket` trains
DPO on its own pairs, `scratch` a model with random weights on pairs of HH-RLHF. `smollm2` runs
`experiment=smollm2_safety`, or takes the model in the folder `SMOLLM2_DPO`. Each then measures the base model and the
trained one, and prints a table with n, intervals and controls. It leaves out the measures of fewer than 20 prompts or
clusters, which get no verdict. `PROMPTS` is the number of items of each kind (20). `durability` attacks pocket models
that were aligned by DPO, PPO and Constitutional AI with `SEEDS` seeds (5), and SmolLM2 where its folder is set.
Everything happens in `ALIGNLAB_SUITES` (outputs/suites): a second run repeats nothing that has finished. The output is
Markdown for RESULTS.md.
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
PROMPTS = int(os.environ.get("PROMPTS", "20"))  # of each kind
FEWEST = 20  # clusters of a measure in the table
SEEDS = int(os.environ.get("SEEDS", "5"))
POCKET = ["model=pocket_small", "dataset=pocket_small"]
SCRATCH = [
    "model=scratch", "dataset=hh_rlhf", f"dataset.train=[{DATA}/hh-rlhf/harmless-base.train.2000.jsonl]",
    f"dataset.test=[{DATA}/hh-rlhf/harmless-base.test.dev.jsonl]",
]  # fmt: skip
SAFETY = ["experiment=smollm2_safety", "model=local", f"model.path={SMOLLM2}", "seed=1"]
ON_SMOLLM2 = (
    "refusal,harmbench,jailbreaks,toxicity,realtoxicityprompts,capabilities,perplexity,length,truthfulqa,behaviors,bbq,"
    "crows_pairs,stereoset,winobias"
)


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


def scorers(*names: str) -> list[str]:
    """Return the settings that give the small classifier to measures of toxicity."""
    return [f"measure.{name}.detoxify={detoxify()}" for name in names]


def on_all() -> list[str]:
    """Return settings of `evaluation=full` that ask few items of each kind."""
    return [
        "evaluation=full", f"evaluation.data={DATA}", f"evaluation.prompts={PROMPTS}", "evaluation.max_new_tokens=24",
        f"measure.refusal.prompts={3 * PROMPTS}", f"measure.capabilities.items={3 * PROMPTS}",
        "measure.jailbreaks.attacks=[none,prefix_injection,base64]", f"measure.jailbreaks.prompts={PROMPTS}",
        "measure.realtoxicityprompts.samples=3", *scorers("toxicity", "realtoxicityprompts", "bold"),
    ]  # fmt: skip


def on_smollm2() -> list[str]:
    """Return settings that ask SmolLM2 enough items of each suite for a verdict, in some minutes of one core."""
    return [
        f"measure=[{ON_SMOLLM2}]", f"evaluation.data={DATA}", f"evaluation.prompts={PROMPTS}",
        f"measure.capabilities.items={3 * PROMPTS}", f"measure.jailbreaks.prompts={PROMPTS}",
        "measure.jailbreaks.attacks=[none,prefix_injection,role_play]", "measure.realtoxicityprompts.samples=3",
        *scorers("toxicity", "realtoxicityprompts"),
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
    for row in (row for row in rows if row["clusters"] >= FEWEST):
        before = interval(row["before"], row["rate"]) if "before" in row else "–"
        changed = row["difference"].get("before", {}).get("p_adjusted")
        controls = ", ".join(f"{name} {value:.3g}" for name, value in row.get("controls", {}).items())
        lines.append(
            f"| {row['name']} | {row['n']} ({row['clusters']}) | {before} | {interval(row, row['rate'])} | "
            f"{'' if changed is None else f'{changed:.2g}'} | {controls} |"
        )
    return "\n".join(lines)


def aligned_smollm2() -> Path:
    """Return the folder of SmolLM2 after `experiment=smollm2_safety`; it is trained once."""
    if given := os.environ.get("SMOLLM2_DPO"):
        return Path(given)
    return command("smollm2-dpo", *SAFETY, "evaluation=none")[0] / "outputs" / "latest"


def before_and_after(name: str, policy: Path, how: list[str]) -> None:
    """Measure the base model beside the trained one, and print the table."""
    measured, seconds = command(f"{name}-suites", "task=evaluate", f"task.model={policy}", *how)
    rows = result(measured)
    print(f"## {name}: both models in {seconds:.0f} s\n\n{table(rows)}\n")
    print(f"{sum(row['clusters'] < FEWEST for row in rows)} measures of fewer clusters are left out.\n", flush=True)


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
        few = ["measure.durability.prompts=20", "measure.durability.steps=[5,10]", "measure.durability.batch_size=4"]
        how = ["task=evaluate", f"task.model={aligned_smollm2()}", *SAFETY, f"evaluation.data={DATA}"]
        attacked, _ = command("smollm2-attacked", *how, "measure=[refusal,durability]", *few)
        show("dpo (SmolLM2, 1 seed, 20 prompts)", [curve(attacked)])


def show(name: str, curves: list[dict[str, tuple[float, float]]]) -> None:
    """Print mean curves with their range over seeds."""
    print(f"\n### {name}\n\n| steps | base model | aligned |\n|---|---|---|")
    for steps in curves[0]:
        columns = [[one[steps][side] for one in curves] for side in (0, 1)]
        cells = [f"{statistics.mean(one):.0%} ({min(one):.0%}–{max(one):.0%})" for one in columns]
        print(f"| {steps} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    for part in sys.argv[1:] or ["scratch", "pocket", "smollm2", "durability"]:
        match part:
            case "pocket":
                trained, _ = command("pocket-dpo", "method=dpo", *POCKET, "evaluation=none")
                before_and_after("pocket", trained / "outputs" / "latest", [*POCKET, *on_all()])
            case "scratch":
                few = ["stages.sft.max_steps=40", "method.max_steps=40", "method.max_length=256", "evaluation=none"]
                trained, _ = command("scratch-dpo", "method=dpo", *SCRATCH, *few)
                before_and_after("scratch", trained / "outputs" / "latest", [*SCRATCH, *on_all()])
            case "smollm2":
                before_and_after("smollm2", aligned_smollm2(), [*SAFETY, *on_smollm2()])
            case "durability":
                durability()
            case _:
                sys.exit(f"{part} is none of scratch, pocket, smollm2, durability")
