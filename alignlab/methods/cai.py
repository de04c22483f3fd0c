"""Constitutional AI, the preference phase: reinforcement learning from AI feedback (arXiv 2212.08073), by DPO.

The model of the supervised phase answers red-team prompts several times; a judge says, under a principle drawn at
random, how probably one answer is better than another; these probabilities are the labels, soft as they are. People's
helpful pairs stand beside them, as in the paper, so that the model stays useful. `labels.jsonl` keeps every verdict.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from alignlab import config, processes
from alignlab.config import Count, Names, Positive
from alignlab.constitution import Constitution
from alignlab.errors import Fault, failure
from alignlab.files import write_text
from alignlab.judges.local import Judge
from alignlab.methods import dpo
from alignlab.methods.cai_sft import by_lot, read, red_team
from alignlab.run import Run

if TYPE_CHECKING:
    from alignlab.judges.local import Item

VIEW = "pairs"
NEEDS = {"policy": "cai_sft", "judge_model": ""}
ROLES = ("policy", "reference")
RECORD = "labels.jsonl"


class Config(dpo.Config):
    """Settings of `conf/method/cai.yaml`."""

    constitution: Constitution
    judge: Judge
    judge_model: str
    red_team: Annotated[Names | None, Field(strict=False)]
    prompts: Count
    samples: Annotated[int, Field(ge=2)]
    temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_new_tokens: Count
    sampling_batch_size: Count
    helpful: Annotated[int, Field(ge=0)]

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if self.judge_model == "auto":
            yield Fault("judge_model", "no stage makes a judge", "use base or a path")


def train(run: Run[Config]) -> None:
    """Label the policy's own answers, then optimise it on the labels and on people's helpful pairs."""
    from datasets import Dataset

    record = run.folder / RECORD
    if processes.any_of(not record.exists()):  # what is drawn is shared out, and all processes have it
        said = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in labelled(run))
        processes.by_first(lambda: write_text(record, said))
    kept = surest(read(record), run.method.judge.keep)
    if not kept:
        raise failure(str(record), "no two answers differ, so there is nothing to judge", "raise method.temperature")
    rows = [pair(row) for row in kept] + helpful_pairs(run.config, run.method, "train")
    validation = helpful_pairs(run.config, run.method, "validation")
    made = {(VIEW, "train"): Dataset.from_list(rows), (VIEW, "validation"): Dataset.from_list(validation)}
    dpo.train(replace(run, rows=made))


def labelled(run: Run[Config]) -> list[dict[str, Any]]:
    """Every two different answers to a prompt, with the judge's verdict."""
    from alignlab.judges.local import verdicts
    from alignlab.models import load_policy

    method = run.method
    rows, items = compared(run)
    model, tokenizer = load_policy(run.inputs["judge_model"], run.config.hardware)
    found = verdicts(model, tokenizer, items, method.constitution, method.judge)
    return [
        {**row, "first": item.first, "second": item.second, "principle": item.principle.name, "verdict": said._asdict()}
        for row, item, said in zip(rows, items, found, strict=True)
    ]


def compared(run: Run[Config]) -> "tuple[list[dict[str, Any]], list[Item]]":
    """What is to be judged: each prompt's row once for every two of its answers that differ."""
    from alignlab.judges.local import Item
    from alignlab.models import load_policy
    from alignlab.rollouts import Sampling, sample

    method, seed = run.method, run.config.seed
    prompts = red_team(run.config, method.red_team, method.prompts)
    model, tokenizer = load_policy(run.inputs["policy"], run.config.hardware)
    drawing = Sampling(method.temperature, method.top_p, method.max_new_tokens, method.sampling_batch_size)
    asked = [row["prompt"] for row in prompts]
    drawn = [sample(model, tokenizer, asked, drawing, 1000 * (seed + 1) + number) for number in range(method.samples)]
    texts = [list(dict.fromkeys(answer.text for answer in answers)) for answers in zip(*drawn, strict=True)]
    both = [(row, *two) for row, found in zip(prompts, texts, strict=True) for two in combinations(found, 2)]
    principles = method.constitution.drawn(len(both), f"{seed} labels")
    items = [
        Item(row["prompt"], first, second, principle)
        for (row, first, second), principle in zip(both, principles, strict=True)
    ]
    return [{name: row[name] for name in ("id", "kind", "prompt") if name in row} for row, *_ in both], items


def surest(rows: list[dict[str, Any]], share: float) -> list[dict[str, Any]]:
    """The share of the verdicts that is farthest from even odds, in the order in which they stand."""
    ranked = sorted(range(len(rows)), key=lambda place: -abs(rows[place]["verdict"]["label"] - 0.5))
    return [rows[place] for place in sorted(ranked[: round(share * len(rows))])]


def pair(row: dict[str, Any]) -> dict[str, Any]:
    """A verdict as a pair: the likelier answer is the chosen one, the label its probability."""
    first, label = row["first"], row["verdict"]["label"]
    chosen, rejected = (first, row["second"]) if label >= 0.5 else (row["second"], first)
    return {"prompt": row["prompt"], "chosen": chosen, "rejected": rejected, "label": max(label, 1 - label)}


def helpful_pairs(settings: config.Config, method: Config, split: str) -> list[dict[str, Any]]:
    """At most `helpful` pairs of the other kinds from the data set, by lot; people are taken at their word."""
    from alignlab.data import view

    rows = view(settings.dataset, VIEW, split)
    kinds = method.red_team if "kind" in rows.column_names else None
    found = by_lot([row for row in rows if not kinds or row["kind"] not in kinds], method.helpful, settings.seed)
    return [{name: row[name] for name in ("prompt", "chosen", "rejected")} | {"label": 1.0} for row in found]


def measure_data(stage: Path, settings: config.Config) -> list[dict[str, Any]]:
    """How far the judge's labels can be trusted, by the world's truth where there is one."""
    from alignlab.evaluation.constitutional import measure_labels

    return measure_labels(read(stage / RECORD), settings)
