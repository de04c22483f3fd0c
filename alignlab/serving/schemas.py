"""The bodies of requests and responses: strict types, no unknown fields."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def is_whole(value: Any) -> bool:
    """Return whether a value is a float without a fraction, which JSON Schema counts among the integers."""
    return isinstance(value, float) and value.is_integer()


def needs(keyword: Literal["oneOf", "anyOf"], *names: str) -> ConfigDict:
    """Return the settings of a body of which one (or any) of some fields has to be there, for its JSON schema."""
    ways: list[Any] = [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]
    return ConfigDict(json_schema_extra={keyword: ways})


NO_NUL = r"^[^\x00]*$"  # PostgreSQL stores no NUL in a text
Short = Annotated[str, Field(min_length=1, max_length=200, pattern=NO_NUL)]
Long = Annotated[str, Field(max_length=100_000, pattern=NO_NUL)]
WHOLE = BeforeValidator(lambda value: int(value) if is_whole(value) else value)  # after bounds, else they are no schema
Tokens = Annotated[int, Field(ge=1, le=1_000_000), WHOLE]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
SeedNumber = Annotated[int, Field(ge=0, lt=2**32), WHOLE]
Stop = Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=4)]


class Body(BaseModel):
    """A strict body: no conversion, no unknown field, no NaN."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Message(Body):
    """A conversation turn."""

    role: Literal["system", "user", "assistant"]
    content: Long


Messages = Annotated[list[Message], Field(min_length=1, max_length=1000)]


class PredictRequest(Body):
    """A prompt, or the messages of a conversation, and how they are continued."""

    model_config = needs("oneOf", "prompt", "messages")

    prompt: Annotated[str, Field(min_length=1, max_length=100_000, pattern=NO_NUL)] | None = None
    messages: Messages | None = None
    model: Short | None = None
    max_tokens: Tokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    seed: SeedNumber | None = None
    stop: Stop | None = None

    @model_validator(mode="after")
    def one_of_both(self) -> "PredictRequest":
        """Raise an error unless there is either a prompt or messages."""
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self


class Usage(Body):
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Prediction(Body):
    """A completion."""

    id: str = Field(description="The request id, which feedback refers to.")
    model: str
    version: str = Field(description="The fingerprint of the model's weights.")
    completion: str
    finish_reason: Literal["stop", "length", "timeout", "safety"]
    seed: int = Field(description="The same request with this seed gives the same completion.")
    safety: dict[str, float] = Field(description="The scores of the safety filter, by place and scorer.")
    usage: Usage


Category = Literal[
    "violence", "hate", "sexual", "self_harm", "illegal", "privacy", "misinformation", "dangerous_advice", "other"
]


class FeedbackRequest(Body):
    """Feedback on one answer; a second request of the same user overwrites the first."""

    model_config = needs("anyOf", "thumb", "rating", "correction", "categories", "comment")

    id: Short = Field(description="The request id of the answer.")
    thumb: Literal["up", "down"] | None = None
    rating: Annotated[int, Field(ge=1, le=5), WHOLE] | None = None
    correction: Long | None = None
    categories: Annotated[list[Category], Field(max_length=9)] | None = None
    comment: Annotated[str, Field(max_length=10_000, pattern=NO_NUL)] | None = None

    @model_validator(mode="after")
    def not_empty(self) -> "FeedbackRequest":
        """Raise an error where the request says nothing."""
        if all(getattr(self, name) is None for name in ("thumb", "rating", "correction", "categories", "comment")):
            raise ValueError("give thumb, rating, correction, categories or comment")
        return self


class Feedback(Body):
    """Stored feedback."""

    id: str
    kind: Literal["answer", "compare", "label"]
    subject: str = Field(description="The id of the answer or of the item.")
    user: str
    created: float = Field(description="Seconds since 1970.")
    updated: float
    withdrawn: float | None
    value: dict[str, Any]


class FeedbackList(Body):
    """A page of stored feedback, the latest first."""

    feedback: list[Feedback]
    total: int


class Deleted(Body):
    """The numbers of rows that were deleted, by table."""

    deleted: dict[str, int]


class StreamOptions(Body):
    """Options of a stream, as OpenAI has them."""

    include_usage: bool = False


class ChatRequest(Body):
    """A chat completion in OpenAI's form; fields that would have no effect are refused, unless they are neutral."""

    model: Short
    messages: Messages
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    seed: SeedNumber | None = None
    stop: Annotated[str, Field(min_length=1, max_length=100)] | Stop | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    user: Short | None = None


class ChatMessage(Body):
    """The message of a choice."""

    role: Literal["assistant"] = "assistant"
    content: str


class ChatChoice(Body):
    """A choice of a chat completion."""

    index: int = 0
    message: ChatMessage
    finish_reason: Literal["stop", "length", "content_filter"]


class ChatCompletion(Body):
    """A chat completion in OpenAI's form; `id` is the request id, which feedback refers to."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class Model(Body):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "alignlab"


class ModelList(Body):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: list[Model]


class Health(Body):
    """The state of the server."""

    status: Literal["ok"]


class ErrorDetail(Body):
    """What is wrong, in OpenAI's form."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(Body):
    """An error."""

    error: ErrorDetail
