"""The API of administrators: export feedback as training data, and see who has how much influence on it."""

from typing import Any, Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from alignlab.runtime.run_files import CARD
from alignlab.serving.item_schemas import InfluenceList
from alignlab.serving.routes import Administrator, errors, service_of
from alignlab.serving.store import export, queries

exports = APIRouter(tags=["export"], responses=errors())


def text_of(media_type: str) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of a response that is a text of a type."""
    return {200: {"content": {media_type: {"schema": {"type": "string"}}}}}


@exports.get(
    "/export/card", summary="The card of an export", response_class=Response, responses=text_of("text/markdown")
)
async def card(request: Request, _: Administrator) -> Response:
    """Return a description of the exported rows in Markdown."""
    text = await service_of(request).store.read(export.card)
    return Response(text, media_type="text/markdown", headers=attachment(CARD))


@exports.get(
    "/export/{form}",
    summary="Feedback as JSON lines in one of TRL's forms",
    response_class=Response,
    responses=text_of("application/jsonl"),
)
async def rows(
    request: Request, form: Literal["preference", "prompt_completion", "unpaired_preference"], _: Administrator
) -> Response:
    """Return one row per line; `dataset=file` reads them."""
    text = await service_of(request).store.read(lambda connection: "".join(export.lines(connection, form)))
    return Response(text, media_type="application/jsonl", headers=attachment(f"{form}.jsonl"))


def attachment(name: str) -> dict[str, str]:
    """Return the header that makes a browser save a response as a file."""
    return {"Content-Disposition": f'attachment; filename="{name}"'}


@exports.get("/influence", summary="Each user's part in the feedback")
async def influence(request: Request, _: Administrator) -> InfluenceList:
    """Return how much each user gave, repeats, and outliers: signs of spam and poisoning."""
    return InfluenceList(users=await service_of(request).store.read(queries.influence))  # type: ignore[arg-type]
