"""The bodies of requests and responses about items: answers that people compare or rank, and who agrees."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alignlab.serving.schemas import NO_NUL, WHOLE, Body, Feedback, Long, Message, Messages, SeedNumber, Short, needs


class CompareRequest(Body):
    """A conversation that two completions answer; with two models, one of each."""

    messages: Messages
    seed: SeedNumber | None = None


class LabelRequest(Body):
    """A conversation whose answers people rank: given answers, or `samples` completions of the models in turn."""

    model_config = needs("oneOf", "samples", "answers")

    messages: Messages
    instructions: Annotated[str, Field(max_length=10_000, pattern=NO_NUL)] = ""
    samples: Annotated[int, Field(ge=2, le=8), WHOLE] | None = None
    answers: Annotated[list[Long], Field(min_length=2, max_length=8)] | None = None

    @model_validator(mode="after")
    def one_of_both(self) -> "LabelRequest":
        """Raise an error unless there are either answers or samples."""
        if (self.samples is None) == (self.answers is None):
            raise ValueError("give either samples or answers")
        return self


class ItemAnswer(Body):
    """An answer of an item, without the model that wrote it."""

    id: str
    completion: str


class Item(Body):
    """Answers to compare or to rank, in an order that is random for each user."""

    id: str
    kind: Literal["compare", "label"]
    messages: list[Message]
    instructions: str
    answers: list[ItemAnswer]


class NextItem(Body):
    """The item to label next, null where there is none, and the progress."""

    item: Item | None
    done: int = Field(description="Items that this user has labeled.")
    total: int


class ChoiceRequest(Body):
    """Which of two answers is better: the id of one, or tie."""

    choice: Short
    comment: Annotated[str, Field(max_length=10_000, pattern=NO_NUL)] | None = None


class Chosen(Body):
    """Stored feedback on two answers, and the models that wrote them."""

    feedback: Feedback
    models: dict[str, str] = Field(description="The model of each answer, by the answer's id.")


class RanksRequest(Body):
    """A rank for each answer of an item, 1 for the best; answers that are equally good share a rank."""

    ranks: Annotated[
        dict[Short, Annotated[int, Field(ge=1, le=8), WHOLE]],
        Field(min_length=2, max_length=8, json_schema_extra={"additionalProperties": False}),
    ]
    comment: Annotated[str, Field(max_length=10_000, pattern=NO_NUL)] | None = None


class Agreement(Body):
    """How often two labelers order the same pair of answers alike; ties count half."""

    first: str
    second: str
    pairs: int
    agreement: float


class AgreementList(Body):
    """The agreement of every two labelers that share items, and of each item's labelers."""

    labelers: list[Agreement]
    disputed: list[str] = Field(description="The ids of items whose labelers disagree, the most disputed first.")


class Influence(Body):
    """One user's part in the stored feedback."""

    user: str
    feedback: int
    share: float
    duplicates: int = Field(description="Feedback whose value another feedback of the same user repeats.")
    up_share: float | None = Field(description="The share of thumbs that are up; null without thumbs.")
    outlier: bool = Field(description="Far more feedback, or another share of thumbs up, than the other users.")


class InfluenceList(Body):
    """Each user's part in the stored feedback, the largest first."""

    users: list[Influence]
