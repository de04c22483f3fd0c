"""OpenAI's API: chat completions, with streaming, and the list of models."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from alignlab.serving.problems import Problem
from alignlab.serving.routes import AnyUser, errors, service_of, turns_of, usage_of
from alignlab.serving.schemas import ChatChoice, ChatCompletion, ChatMessage, ChatRequest, Model, ModelList
from alignlab.serving.service import Asked, Completed, Service, unless_disconnected
from alignlab.serving.store.records import User

REASONS = {"stop": "stop", "length": "length", "timeout": "length", "safety": "content_filter"}

openai = APIRouter(prefix="/v1", tags=["openai"], responses=errors())


@openai.get("/models", summary="The models that are served")
async def models(request: Request, _: AnyUser) -> ModelList:
    """Return the names that `model` may have."""
    started = int(request.app.state.started)
    return ModelList(data=[Model(id=name, created=started) for name in service_of(request).engines])


@openai.post(
    "/chat/completions",
    summary="A chat completion",
    response_model=ChatCompletion,
    responses=errors(404) | {200: {"content": {"text/event-stream": {}}}},
)
async def chat_completions(request: Request, body: ChatRequest, user: AnyUser) -> Any:
    """Return a chat completion, or stream its parts as server-sent events."""
    service = service_of(request)
    completed = service.begin(
        Asked(
            user,
            turns_of(body.messages),
            body.model,
            body.max_completion_tokens or body.max_tokens,
            body.temperature,
            body.top_p,
            body.seed,
            (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
            bool(body.stream),
        )
    )
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        events = stream_events(service, user, completed, with_usage)
        first = await unless_disconnected(request, anext(events))  # an error before it keeps its status
        return StreamingResponse(chain(first, events), media_type="text/event-stream")
    done = await unless_disconnected(request, service.complete(user, completed))
    return ChatCompletion(
        id=done.id,
        created=int(time.time()),
        model=done.model,
        system_fingerprint=done.version,
        choices=[ChatChoice(message=ChatMessage(content=done.text), finish_reason=reason_of(done))],
        usage=usage_of(done.last),
    )


def reason_of(completed: Completed) -> Any:
    """Return OpenAI's word for the reason why a completion ended."""
    return REASONS[completed.last.finish_reason or "stop"]


async def chain(first: str, events: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yield the first event, and those after it."""
    yield first
    async for event in events:
        yield event


async def stream_events(service: Service, user: User, completed: Completed, with_usage: bool) -> AsyncIterator[str]:
    """Yield server-sent events in OpenAI's form; an error after the first one is an event, too."""
    common = {"id": completed.id, "object": "chat.completion.chunk", "created": int(time.time())}
    begun, head = False, ""

    def event(**fields: Any) -> str:
        return f"data: {head}{json.dumps(fields)[1:]}\n\n"

    def choice(delta: dict[str, str], reason: str | None = None) -> str:
        return event(choices=[{"index": 0, "delta": delta, "finish_reason": reason}])

    try:
        async for part in service.stream(user, completed):
            if not begun:
                begun, by = True, {"model": completed.model, "system_fingerprint": completed.version}
                head = f"{json.dumps(common | by)[:-1]}, "
                yield choice({"role": "assistant", "content": part.text})
            elif part.text:
                yield choice({"content": part.text})
    except Problem as problem:
        if not begun:
            raise
        error = {"message": problem.message, "type": "server_error", "param": None, "code": problem.code}
        yield f"data: {json.dumps({'error': error})}\n\n"
        return
    yield choice({}, reason_of(completed))
    if with_usage:
        yield event(choices=[], usage=usage_of(completed.last).model_dump())
    yield "data: [DONE]\n\n"
