"""Switch the served model again and again under load, and compare every answer with the one its version gives alone.

    .venv/bin/python benchmarks/switching.py FIRST SECOND      # the folders of two models, such as sft/model, ppo/model
    .venv/bin/python benchmarks/evidence.py switching          # pocket after SFT and after DPO

50 clients ask in a closed loop, half of them streamed. A registry puts the second model into service and takes it back,
each every five seconds. Each request has one of 100 seeds and states its answer in advance: what version 1 or version 2
says to this seed when nobody else asks. Any other text comes from a model that was half loaded, or from two.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
from serving import PROMPTS, connect, start

import alignlab
from alignlab.pipeline.registry import Registry

CLIENTS, SWITCHES, SECONDS, SEEDS = 50, 20, 5.0, 100


class Reply(NamedTuple):
    """The answer to a request: the status (0: the connection failed), the seed, the version, and the text."""

    status: int
    seed: int
    version: str
    text: str


async def ask(client: httpx.AsyncClient, seed: int, model: str = "") -> Reply:
    """Ask for an answer with a seed; streamed where a model is named."""
    messages = [{"role": "user", "content": PROMPTS[seed % len(PROMPTS)]}]
    body = {"messages": messages, "seed": seed, "temperature": 1.0, "top_p": 1.0}
    try:
        if not model:
            response = await client.post("/predict", json=body)
            answer = response.json()
            return Reply(response.status_code, seed, answer["version"].partition("-")[0], answer["completion"])
        text = version = ""
        async with client.stream("POST", "/v1/chat/completions", json=body | {"stream": True, "model": model}) as done:
            async for line in done.aiter_lines():
                if line.startswith("data: {"):
                    part = json.loads(line[6:])
                    version = part["system_fingerprint"].partition("-")[0]
                    text += part["choices"][0]["delta"].get("content") or "" if part["choices"] else ""
        return Reply(done.status_code, seed, version, text)
    except (httpx.TransportError, KeyError, ValueError) as error:
        print(repr(error), file=sys.stderr)
        return Reply(0, seed, "", "")


async def alone(url: str) -> dict[int, str]:
    """Return the text of each seed's answer, one request at a time."""
    async with connect(url) as client:
        replies = [await ask(client, seed) for seed in range(SEEDS)]
    assert all(reply.status == 200 for reply in replies)
    return {reply.seed: reply.text for reply in replies}


async def load(url: str, registry: Registry, second: Path) -> list[Reply]:
    """Let the clients ask until the registry has switched as often as asked."""
    replies: list[Reply] = []
    working = True
    async with connect(url) as client:
        model = (await client.get("/v1/models")).json()["data"][0]["id"]

    async def one(number: int) -> None:
        async with connect(url) as client:
            seed = number
            while working:
                replies.append(await ask(client, seed % SEEDS, model if number % 2 else ""))
                seed += CLIENTS + 1

    clients = [asyncio.create_task(one(number)) for number in range(CLIENTS)]
    for turn in range(SWITCHES):
        await asyncio.sleep(SECONDS)
        if turn % 2 == 0:
            await asyncio.to_thread(registry.promote, second, {}, registry.current()["version"])
        else:
            await asyncio.to_thread(registry.rollback, None)
    await asyncio.sleep(SECONDS)
    working = False
    await asyncio.gather(*clients)
    return replies


def measure(first: Path, second: Path) -> Iterator[str]:
    """Ask both models alone, then the server that switches between them; yield the counts."""
    with tempfile.TemporaryDirectory() as name:
        registry = Registry(Path(name) / "registry")
        expected = []
        for model in (first, second):
            with served(f"task.model={model}", folder=f"{name}/alone") as url:
                expected.append(asyncio.run(alone(url)))
        registry.promote(first, {}, None)
        settings = f"task.registry={registry.folder}", "task.registry_poll=0.2"
        with served(*settings, folder=f"{name}/served") as url:
            began = time.monotonic()
            replies = asyncio.run(load(url, registry, second))
            took = time.monotonic() - began
            metrics = httpx.get(f"{url}/metrics").text
    yield from report(replies, expected, took, metrics)


@contextmanager
def served(*arguments: str, folder: str) -> Iterator[str]:
    """Give the address of a server, which ends with the block."""
    process, url = start(arguments, folder, "0-1")
    try:
        yield url
    finally:
        process.terminate()
        process.wait()


def report(replies: list[Reply], expected: list[dict[int, str]], took: float, metrics: str) -> Iterator[str]:
    """Yield the statuses, the answers of each model, and those that neither of the models gives."""
    good = [reply for reply in replies if reply.status == 200]
    models = Counter("first" if reply.version == "v1" else "second" for reply in good)
    wrong = [reply for reply in good if reply.text != expected[reply.version != "v1"][reply.seed]]
    differ = sum(expected[0][seed] != expected[1][seed] for seed in range(SEEDS))
    done = [line for line in metrics.splitlines() if line.startswith("alignlab_model_switches_total")]
    statuses = dict(Counter(reply.status for reply in replies))
    yield f"- {len(replies):,} requests of {CLIENTS} clients in {took:.0f} s; statuses: {statuses}"
    yield f"- answers: {models['first']:,} of the first model, {models['second']:,} of the second"
    yield f"- switches, as the server counts them: `{'`, `'.join(done)}`"
    yield f"- the models differ in {differ} of {SEEDS} answers; answers that are not their version's: **{len(wrong)}**"


def switching() -> Iterator[str]:
    """Yield the evidence, with pocket after SFT and after DPO."""
    yield f"`python benchmarks/switching.py FIRST SECOND`: {SWITCHES} promotions and rollbacks, one each "
    yield f"{SECONDS:.0f} seconds."
    yield ""
    with tempfile.TemporaryDirectory() as name:
        run = alignlab.run(alignlab.compose("method=dpo", "evaluation=none"), Path(name))
        yield from measure(run.models["sft"], run.models["dpo"])


if __name__ == "__main__":
    for line in measure(*(Path(name).absolute() for name in sys.argv[1:3])):
        print(line, flush=True)
