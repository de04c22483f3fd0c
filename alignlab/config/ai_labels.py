"""Settings of Constitutional AI's data: red-team prompts, and the AI labels of the answers to them."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from alignlab.config.constitution import Constitution
from alignlab.config.judge import PairJudge
from alignlab.config.settings import Count, Names, Positive, Reference, Settings, Share
from alignlab.errors import Fault

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


class AILabels(RedTeam):
    """Settings of `conf/method/_labels.yaml`."""

    constitution: Constitution
    judge: PairJudge
    reasoned: Bounds
    keep: Annotated[float, Field(gt=0, le=1)]
    judge_model: Reference
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
