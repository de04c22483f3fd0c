"""Constitutional AI, the supervised phase: learn one's own answers, revised under a constitution (arXiv 2212.08073).

The base model answers red-team prompts, criticises each answer under a principle drawn at random and writes it again,
for some rounds; where a judge likes a revision less than what it revises, the latter stays. What passes the filters is
learned together with helpful demonstrations, without which a model would refuse everything. `revisions.jsonl` keeps
every step: prompt, principle, critique, revision, and which filter dropped what. With `rounds=0` nothing is revised,
and the helpful demonstrations alone are learned.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from alignlab.config import schema
from alignlab.config.constitution import Constitution
from alignlab.config.judge import FeedbackJudge, OpenaiJudge
from alignlab.config.settings import Count, NotNegative, Positive
from alignlab.constitutional.ai_labels import RedTeam, attacks, by_lot, most_attacks
from alignlab.errors import Fault, failure
from alignlab.methods import sft
from alignlab.runtime import distributed
from alignlab.runtime.files import read_lines, write_text
from alignlab.runtime.run_files import REVISIONS
from alignlab.runtime.stage_run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from alignlab.chat import Turn
    from alignlab.constitutional.critique import Revised
    from alignlab.judges.model_logprobs import Item
    from alignlab.models.sampling import Completion

VIEW = "demonstrations"
NEEDS = {"critic": ""}
ROLES = ("policy",)


class Config(sft.Config, RedTeam):
    """Settings of `conf/method/cai_sft.yaml`."""

    constitution: Constitution
    critic: str
    rounds: Annotated[int, Field(ge=0)]
    accept: Literal["all", "liked"]
    judge: FeedbackJudge
    critic_server: bool
    temperature: Positive
    critique_temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_new_tokens: Count
    sampling_batch_size: Count
    off_topic: NotNegative
    helpful: Annotated[int, Field(ge=0)]

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        yield from RedTeam.faults(self)
        if self.critic == "auto":
            yield Fault("critic", "no stage makes a critic", "use base or a path")
        if self.critic_server and not isinstance(self.judge, OpenaiJudge):
            yield Fault("critic_server", f"judge={self.judge.kind} has no server", "use judge=openai")
        if not self.rounds and not self.helpful:
            yield Fault("rounds", "no revisions and no helpful demonstrations leave nothing to learn", "set rounds=2")


def train(run: Run[Config]) -> None:
    """Revise answers, then fine-tune `run.inputs["policy"]` on them and on helpful demonstrations."""
    from datasets import Dataset

    from alignlab.data import view
    from alignlab.data.revisions import revised_answer

    record = run.folder / REVISIONS
    if distributed.any_of(not record.exists()):  # what is drawn is shared out, and all processes have it
        said = "".join(json.dumps(item.record(), ensure_ascii=False) + "\n" for item in revised(run))
        distributed.by_first(lambda: write_text(record, said))
    kept = [row for row in read_lines(record) if not row["dropped"]]
    if run.method.rounds and not kept:
        raise failure(str(record), "the filters have dropped every revision", "see there why; or ask otherwise")
    rows = [{"prompt": row["prompt"], "completion": revised_answer(row), "model": True} for row in kept]
    shown = helpful(run.config, run.method)
    rows += [{"prompt": row["prompt"], "completion": row["completion"], "model": False} for row in shown]
    validation = view(run.config.dataset, VIEW, "validation").select_columns(["prompt", "completion"])
    made = {(VIEW, "train"): Dataset.from_list(rows), (VIEW, "validation"): validation}
    sft.train(replace(run, rows=made))


def most_rows(settings: schema.Config, method: Config) -> int:
    """How many rows there are to learn from where no filter drops any."""
    asked = most_attacks(settings, method) if method.rounds else 0
    return asked + len(helpful(settings, method))


def revised(run: Run[Config]) -> "list[Revised]":
    """Answer the red-team prompts with the policy; criticise, revise and filter with the critic."""
    from alignlab.constitutional.critique import Critic
    from alignlab.constitutional.server_judge import writer
    from alignlab.models.load import load_policy
    from alignlab.models.sampling import Sampling, sample

    method, seed = run.method, run.config.seed
    if not method.rounds:
        return []
    drawing = Sampling(method.temperature, method.top_p, method.max_new_tokens, method.sampling_batch_size)
    model, tokenizer = load_policy(run.inputs["critic"], run.config.hardware)
    written = writer(method.judge) if method.critic_server and isinstance(method.judge, OpenaiJudge) else None

    def say(requests: "Sequence[Sequence[Turn]]") -> "list[Completion]":
        return written(requests) if written else sample(model, tokenizer, requests, drawing, 1000 * (seed + 1) + 999)

    rows = attacks(run.config, method, say)
    answers = sample(
        *load_policy(run.inputs["policy"], run.config.hardware), [row["prompt"] for row in rows], drawing, seed
    )
    critic = Critic(
        model,
        tokenizer,
        method.constitution,
        drawing._replace(temperature=method.critique_temperature),
        seed,
        liking(run, model, tokenizer) if method.accept == "liked" else None,
        written,
    )
    return critic.filtered(critic.revise(rows, answers, method.rounds), method.off_topic)


def liking(run: Run[Config], model: Any, tokenizer: Any) -> "Callable[[Sequence[Item], str], list[bool]]":
    """What says of pairs whether the first answer is liked no less, by this model or by a server."""
    from alignlab.constitutional.server_judge import Principled, liked
    from alignlab.judges.model_logprobs import verdicts

    method, judge = run.method, run.method.judge
    if isinstance(judge, OpenaiJudge):
        return liked(Principled(judge, method.constitution, run.config.seed), run.folder / "liked.jsonl")
    return lambda pairs, _: [
        said.label >= 0.5 for said in verdicts(model, tokenizer, pairs, method.constitution, judge)
    ]


def helpful(settings: schema.Config, method: Config) -> list[dict[str, Any]]:
    """At most `helpful` demonstrations of the other kinds, by lot."""
    from alignlab.data import view

    rows = view(settings.dataset, VIEW, "train")
    kinds = method.red_team if "kind" in rows.column_names else None
    return by_lot([row for row in rows if not kinds or row["kind"] not in kinds], method.helpful, settings.seed)
