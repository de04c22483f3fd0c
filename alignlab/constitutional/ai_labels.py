"""AI feedback: a model's own answers, and a judge's word on every two of them, as labels that are soft as they are.

The model answers red-team prompts several times; a judge says, under principles of a constitution, how probably one
answer is better than another. People's helpful pairs stand beside these labels, as in the paper (arXiv 2212.08073), so
that what learns from them stays useful. `labels.jsonl` keeps every verdict. `cai` learns from the labels by DPO, and
`cai_rm` makes a reward model of them.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from alignlab.config import schema
from alignlab.config.constitution import Constitution
from alignlab.config.judge import FeedbackJudge, OpenaiJudge
from alignlab.config.settings import Count, Names, Positive, Settings, Share
from alignlab.errors import Fault, failure
from alignlab.runtime import distributed
from alignlab.runtime.files import digest, read_lines, write_text
from alignlab.runtime.run_files import LABELS
from alignlab.runtime.stage_run import Run

if TYPE_CHECKING:
    from datasets import Dataset

    from alignlab.chat import Turn
    from alignlab.judges.model_logprobs import Item, Verdict
    from alignlab.models.sampling import Completion

VIEW = "pairs"


Bounds = Annotated[tuple[Share, Share], Field(strict=False)]


class RedTeam(Settings):
    """Where red-team prompts come from: the data set, or a model that writes them about topics."""

    red_team: Annotated[Names | None, Field(strict=False)]
    prompts: Count
    topics: Names
    topic_request: str

    def faults(self) -> Iterator[Fault]:
        if self.topics and "{topic}" not in self.topic_request:
            yield Fault("topic_request", "has no place for a topic", "write {topic} where it belongs")


class Labels(RedTeam):
    """Settings of `conf/method/_labels.yaml`."""

    constitution: Constitution
    judge: FeedbackJudge
    reasoned: Bounds
    keep: Annotated[float, Field(gt=0, le=1)]
    judge_model: str
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


def labelled_rows(run: "Run[Any]", policy: Path) -> "Mapping[tuple[str, str], Dataset]":
    """The pairs to learn from: labels on answers of the model in a folder, and people's helpful pairs."""
    from datasets import Dataset

    record = run.folder / LABELS
    if distributed.any_of(not record.exists()):  # what is drawn is shared out, and all processes have it
        said = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in labelled(run, policy))
        distributed.by_first(lambda: write_text(record, said))
    kept = [row for row in read_lines(record) if row["kept"]]
    if not kept:
        raise failure(str(record), "no two answers differ, so there is nothing to judge", "raise method.temperature")
    rows = [pair(row) for row in kept] + helpful_pairs(run.config, run.method, "train")
    validation = helpful_pairs(run.config, run.method, "validation")
    return {(VIEW, "train"): Dataset.from_list(rows), (VIEW, "validation"): Dataset.from_list(validation)}


def most_rows(settings: schema.Config, method: Labels) -> int:
    """How many pairs there are to learn from where all answers differ."""
    asked = most_attacks(settings, method) * comb(method.samples, 2)
    return round(method.keep * asked) + len(helpful_pairs(settings, method, "train"))


def labelled(run: "Run[Any]", policy: Path) -> list[dict[str, Any]]:
    """Every two different answers to a prompt, with the judge's verdict.

    `likelier` says how much sooner the judge's own model would give the first answer, in nats; `kept` whether the
    label is among the surest, from which the model learns.
    """
    from alignlab.models.load import load_policy
    from alignlab.models.log_probs import summed_log_probs

    method = run.method
    rows, items = compared(run, policy)
    model, tokenizer = load_policy(run.inputs["judge_model"], run.config.hardware)
    found = judged(run, model, tokenizer, items)
    asked = [item.prompt for item in items]
    own, other = (
        summed_log_probs(model, tokenizer, asked, texts, method.sampling_batch_size)
        for texts in ([item.first for item in items], [item.second for item in items])
    )
    named = [
        {**row, "first": item.first, "second": item.second, "principle": item.principle.name}
        | {"verdict": said._asdict(), "likelier": mine - theirs}
        for row, item, said, mine, theirs in zip(rows, items, found, own, other, strict=True)
        if said is not None
    ]
    kept = surest([row["verdict"]["label"] for row in named], method.keep)
    return [{**row, "kept": place in kept} for place, row in enumerate(named)]


def judged(run: "Run[Any]", model: Any, tokenizer: Any, items: "list[Item]") -> "Sequence[Verdict | None]":
    """The judge's verdicts: this model's, or those of one behind a server; None where that gave no sense."""
    from alignlab.judges.model_logprobs import verdicts

    method = run.method
    if isinstance(method.judge, OpenaiJudge):
        from alignlab.constitutional import server_judge

        judge, asks = (
            server_judge.Principled(method.judge, method.constitution, run.config.seed),
            distributed.is_first(),
        )
        record = run.folder / "judged.jsonl"
        found = server_judge.verdicts(judge, items, method.reasoned, record, "label") if asks else []
        return distributed.gathered(found)[0]
    return verdicts(model, tokenizer, items, method.constitution, method.judge)


def compared(run: "Run[Any]", policy: Path) -> "tuple[list[dict[str, Any]], list[Item]]":
    """What is to be judged: each prompt's row once for every two of its answers that differ."""
    from alignlab.judges.model_logprobs import Item
    from alignlab.models.load import load_policy
    from alignlab.models.sampling import Sampling, sample

    method, seed = run.method, run.config.seed
    drawing = Sampling(method.temperature, method.top_p, method.max_new_tokens, method.sampling_batch_size)
    critic = load_policy(run.inputs["judge_model"], run.config.hardware)
    prompts = attacks(run.config, method, lambda requests: sample(*critic, requests, drawing, 1000 * (seed + 1) + 999))
    model, tokenizer = load_policy(policy, run.config.hardware)
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


def surest(labels: Sequence[float], share: float) -> set[int]:
    """The places of the share of the labels that is farthest from even odds."""
    ranked = sorted(range(len(labels)), key=lambda place: -abs(labels[place] - 0.5))
    return set(ranked[: round(share * len(labels))])


def pair(row: dict[str, Any]) -> dict[str, Any]:
    """A verdict as a pair: the likelier answer is the chosen one, the label its probability."""
    first, label = row["first"], row["verdict"]["label"]
    chosen, rejected = (first, row["second"]) if label >= 0.5 else (row["second"], first)
    return {
        "prompt": row["prompt"],
        "chosen": chosen,
        "rejected": rejected,
        "label": max(label, 1 - label),
        "model": True,
    }


def helpful_pairs(settings: schema.Config, method: Labels, split: str) -> list[dict[str, Any]]:
    """At most `helpful` pairs of the other kinds from the data set, by lot; people are taken at their word."""
    from alignlab.data import view

    rows = view(settings.dataset, VIEW, split)
    kinds = method.red_team if "kind" in rows.column_names else None
    found = by_lot([row for row in rows if not kinds or row["kind"] not in kinds], method.helpful, settings.seed)
    kept = ("prompt", "chosen", "rejected")
    return [{name: row[name] for name in kept} | {"label": 1.0, "model": False} for row in found]


def attacks(
    settings: schema.Config, method: RedTeam, say: "Callable[[Sequence[Sequence[Turn]]], Sequence[Completion]]"
) -> list[dict[str, Any]]:
    """The red-team prompts: those of the data set, or what a model writes about topics, in turns; each text once."""
    if not method.topics:
        return red_team(settings, method.red_team, method.prompts)
    topics = [method.topics[number % len(method.topics)] for number in range(method.prompts)]
    requests: list[list[Turn]] = [
        [{"role": "user", "content": method.topic_request.replace("{topic}", topic)}] for topic in topics
    ]
    told: dict[str, str] = {}
    for one, topic in zip(say(requests), topics, strict=True):
        if one.finished and one.text:
            told.setdefault(one.text, topic)
    if not told:
        raise failure("method.topics", "the model has written no prompt to its end", "see topic_request and the model")
    return [
        {"id": digest(text), "kind": topic, "prompt": [{"role": "user", "content": text}]}
        for text, topic in told.items()
    ]


def most_attacks(settings: schema.Config, method: RedTeam) -> int:
    """How many red-team prompts there are, at most."""
    return method.prompts if method.topics else len(red_team(settings, method.red_team, method.prompts))


def red_team(settings: schema.Config, kinds: Sequence[str] | None, count: int) -> list[dict[str, Any]]:
    """At most `count` training prompts of these kinds, by lot; of all kinds where rows have none or none is named."""
    from alignlab.data import view

    rows = view(settings.dataset, "prompts", "train")
    known = "kind" in rows.column_names
    found = [row for row in rows if not (kinds and known) or row["kind"] in kinds]
    if kinds and not found:
        raise failure("method.red_team", f"no prompt is of the kinds {', '.join(kinds)}", "null takes all prompts")
    return by_lot(found, count, settings.seed)


def by_lot(rows: list[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """At most `count` rows, drawn by the seed, in the order in which they stand."""
    from random import Random

    places = Random(seed).sample(range(len(rows)), min(count, len(rows)))
    return [rows[place] for place in sorted(places)]
