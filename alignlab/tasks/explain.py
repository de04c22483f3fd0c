"""Explain completions of a run token by token, and by their nearest training rows: `task=explain`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.chat import Turn
from alignlab.config.schema import Config
from alignlab.config.task import Explain
from alignlab.errors import mistake
from alignlab.pipeline.run_folder import read_result, read_samples, write_json

if TYPE_CHECKING:
    from alignlab.explanations.explain import Explained

EXPLANATIONS, PAGE = "explanations.json", "explanations.html"
WORST_BY = ("gold/score", "refusal/harmful_answered", "toxicity/rate", "reward/mean")  # the first that a stage has


def run(config: Config, folder: Path) -> None:
    """Explain a prompt, or the worst held-out ones; the last line printed is the page's path."""
    from alignlab.explanations.explain import explain
    from alignlab.explanations.rollouts import explain_rollouts
    from alignlab.pipeline import explained_stage
    from alignlab.reports.explanations_page import write_page

    settings = config.task
    assert isinstance(settings, Explain)
    place = settings.run
    if place is None or not place.is_dir():
        raise mistake("task.run", f"{place} is not there", "give a run's folder, such as outputs/latest")
    named = settings.scorer, settings.label, config.hardware, settings.rows, settings.neighbours
    models = explained_stage.load(place, settings.stage, *named)
    stage = settings.stage or explained_stage.policies(place)[-1]
    explained = [explain(models, *item) for item in chosen(settings, place / stage)]
    if settings.gradients:
        similar = explained_stage.gradient_neighbours(
            place, stage, explained, config.hardware, settings.rows, settings.neighbours
        )
        for item, nearest in zip(explained, similar, strict=False):
            item["explanations"].append(nearest)
    rollouts = explain_rollouts(place / stage)
    write_json(folder / EXPLANATIONS, {"run": str(place), "stage": stage, "items": explained, "rollouts": rollouts})
    for item in explained:
        print("\n".join(lines(item)))
    print(write_page(folder / PAGE, f"{place.resolve().name}, {stage}", explained, rollouts))


def chosen(settings: Explain, stage: Path) -> list[tuple[Sequence[Turn], str | None]]:
    """Return the prompts to explain and their completions; None is the likeliest one."""
    if settings.prompt is not None:
        return [([{"role": "user", "content": settings.prompt}], settings.completion)]
    samples = read_samples(stage)
    measure = settings.measure or next((name for name in WORST_BY if any(name in row["scores"] for row in samples)), "")
    scored = [row for row in samples if measure in row["scores"]]
    if not scored:
        raise mistake("task.measure", f"{stage} has no completions with {measure or 'a measure'}", "give task.prompt=…")
    lower_is_better = any(
        row["name"] == measure and row["better"] == "lower" for row in read_result(stage)["measurements"]
    )
    worst = sorted(scored, key=lambda row: row["scores"][measure], reverse=lower_is_better)[: settings.items]
    return [(row["prompt"], row["after"]["completion"]) for row in worst]


def lines(item: "Explained") -> list[str]:
    """Return an explained prompt as text: its strongest tokens, and its nearest rows."""
    shown = [f"{item['prompt'][-1]['content']} → {item['completion']}"]
    for each in item["explanations"]:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in each["figures"].items())
        if each.get("tracks"):
            values = list(zip(each["tracks"][0]["values"], each["tokens"], strict=True))
            top = sorted(values, key=lambda pair: -abs(pair[0]))[:5]
            figures += "; " + ", ".join(f"{text.strip()} {value:+.2f}" for value, text in top)
        if rows := each.get("neighbours"):
            text = " ".join(rows[0]["text"].split())[:80]
            figures += f"; {rows[0]['similarity']:.2f} {rows[0]['stage']}: {text}"
        shown.append(f"  {each['method']}: {figures}")
    return shown
