"""The API of items: two answers to compare, several to rank, and what labelers agree on."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from alignlab.serving.item_schemas import (
    AgreementList,
    ChoiceRequest,
    Chosen,
    CompareRequest,
    Item,
    ItemAnswer,
    LabelRequest,
    NextItem,
    RanksRequest,
)
from alignlab.serving.problems import Problem
from alignlab.serving.routes import AnyUser, Identifier, errors, service_of, turns_of, user_with
from alignlab.serving.schemas import Feedback, Message
from alignlab.serving.service import Asked, Service, unless_disconnected
from alignlab.serving.store import items, records
from alignlab.serving.store.records import Candidate, Row, User, new_id

Labeler = Annotated[User, Depends(user_with("label"))]

item_api = APIRouter(prefix="/items", tags=["items"], responses=errors())


@item_api.post("/compare", summary="Sample two answers to compare, without their models", responses=errors(404))
async def compare(request: Request, body: CompareRequest, user: AnyUser) -> Item:
    """Return two answers in random order: of the two models, or of the one."""
    service = service_of(request)
    candidates = await unless_disconnected(request, sample(service, user, body.messages, 2, body.seed))
    prompt, with_text = turns_of(body.messages), service.settings.store_text
    row = await service.store.write(
        lambda connection: items.add_item(connection, user, "compare", prompt, candidates, "", with_text)
    )
    return shown(row | {"prompt": prompt, "candidates": candidates}, user)


@item_api.post("", summary="Add an item to rank", responses=errors(404, 409))
async def add(request: Request, body: LabelRequest, user: Labeler) -> Item:
    """Add given answers, or completions of the models in turn, for people to rank."""
    service, prompt = service_of(request), turns_of(body.messages)
    if not service.settings.store_text:
        raise Problem(409, "texts_not_stored", "task.store_text is false, so there is nothing that others could rank")
    if body.answers is not None:
        candidates = [Candidate(answer_id=new_id("ans"), completion=t, model="", version="") for t in body.answers]
    else:
        candidates = await unless_disconnected(request, sample(service, user, body.messages, body.samples or 2, None))
    row = await service.store.write(
        lambda connection: items.add_item(connection, user, "label", prompt, candidates, body.instructions, True)
    )
    return shown(row, user)


async def sample(
    service: Service, user: User, messages: Sequence[Message], count: int, seed: int | None
) -> list[Candidate]:
    """Sample answers of the models in turn, all at once; with a seed, each next answer has the next seed."""
    names = list(service.engines)
    begun = [
        service.begin(
            Asked(user, turns_of(messages), names[n % len(names)], seed=None if seed is None else (seed + n) % 2**32)
        )
        for n in range(count)
    ]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(service.complete(user, each)) for each in begun]
    except ExceptionGroup as raised:
        raise raised.exceptions[0] from raised
    return [
        Candidate(answer_id=done.id, completion=done.text, model=done.model, version=done.version)
        for done in (task.result() for task in tasks)
    ]


def shown(row: Row, user: User) -> Item:
    """Return an item as a user sees it: without models, in the user's own order."""
    ordered = sorted(row["candidates"], key=lambda candidate: records.hash_of([user.name, candidate["answer_id"]]))
    return Item(
        id=row["id"],
        kind=row["kind"],
        messages=[Message(**turn) for turn in row["prompt"]],
        instructions=row["instructions"],
        answers=[ItemAnswer(id=each["answer_id"], completion=each["completion"]) for each in ordered],
    )


@item_api.get("/next", summary="The item to rank next")
async def next_item(request: Request, user: Labeler) -> NextItem:
    """Return the item with the fewest labelers that this user has not ranked, and the progress."""
    row, done, total = await service_of(request).store.read(lambda connection: items.next_item(connection, user))
    return NextItem(item=shown(row, user) if row else None, done=done, total=total)


@item_api.get("/agreement", summary="Which labelers agree, and on what they do not")
async def agreement(request: Request, _: Labeler) -> AgreementList:
    """Return the agreement of every two labelers, and the disputed items."""
    return AgreementList(**await service_of(request).store.read(items.agreement))


@item_api.post("/{item_id}/choice", summary="Choose one of two answers, or a tie", responses=errors(404, 409))
async def choose(request: Request, item_id: Identifier, body: ChoiceRequest, user: AnyUser) -> Chosen:
    """Store the choice, and reveal which model wrote which answer."""
    service = service_of(request)
    row = await service.give_feedback(user, "compare", item_id, body.model_dump(exclude_none=True))
    item = await service.store.read(lambda connection: items.get_item(connection, item_id))
    models = {each["answer_id"]: each["model"] for each in item["candidates"]}
    return Chosen(feedback=Feedback(**row), models=models)


@item_api.post("/{item_id}/ranks", summary="Rank the answers of an item", responses=errors(404, 409))
async def rank(request: Request, item_id: Identifier, body: RanksRequest, user: Labeler) -> Feedback:
    """Store the ranks; a second request of the same user overwrites them."""
    return Feedback(
        **await service_of(request).give_feedback(user, "label", item_id, body.model_dump(exclude_none=True))
    )
