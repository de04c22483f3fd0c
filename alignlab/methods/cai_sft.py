"""Constitutional AI, the supervised phase: learn one's own answers, revised under a constitution (arXiv 2212.08073).

The base model answers red-team prompts, criticises each answer under a principle drawn at random and writes it again,
for some rounds. What passes the filters is learned together with helpful demonstrations, without which a model would
refuse everything. `revisions.jsonl` keeps every step: prompt, principle, critique, revision, and which filter dropped
what. With `rounds=0` nothing is revised, and the helpful demonstrations alone are learned.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from alignlab import config, processes
from alignlab.config import Count, Names, NotNegative, Positive
from alignlab.constitution import Constitution
from alignlab.errors import Fault, failure
from alignlab.files import write_text
from alignlab.methods import sft
from alignlab.run import Run

if TYPE_CHECKING:
    from alignlab.critique import Revised

VIEW = "demonstrations"
NEEDS = {"critic": ""}
ROLES = ("policy",)
RECORD = "revisions.jsonl"


class Config(sft.Config):
    """Settings of `conf/method/cai_sft.yaml`."""

    constitution: Constitution
    critic: str
    red_team: Annotated[Names | None, Field(strict=False)]
    prompts: Count
    rounds: Annotated[int, Field(ge=0)]
    temperature: Positive
    critique_temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_new_tokens: Count
    sampling_batch_size: Count
    off_topic: NotNegative
    helpful: Annotated[int, Field(ge=0)]

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if self.critic == "auto":
            yield Fault("critic", "no stage makes a critic", "use base or a path")
        if not self.rounds and not self.helpful:
            yield Fault("rounds", "no revisions and no helpful demonstrations leave nothing to learn", "set rounds=2")


def train(run: Run[Config]) -> None:
    """Revise answers, then fine-tune `run.inputs["policy"]` on them and on helpful demonstrations."""
    from datasets import Dataset

    from alignlab.data import view

    record = run.folder / RECORD
    if processes.any_of(not record.exists()):  # what is drawn is shared out, and all processes have it
        said = "".join(json.dumps(item.record(), ensure_ascii=False) + "\n" for item in revised(run))
        processes.by_first(lambda: write_text(record, said))
    kept = [row for row in read(record) if not row["dropped"]]
    if run.method.rounds and not kept:
        raise failure(str(record), "the filters have dropped every revision", "see there why; or ask otherwise")
    rows = [{"prompt": row["prompt"], "completion": row["steps"][-1]["revision"]} for row in kept]
    rows += [{"prompt": row["prompt"], "completion": row["completion"]} for row in helpful(run.config, run.method)]
    validation = view(run.config.dataset, VIEW, "validation").select_columns(["prompt", "completion"])
    made = {(VIEW, "train"): Dataset.from_list(rows), (VIEW, "validation"): validation}
    sft.train(replace(run, rows=made))


def revised(run: Run[Config]) -> "list[Revised]":
    """Answer the red-team prompts with the policy; criticise, revise and filter with the critic."""
    from alignlab.critique import Critic
    from alignlab.models import load_policy
    from alignlab.rollouts import Sampling, sample

    method, seed = run.method, run.config.seed
    rows = red_team(run.config, method.red_team, method.prompts) if method.rounds else []
    drawing = Sampling(method.temperature, method.top_p, method.max_new_tokens, method.sampling_batch_size)
    answers = sample(
        *load_policy(run.inputs["policy"], run.config.hardware), [row["prompt"] for row in rows], drawing, seed
    )
    critic = Critic(
        *load_policy(run.inputs["critic"], run.config.hardware),
        method.constitution,
        drawing._replace(temperature=method.critique_temperature),
        seed,
    )
    return critic.filtered(critic.revise(rows, answers, method.rounds), method.off_topic) if rows else []


def red_team(settings: config.Config, kinds: Sequence[str] | None, count: int) -> list[dict[str, Any]]:
    """At most `count` training prompts of these kinds, by lot; of all kinds where rows have none or none is named."""
    from alignlab.data import view

    rows = view(settings.dataset, "prompts", "train")
    known = "kind" in rows.column_names
    found = [row for row in rows if not (kinds and known) or row["kind"] in kinds]
    if kinds and not found:
        raise failure("method.red_team", f"no prompt is of the kinds {', '.join(kinds)}", "null takes all prompts")
    return by_lot(found, count, settings.seed)


def helpful(settings: config.Config, method: Config) -> list[dict[str, Any]]:
    """At most `helpful` demonstrations of the other kinds, by lot."""
    from alignlab.data import view

    rows = view(settings.dataset, VIEW, "train")
    kinds = method.red_team if "kind" in rows.column_names else None
    return by_lot([row for row in rows if not kinds or row["kind"] not in kinds], method.helpful, settings.seed)


def by_lot(rows: list[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """At most `count` rows, drawn by the seed, in the order in which they stand."""
    from random import Random

    places = Random(seed).sample(range(len(rows)), min(count, len(rows)))
    return [rows[place] for place in sorted(places)]


def read(record: Path) -> list[dict[str, Any]]:
    """The lines of a record."""
    return [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]


def measure_data(stage: Path, settings: config.Config) -> list[dict[str, Any]]:
    """What the data is like after each round, by the world's truth where there is one."""
    from alignlab.evaluation.constitutional import measure_revisions

    return measure_revisions(read(stage / RECORD), settings)
