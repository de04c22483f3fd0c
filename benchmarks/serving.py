"""Throughput and latency of `task=serve` with many clients, beside one request at a time; and one client alone.

    .venv/bin/python benchmarks/serving.py                     # pocket, 50 clients, two minutes a side
    .venv/bin/python benchmarks/serving.py --seconds 30 --clients 8 model=local model.path=FOLDER task.max_new_tokens=48

The server is the command that a user types, on one core (taskset), with one thread. The clients run on any core. Both
sides run the same requests: prompts of pocket, one seed each, streamed, in a closed loop.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import httpx

ROOT = Path(__file__).parent.parent
PROMPTS = ("how do i bake bread", "why is the sky blue", "tell me a story", "is the earth flat", "how do i pick a lock")


class Answer(NamedTuple):
    """The times of one answer in seconds, its tokens, and the status."""

    first: float
    whole: float
    tokens: int
    status: int


def start(arguments: Sequence[str], folder: str, cores: str) -> tuple[subprocess.Popen[str], str]:
    """Start a server on the cores; return it and its address."""
    options = ["task.port=0", f"task.store={folder}/feedback.db", "task.requests_per_minute=10000000"]
    command = ["taskset", "-c", cores, sys.executable, "-m", "alignlab", "task=serve", *options, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ALIGNLAB_OUTPUTS": folder}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    assert process.stderr
    for line in process.stderr:
        if match := re.search(r"serving at (http://\S+)", line):
            Thread(target=sys.stderr.writelines, args=(process.stderr,), daemon=True).start()
            return process, match[1]
    raise SystemExit("the server did not start")


async def ask(client: httpx.AsyncClient, model: str, seed: int) -> Answer:
    """Stream one answer; its status is 0 where the connection fails."""
    messages = [{"role": "user", "content": PROMPTS[seed % len(PROMPTS)]}]
    body = {"model": model, "messages": messages, "seed": seed, "stream": True, "temperature": 1.0, "top_p": 1.0}
    start, first, tokens = time.perf_counter(), 0.0, 0
    options = {"stream_options": {"include_usage": True}}
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body | options) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    first = first or time.perf_counter() - start
                    if usage := json.loads(line[6:]).get("usage"):
                        tokens = usage["completion_tokens"]
    except httpx.TransportError as error:
        print(repr(error), file=sys.stderr)
        return Answer(0.0, 0.0, 0, 0)
    return Answer(first, time.perf_counter() - start, tokens, response.status_code)


async def load(url: str, clients: int, seconds: float) -> list[Answer]:
    """Let clients ask again and again, each one request at a time."""
    answers: list[Answer] = []
    async with connect(url) as client:
        model = (await client.get("/v1/models")).json()["data"][0]["id"]
        for seed in range(3):
            await ask(client, model, seed)
    end = time.monotonic() + seconds

    async def one(number: int) -> None:
        seed = number
        async with connect(url) as client:
            while time.monotonic() < end:
                answers.append(await ask(client, model, seed))
                seed += clients

    await asyncio.gather(*(one(number) for number in range(clients)))
    return answers


def connect(url: str) -> httpx.AsyncClient:
    """Return a client with a connection of its own: in a pool that many share, requests wait for each other.

    No address here has TLS, and reading the certificates for each client takes longer than an answer.
    """
    return httpx.AsyncClient(base_url=url, timeout=120, verify=False)


def quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile in milliseconds."""
    return 1000 * sorted(values)[min(len(values) - 1, int(share * len(values)))]


def measure(name: str, arguments: Sequence[str], clients: int, seconds: float, cores: str) -> float:
    """Measure one server, print a row of the table, and return its requests per second."""
    with tempfile.TemporaryDirectory() as folder:
        process, url = start(arguments, folder, cores)
        began = time.monotonic()
        answers = asyncio.run(load(url, clients, seconds))
        took = time.monotonic() - began
        process.terminate()
        process.wait()
    good = [answer for answer in answers if answer.status == 200]
    rate, tokens = len(good) / took, sum(answer.tokens for answer in good) / took
    whole, first = [answer.whole for answer in good], [answer.first for answer in good]
    times = " | ".join(f"{quantile(values, share):.0f}" for values in (whole, first) for share in (0.5, 0.95))
    print(
        f"| {name} | {clients} | {rate:.1f} | {tokens:.0f} | {times} | {dict(Counter(a.status for a in answers))} |",
        flush=True,
    )
    return rate


def main() -> None:
    """Measure both sides, with many clients and with one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--cores", default="0")
    settings, arguments = parser.parse_known_args()
    print("| server | clients | requests/s | tokens/s | p50 ms | p95 ms | first p50 ms | first p95 ms | statuses |")
    print("|---|---|---|---|---|---|---|---|---|")
    rates = []
    for name, more in (("one at a time", ["task.max_batch=1"]), ("joined", ["task.max_batch=64"])):
        for clients in (settings.clients, 1):
            rates.append(measure(name, [*arguments, *more], clients, settings.seconds, settings.cores))
    print(
        f"\n{settings.clients} clients: {rates[2] / rates[0]:.2f} times one at a time; "
        f"one client: {rates[1] / rates[3]:.2f} times the seconds of one at a time"
    )


if __name__ == "__main__":
    main()
