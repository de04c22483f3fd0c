"""The shape of `preferences` in a config: what is sampled, who judges, and what is made of it."""

from collections.abc import Iterator
from string import ascii_uppercase
from typing import Annotated, Literal

from pydantic import Field

from alignlab.config.constitution import Constitution
from alignlab.config.judge import AnyJudge, Host, OpenaiJudge, Paths
from alignlab.config.settings import Count, NotNegative, Positive, Settings
from alignlab.errors import Fault

SeveralAnswers = Annotated[int, Field(ge=2)]


class People(Settings):
    """What people's labels cost, and those that there are of the same items."""

    path: Paths
    price: Positive
    minutes: Positive

    def faults(self) -> Iterator[Fault]:
        for path in self.path:
            if not path.is_file():
                yield Fault(
                    "path", f"{path} is not there", "give the tables that people have filled in, or [] for none"
                )


class Preferences(Settings):
    """Settings of `conf/task/preferences.yaml`."""

    judge: AnyJudge
    constitution: Constitution
    judge_model: str
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
        if (
            isinstance(self.judge, OpenaiJudge)
            and self.judge.compare == "lists"
            and self.samples > len(ascii_uppercase)
        ):
            yield Fault("samples", f"{self.samples} answers are more than there are letters", "use judge.compare=pairs")
        if self.weights and not any(self.weights.values()):
            yield Fault("weights", "every criterion weighs nothing", "give one of them more than 0")
