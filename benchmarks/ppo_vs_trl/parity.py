"""Hold what alignlab's PPO earns against what trl 1.12.0's earns at the same distance from the reference.

    make bench-ppo-parity

On pocket: the SFT policy, a reward model with the standard head, and the same settings for both (one minibatch, no
accumulation, constant learning rate, no clipping of gradients), five seeds each. A run's curve is its score over its
KL, both smoothed over a few updates; curves are read at common values of the KL, by interpolation, and what is compared
is the score at the largest KL that every run has reached. Scores bear the penalty for a missing end on both sides.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sides import Asked
from speed import SIDES, TITLES, run

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from equal_kl import at, common, curve, difference  # noqa: E402

CURVES = HERE / "curves.json"
SEEDS = range(5)
BUILT = 100  # the seed of policy and reward model


def asked(folder: Path) -> Asked:
    """The work of the comparison: builds policy and reward model, and writes the prompts down."""
    built = [
        alignlab(folder / name, f"method={name}", *more) for name, more in (("sft", ()), ("rm", ["method.head=last"]))
    ]
    from alignlab.chat import encode_prompt
    from alignlab.config.compose import bind_tree, check
    from alignlab.data import view
    from alignlab.models.load import load_trainable

    settings = bind_tree(check(["method=ppo"], binds=False).trees[0])
    tokenizer = load_trainable(built[0], settings.hardware, 0.0)[1]
    ids = [encode_prompt(tokenizer, row["prompt"]) for row in view(settings.dataset, "prompts", "train")]
    (folder / "prompts.json").write_text(json.dumps(ids), encoding="utf-8")
    return Asked(
        str(built[0]), str(built[1]), str(folder / "prompts.json"), None, batch_size=64, epochs=4, updates=30,
        learning_rate=3e-4, kl_coef=0.1, missing_eos_penalty=1.0, ends=True, threads=1,
    )  # fmt: skip


def alignlab(folder: Path, *words: str) -> Path:
    """Run a stage on pocket; gives its model."""
    named = [*words, f"seed={BUILT}", "evaluation=none", "tracking=jsonl", f"hydra.run.dir={folder}"]
    done = subprocess.run([sys.executable, "-m", "alignlab", *named], cwd=folder.parent, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return folder / folder.name / "model"


def draw() -> None:
    """Run all sides with all seeds in turns, and keep the curves."""
    kept: dict[str, list[list[dict[str, float]]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as name:
        work = asked(Path(name))
        for seed in SEEDS:
            for side in SIDES:
                told = run(side, work._replace(seed=seed, value="shared" if side == "shared" else "separate"))
                kept[side].append(told.rows)
                print(f"seed {seed}: {side} ends at {told.rows[-1]}", flush=True)
                CURVES.write_text(json.dumps(kept), encoding="utf-8")


def table(kept: dict[str, list[list[dict[str, float]]]]) -> Iterator[str]:
    """The score at common values of the KL, and the differences from trl's at the largest."""
    curves = {side: [curve(rows) for rows in runs] for side, runs in kept.items()}
    grid = common(curves)
    yield f"| KL, nats a completion | {' | '.join(TITLES[side] for side in SIDES)} |"
    yield "|---|" + "---|" * len(SIDES)
    for kl in grid:
        means = [statistics.fmean(at(one, kl) for one in curves[side]) for side in SIDES]
        yield f"| {kl:.2f} | {' | '.join(f'{mean:.3f}' for mean in means)} |"
    yield ""
    theirs = [at(one, grid[-1]) for one in curves["trl"]]
    for side in SIDES[1:]:
        found = difference([at(one, grid[-1]) for one in curves[side]], theirs)
        met = "met" if found.high >= 0 else "**not met**"
        shown = f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
        yield f"- {met}: at {grid[-1]:.2f} nats {TITLES[side]} earns no less than trl; difference {shown}"


def picture(kept: dict[str, list[list[dict[str, float]]]], file: Path) -> None:
    """Draw every run's curve."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for side, colour in zip(SIDES, ("#888888", "#1f6fb4", "#d1652a"), strict=True):
        for number, rows in enumerate(kept[side]):
            one = curve(rows)
            axes.plot(
                one.kl, one.score, color=colour, alpha=0.8, label=None if number else TITLES[side].replace("`", "")
            )
    axes.set_xlabel("KL to the reference, nats a completion")
    axes.set_ylabel("score of the reward model")
    axes.legend(frameon=False)
    figure.savefig(file, dpi=110)


def measure() -> Iterator[str]:
    """The comparison as lines of Markdown, from the curves that are kept."""
    kept = json.loads(CURVES.read_text(encoding="utf-8"))
    picture(kept, HERE / "parity.png")
    yield "`make bench-ppo-parity`: pocket's SFT policy and a reward model with the standard head (`method.head=last`),"
    yield "five seeds a side; 64 completions an update in one minibatch, four epochs, 30 updates, learning rate 3e-4,"
    yield "KL weight 0.1, scores as they are, nothing clipped but PPO's own ratios. Curves: `ppo_vs_trl/curves.json`,"
    yield "`ppo_vs_trl/parity.png`. alignlab's value head starts at zero, trl's as the reward's; trl reads the reward"
    yield "at the last token, alignlab at the end of the turn, which differ on completions that have no end."
    yield ""
    yield from table(kept)


if __name__ == "__main__":
    draw()
    print("\n".join(measure()))
