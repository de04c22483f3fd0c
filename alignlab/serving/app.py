"""The application: routes, error responses and limits."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import Response

import alignlab
from alignlab.serving.export_routes import exports
from alignlab.serving.follow import Followed, follow
from alignlab.serving.item_routes import item_api
from alignlab.serving.limits import Application, Guard, problem_response
from alignlab.serving.openai_routes import openai
from alignlab.serving.pages.pages import pages
from alignlab.serving.problems import Problem
from alignlab.serving.routes import AnyUser, api, state
from alignlab.serving.service import Service
from alignlab.serving.store.records import expire

TOKEN_LIMITS = (
    ("PredictRequest", "max_tokens"),
    ("ChatRequest", "max_tokens"),
    ("ChatRequest", "max_completion_tokens"),
)
log = logging.getLogger("alignlab")


def build_app(service: Service, hosts: Sequence[str] = (), followed: Followed | None = None) -> Application:
    """Return the application of a service; `hosts` are the names that requests may be addressed to, none for any.

    `followed` is the registry whose model the service answers with, if there is one.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(keep_retention(service))]
        if followed:
            tasks.append(asyncio.create_task(follow(service, followed)))
        yield
        for task in tasks:
            task.cancel()

    app = FastAPI(
        lifespan=lifespan,
        title="alignlab",
        version=alignlab.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.service, app.state.started = service, time.time()
    for router in (openai, api, item_api, state, exports, pages):  # a request is matched in this order
        app.include_router(router)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(_: AnyUser) -> dict[str, Any]:
        """Return the description of the API."""
        return described(app, service.settings.max_new_tokens)

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(SQLAlchemyError, on_store_error)
    app.add_exception_handler(Exception, on_error)
    settings = service.settings
    return Guard(app, service.metrics, settings.max_body_bytes, settings.body_timeout, hosts)


def described(app: FastAPI, max_new_tokens: int) -> dict[str, Any]:
    """Return the description of the API, with the limit of tokens of this server."""
    document = app.openapi()
    for body, field in TOKEN_LIMITS:
        document["components"]["schemas"][body]["properties"][field]["anyOf"][0]["maximum"] = max_new_tokens
    return document


async def keep_retention(service: Service) -> None:
    """Delete what is older than the setting allows, now and every hour; the writer logs a store that fails."""
    while days := service.settings.retention_days:
        with suppress(SQLAlchemyError):
            await service.store.write(partial(expire, before=time.time() - days * 86400))
        await asyncio.sleep(3600)


async def on_problem(_: Request, error: Exception) -> Response:
    """Answer a problem."""
    assert isinstance(error, Problem)
    return problem_response(error)


async def on_invalid(_: Request, error: Exception) -> Response:
    """Answer a request whose body, query or headers are not valid; the response does not repeat them."""
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(map(str, fault['loc'][1:])) or fault['loc'][0]}: {fault['msg']}" for fault in error.errors()]
    return problem_response(Problem(422, "invalid_request", "; ".join(faults[:5])[:2000]))


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer an unknown path or method."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    headers = allowed_methods(request) if error.status_code == 405 else error.headers
    return problem_response(Problem(error.status_code, code, str(error.detail), headers or error.headers))


def allowed_methods(request: Request) -> dict[str, str]:
    """Return the header with all documented methods of a path; Starlette's has those of one route."""
    path = getattr(request.scope.get("route"), "path", "")
    methods = request.app.openapi()["paths"].get(path, {})
    return {"Allow": ", ".join(sorted(map(str.upper, methods)))} if methods else {}


async def on_store_error(_: Request, error: Exception) -> Response:
    """Answer a request that the store did not take; the log names the kind of error, whose text may hold a prompt."""
    log.error("the store failed: %s", type(error).__name__)
    return problem_response(Problem(503, "unavailable", "the store does not answer", {"Retry-After": "5"}))


async def on_error(_: Request, error: Exception) -> Response:
    """Answer an error of the server itself; its text stays in the log."""
    return problem_response(Problem(500, "internal_error", "the server failed; see its log"))
