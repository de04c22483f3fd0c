"""The API: predictions, feedback, and the state of the server."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Cookie, Depends, Header, Path, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST

from alignlab.chat import Turn
from alignlab.serving.engines.protocol import Part
from alignlab.serving.problems import Problem
from alignlab.serving.schemas import (
    NO_NUL,
    Deleted,
    ErrorBody,
    Feedback,
    FeedbackList,
    FeedbackRequest,
    Health,
    Message,
    Prediction,
    PredictRequest,
    Usage,
)
from alignlab.serving.service import Asked, Service, unless_disconnected
from alignlab.serving.store import queries, records
from alignlab.serving.store.records import User

COOKIE = "alignlab_key"
bearer = HTTPBearer(auto_error=False, description="An API key: `python -m alignlab task=key task.user=…`")
Identifier = Annotated[str, Path(min_length=1, max_length=200, pattern=NO_NUL)]


def service_of(request: Request) -> Service:
    """Return the service of the application."""
    service: Service = request.app.state.service
    return service


async def known_user(request: Request, key: str | None) -> User:
    """Return the user of a key; raises a `Problem` for a wrong one."""
    return await service_of(request).keyring.user(key, request.client.host if request.client else "")


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of a route's errors; those of limits and keys are common to all."""
    return {
        status: {"model": ErrorBody}
        for status in (400, 401, 403, 408, 413, 421, 422, 429, 500, 502, 503, 504, *statuses)
    }


def user_with(role: str) -> Callable[..., Awaitable[User]]:
    """Return a dependency that gives the user of a request; raises a `Problem` without a key or the role."""

    async def user(
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
        cookie: Annotated[str | None, Cookie(alias=COOKIE, include_in_schema=False)] = None,
    ) -> User:
        known = await known_user(request, credentials.credentials if credentials else cookie)
        if not known.may(role):
            raise Problem(403, "forbidden", f"this needs a key with the role {role}")
        service_of(request).rates.take(known.name)
        return known

    return user


AnyUser = Annotated[User, Depends(user_with("use"))]
Administrator = Annotated[User, Depends(user_with("administer"))]

state = APIRouter(tags=["state"])
api = APIRouter(tags=["feedback"], responses=errors())


@state.get("/health", summary="Is the process alive?")
async def health() -> Health:
    """Return ok; needs no key."""
    return Health(status="ok")


@state.get("/ready", summary="Can it answer?", responses=errors())
async def ready(request: Request) -> Health:
    """Return ok where the store can be read and an engine takes requests; needs no key, as probes have none."""
    await service_of(request).store.read(queries.ping)
    return Health(status="ok")


@state.get("/metrics", summary="Prometheus metrics", response_class=Response, responses=errors())
async def metrics(request: Request, _: Administrator) -> Response:
    """Return the metrics in Prometheus' text format."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)


@api.post("/predict", summary="Complete a prompt or a conversation", responses=errors(404))
async def predict(request: Request, body: PredictRequest, user: AnyUser) -> Prediction:
    """Return a completion with the id that feedback refers to."""
    service = service_of(request)
    messages = body.messages or [Message(role="user", content=body.prompt or "")]
    asked = Asked(
        user,
        turns_of(messages),
        body.model,
        body.max_tokens,
        body.temperature,
        body.top_p,
        body.seed,
        tuple(body.stop or ()),
    )
    done = await unless_disconnected(request, service.complete(user, service.begin(asked)))
    return Prediction(
        id=done.id,
        model=done.model,
        version=done.version,
        completion=done.text,
        finish_reason=done.last.finish_reason,  # type: ignore[arg-type]
        seed=done.generation.seed,
        safety=done.safety,
        usage=usage_of(done.last),
    )


def turns_of(messages: Sequence[Message]) -> list[Turn]:
    """Return messages as conversation turns."""
    return [{"role": message.role, "content": message.content} for message in messages]


def usage_of(last: Part) -> Usage:
    """Return the counts of tokens of a completion by its last part."""
    total = last.prompt_tokens + last.completion_tokens
    return Usage(prompt_tokens=last.prompt_tokens, completion_tokens=last.completion_tokens, total_tokens=total)


@api.post("/feedback", summary="Give or overwrite feedback on an answer", responses=errors(404, 409))
async def give_feedback(
    request: Request,
    body: FeedbackRequest,
    user: AnyUser,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200, pattern=NO_NUL)] = None,
) -> Feedback:
    """Store feedback; the response means that it is on the disk."""
    value = body.model_dump(exclude={"id"}, exclude_none=True)
    return Feedback(**await service_of(request).give_feedback(user, "answer", body.id, value, idempotency_key))


@api.get("/feedback", summary="List feedback: one's own, an administrator's of all", responses=errors())
async def list_feedback(
    request: Request,
    user: AnyUser,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    kind: Annotated[Literal["answer", "compare", "label"] | None, Query()] = None,
    by: Annotated[str | None, Query(min_length=1, max_length=200, pattern=NO_NUL)] = None,
    withdrawn: Annotated[bool, Query(description="Whether withdrawn feedback is listed, too.")] = True,
) -> FeedbackList:
    """Return a page of feedback, the latest first."""
    wanted = queries.Wanted(kind, by, withdrawn)
    rows, total = await service_of(request).store.read(
        lambda connection: queries.list_feedback(connection, user, wanted, limit, offset)
    )
    return FeedbackList(feedback=[Feedback(**row) for row in rows], total=total)


@api.get("/feedback/{feedback_id}", summary="Read feedback", responses=errors(404))
async def read_feedback(request: Request, feedback_id: Identifier, user: AnyUser) -> Feedback:
    """Return one's own feedback by its id."""
    row = await service_of(request).store.read(lambda connection: records.get_feedback(connection, user, feedback_id))
    return Feedback(**row)


@api.delete("/feedback/{feedback_id}", summary="Withdraw feedback", responses=errors(404))
async def withdraw_feedback(request: Request, feedback_id: Identifier, user: AnyUser) -> Feedback:
    """Withdraw feedback: its value is removed, its id stays."""
    return Feedback(**await service_of(request).withdraw(user, feedback_id))


@api.delete("/users/{name}", summary="Delete all that is stored of a user", responses=errors())
async def delete_user(request: Request, name: Identifier, user: AnyUser) -> Deleted:
    """Delete a user's answers and feedback, and revoke the keys; an administrator may name anybody."""
    if name != user.name and not user.may("administer"):
        raise Problem(403, "forbidden", "only an administrator deletes another user")
    return Deleted(deleted=await service_of(request).delete_user(name))
