"""Constitutional AI, the supervised phase: learn one's own answers, revised under a constitution (arXiv 2212.08073).

The base model answers red-team prompts, criticises each answer under a principle drawn at random and revises it, for
some rounds; a revision that the judge likes less than what it revises is not accepted. The answers that pass the
filters are learned together with helpful demonstrations, without which the model would refuse everything.
`revisions.jsonl` keeps every step: prompt, principle, critique, revision, and the filter that dropped it. With
`rounds=0` the helpful demonstrations alone are learned.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from alignlab.config import schema
from alignlab.config.ai_labels import RedTeam
from alignlab.config.constitution import Constitution
from alignlab.config.judge import PairJudge
from alignlab.config.settings import Count, NotNegative, Positive, Reference
from alignlab.constitutional.red_team import draw_rows, most_red_team_prompts, red_team_prompts, rows_of_other_kinds
from alignlab.errors import Fault, failure
from alignlab.methods import sft
from alignlab.runtime import distributed, manifest
from alignlab.runtime.run_files import REVISIONS, read_revisions
from alignlab.runtime.stage_run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from alignlab.chat import Turn
    from alignlab.constitutional.critique import Revised
    from alignlab.judges.protocol import Item
    from alignlab.models.sampling import Completion

VIEW = "demonstrations"
NEEDS = {"critic": ""}
ROLES = ("policy",)


class Config(sft.Config, RedTeam):
    """Settings of `conf/method/cai_sft.yaml`."""

    constitution: Constitution
    critic: Reference
    rounds: Annotated[int, Field(ge=0)]
    accept: Literal["all", "liked"]
    judge: PairJudge
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
        if self.critic_server and self.judge.server is None:
            yield Fault("critic_server", f"judge={self.judge.kind} has no server", "use judge=openai")
        if not self.rounds and not self.helpful:
            yield Fault("rounds", "no revisions and no helpful demonstrations leave nothing to learn", "set rounds=2")


def train(run: Run[Config]) -> None:
    """Revise answers, then fine-tune `run.inputs["policy"]` on them and on helpful demonstrations."""
    from datasets import Dataset

    from alignlab.data import view
    from alignlab.data.revisions import revised_answer

    record = run.folder / REVISIONS
    if distributed.any_process(not manifest.is_sealed(record)):  # every process takes its share of the sampling
        lines = "".join(json.dumps(answer.record(), ensure_ascii=False) + "\n" for answer in revised(run))
        distributed.run_on_first(lambda: manifest.write_sealed(record, lines))
    kept = [row for row in read_revisions(run.folder) if not row["dropped"]]
    if run.method.rounds and not kept:
        raise failure(str(record), "the filters have dropped every revision", "see there why; or ask otherwise")
    rows = [{"prompt": row["prompt"], "completion": revised_answer(row), "model": True} for row in kept]
    demonstrations = helpful_demonstrations(run.config, run.method)
    rows += [{"prompt": row["prompt"], "completion": row["completion"], "model": False} for row in demonstrations]
    validation = view(run.config.dataset, VIEW, "validation").select_columns(["prompt", "completion"])
    sft.train(replace(run, rows={(VIEW, "train"): Dataset.from_list(rows), (VIEW, "validation"): validation}))


def most_rows(settings: schema.Config, method: Config) -> int:
    """Return how many rows there are to learn from if no filter drops any."""
    revisions = most_red_team_prompts(settings, method) if method.rounds else 0
    return revisions + len(helpful_demonstrations(settings, method))


def revised(run: Run[Config]) -> "list[Revised]":
    """Answer the red-team prompts with the policy; criticise, revise and filter the answers with the critic."""
    from alignlab.constitutional.critic_server import writer
    from alignlab.constitutional.critique import Critic
    from alignlab.models.load import load_policy
    from alignlab.models.sampling import Sampling, sample

    method, seed = run.method, run.config.seed
    if not method.rounds:
        return []
    sampling = Sampling(method.temperature, method.top_p, method.max_new_tokens, method.sampling_batch_size)
    model, tokenizer = load_policy(run.inputs["critic"], run.config.hardware)
    write = writer(method.judge.server) if method.critic_server and method.judge.server else None

    def write_prompts(requests: "Sequence[Sequence[Turn]]") -> "list[Completion]":
        return write(requests) if write else sample(model, tokenizer, requests, sampling, 1000 * (seed + 1) + 999)

    rows = red_team_prompts(run.config, method, write_prompts)
    policy = load_policy(run.inputs["policy"], run.config.hardware)
    answers = sample(*policy, [row["prompt"] for row in rows], sampling, seed)
    critic = Critic(
        model,
        tokenizer,
        method.constitution,
        sampling._replace(temperature=method.critique_temperature),
        seed,
        preference(run, (model, tokenizer)) if method.accept == "liked" else None,
        write,
    )
    return critic.filtered(critic.revise(rows, answers, method.rounds), method.off_topic)


def preference(run: Run[Config], model: Any) -> "Callable[[Sequence[Item]], list[bool]]":
    """Return a function that says of items of two answers whether the judge likes the first no less.

    An item without a verdict counts as liked less.
    """
    from alignlab.judges import load_pair_judge
    from alignlab.judges.protocol import Context

    method = run.method
    context = Context(run.config.seed, run.config.hardware, run.inputs, method.constitution, model=model)
    judge, record = load_pair_judge(method.judge, context), run.folder / "liked.jsonl"
    return lambda items: [verdict is not None and verdict.label >= 0.5 for verdict in judge.compare(items, record)]


def helpful_demonstrations(settings: schema.Config, method: Config) -> list[dict[str, Any]]:
    """Draw at most `helpful` demonstrations whose prompts are of no red-team kind."""
    return draw_rows(rows_of_other_kinds(settings, method, VIEW, "train"), method.helpful, settings.seed)
