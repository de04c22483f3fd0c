"""AI labels: answers of a model, compared by a judge, as pairs with soft labels.

The model answers red-team prompts several times; the judge gives the probability that one answer is better than
another, under principles of a constitution. People's helpful pairs are added, as in the paper (arXiv 2212.08073), so
that the model stays useful. `labels.jsonl` keeps every verdict. `cai` learns from the labels by DPO, `cai_rm` trains a
reward model on them.
"""

import json
from collections.abc import Mapping, Sequence
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.config import schema
from alignlab.config.ai_labels import AILabels
from alignlab.constitutional.red_team import (
    draw_rows,
    most_red_team_prompts,
    red_team_prompts,
    rows_of_other_kinds,
)
from alignlab.errors import failure
from alignlab.judges import load_pair_judge
from alignlab.judges.protocol import Context, Item, Verdict, item_of, pairs
from alignlab.runtime import distributed, manifest
from alignlab.runtime.files import read_lines
from alignlab.runtime.run_files import LABELS
from alignlab.runtime.stage_run import Run

if TYPE_CHECKING:
    from datasets import Dataset

VIEW = "pairs"
Row = dict[str, Any]


def labelled_rows(run: "Run[Any]", policy: Path) -> "Mapping[tuple[str, str], Dataset]":
    """Return the pairs to learn from: AI labels on answers of the model in a folder, and people's helpful pairs."""
    from datasets import Dataset

    record = run.folder / LABELS
    if distributed.any_process(not manifest.is_sealed(record)):  # every process takes its share of the sampling
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in labelled(run, policy))
        distributed.run_on_first(lambda: manifest.write_sealed(record, lines))
    kept = [row for row in read_lines(record) if row["kept"]]
    if not kept:
        raise failure(str(record), "no two answers differ, so there is nothing to judge", "raise method.temperature")
    rows = [pair(row) for row in kept] + helpful_pairs(run.config, run.method, "train")
    validation = helpful_pairs(run.config, run.method, "validation")
    return {(VIEW, "train"): Dataset.from_list(rows), (VIEW, "validation"): Dataset.from_list(validation)}


def most_rows(settings: schema.Config, method: AILabels) -> int:
    """Return how many pairs there are to learn from if all answers differ."""
    compared = most_red_team_prompts(settings, method) * comb(method.samples, 2)
    return round(method.keep * compared) + len(helpful_pairs(settings, method, "train"))


def labelled(run: "Run[Any]", policy: Path) -> list[Row]:
    """Return a row for every two different answers to a prompt, with the judge's verdict.

    `likelier` is the log-probability of the first answer less that of the second by the judge model, in nats; `kept`
    says whether the label is among the surest, from which the model learns.
    """
    from alignlab.models.load import load_policy
    from alignlab.models.log_probs import summed_log_probs

    method = run.method
    rows, items = compared(run, policy)
    model, tokenizer = load_policy(run.inputs["judge_model"], run.config.hardware)
    verdicts = judged(run, items, (model, tokenizer))
    prompts = [item.prompt for item in items]
    log_probs = [
        summed_log_probs(model, tokenizer, prompts, [item.answers[place] for item in items], method.sampling_batch_size)
        for place in (0, 1)
    ]
    labels = [
        {**row, "first": item.answers[0], "second": item.answers[1], "finished": item.finished}
        | {"principle": item.principle.name}
        | {"verdict": verdict._asdict(), "likelier": first_log_prob - second_log_prob}
        for row, item, verdict, first_log_prob, second_log_prob in zip(rows, items, verdicts, *log_probs, strict=True)
        if verdict is not None and item.principle is not None
    ]
    kept = surest([row["verdict"]["label"] for row in labels], method.keep)
    return [{**row, "kept": place in kept} for place, row in enumerate(labels)]


def judged(run: "Run[Any]", items: list[Item], model: Any) -> "Sequence[Verdict | None]":
    """Return the judge's verdicts; those of a server that reasons are clamped, since it is sure of everything."""
    method = run.method
    context = Context(run.config.seed, run.config.hardware, run.inputs, method.constitution, model=model)
    verdicts = load_pair_judge(method.judge, context).compare(items, run.folder / "judged.jsonl")
    if method.judge.server is None:
        return verdicts
    return [verdict and verdict.clamped(*method.reasoned) for verdict in verdicts]


def compared(run: "Run[Any]", policy: Path) -> tuple[list[Row], list[Item]]:
    """Return one item for every two different answers to a prompt, under a principle, and its prompt's row."""
    from alignlab.models.answers import different, sample_several_shared
    from alignlab.models.load import load_policy
    from alignlab.models.sampling import Sampling, sample

    method, seed = run.method, 1000 * (run.config.seed + 1)
    sampling = Sampling(method.temperature, method.top_p, method.max_new_tokens, method.sampling_batch_size)
    judge_model = load_policy(run.inputs["judge_model"], run.config.hardware)
    rows = red_team_prompts(run.config, method, lambda requests: sample(*judge_model, requests, sampling, seed + 999))
    drawn = sample_several_shared(
        *load_policy(policy, run.config.hardware),
        [row["prompt"] for row in rows],
        method.samples,
        sampling,
        key=lambda place, number: (seed + number, place),
    )
    answered = [(row, item_of("", row["prompt"], different(texts))) for row, texts in zip(rows, drawn, strict=True)]
    split = [(row, pair) for row, item in answered for pair in pairs(item).values()]
    principles = method.constitution.draw(len(split), f"{run.config.seed} labels")
    items = [
        pair._replace(id=f"label {place}", principle=principle)
        for place, ((_, pair), principle) in enumerate(zip(split, principles, strict=True))
    ]
    return [{name: row[name] for name in ("id", "kind", "prompt") if name in row} for row, _ in split], items


def surest(labels: Sequence[float], share: float) -> set[int]:
    """Return the places of the share of the labels that is farthest from 0.5."""
    ranked = sorted(range(len(labels)), key=lambda place: -abs(labels[place] - 0.5))
    return set(ranked[: round(share * len(labels))])


def pair(row: Row) -> Row:
    """Return a verdict as a pair: the better answer is the chosen one, the label its probability."""
    label = row["verdict"]["label"]
    answers = list(zip((row["first"], row["second"]), row["finished"], strict=True))
    (chosen, chosen_finished), (rejected, rejected_finished) = answers if label >= 0.5 else answers[::-1]
    return {
        "prompt": row["prompt"],
        "chosen": chosen,
        "rejected": rejected,
        "chosen_finished": chosen_finished,
        "rejected_finished": rejected_finished,
        "label": max(label, 1 - label),
        "model": True,
    }


def helpful_pairs(settings: schema.Config, method: AILabels, split: str) -> list[Row]:
    """Draw at most `helpful` of people's pairs whose prompts are of no red-team kind; their labels are 1."""
    rows = draw_rows(rows_of_other_kinds(settings, method, VIEW, split), method.helpful, settings.seed)
    kept = ("prompt", "chosen", "rejected")
    ends = ("chosen_finished", "rejected_finished")
    return [
        {name: row[name] for name in kept}
        | {name: row.get(name, True) for name in ends}
        | {"label": 1.0, "model": False}
        for row in rows
    ]
