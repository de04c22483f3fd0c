"""Settings of `preferences`: sampling answers, the judge, and writing labels as a data set."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from alignlab.config.constitution import Constitution
from alignlab.config.judge import AnyJudge, Host, Paths, missing_tables
from alignlab.config.settings import Count, NotNegative, Positive, Reference, Settings
from alignlab.errors import Fault

SeveralAnswers = Annotated[int, Field(ge=2)]


class People(Settings):
    """The cost of people's labels, and tables of their labels of the same items."""

    path: Paths
    price: Positive
    minutes: Positive

    def faults(self) -> Iterator[Fault]:
        yield from missing_tables(self.path)


class Preferences(Settings):
    """Settings of `conf/task/preferences.yaml`."""

    judge: AnyJudge
    constitution: Constitution
    judge_model: Reference
    server: Host
    prompts: Count | None
    samples: SeveralAnswers
    temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_new_tokens: Count
    batch_size: Count
    consensus: Literal["dawid_skene", "majority", "borda", "bradley_terry"]
    panel: Paths
    weights: dict[str, NotNegative]
    people: People
    machine_hour: NotNegative

    def faults(self) -> Iterator[Fault]:
        for folder in self.panel:
            if not folder.is_dir():
                yield Fault("panel", f"{folder} is not there", "give the folder of a finished task=preferences run")
        if self.judge.most_answers is not None and self.samples > self.judge.most_answers:
            yield Fault("samples", f"{self.samples} answers are more than there are letters", "use judge.compare=pairs")
        if self.weights and not any(self.weights.values()):
            yield Fault("weights", "every criterion weighs nothing", "give one of them more than 0")
