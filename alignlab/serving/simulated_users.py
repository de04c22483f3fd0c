"""A server in a process of its own, and the simulated users who ask it and judge its answers over HTTP."""

import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from alignlab.config.dataset import PocketData
from alignlab.config.schema import Config
from alignlab.config.task import Loop
from alignlab.errors import failure
from alignlab.pipeline.registry import Registry
from alignlab.pocket import users
from alignlab.pocket.world import Prompt
from alignlab.runtime.progress import progress
from alignlab.serving.keys import create_key
from alignlab.serving.store.database import connect

if TYPE_CHECKING:
    import httpx

ADMINISTRATOR = "administrator"
TIMEOUT = 120.0  # seconds for an answer
NUMBERED = re.compile(r"simulated (\d+)")  # the comment of a feedback
PAGE = 500  # feedbacks of a request


class Server:
    """`task=serve` with the model in service, on a free port of the loopback, inside a `with` block; a key per user."""

    def __init__(self, config: Config, registry: Path, store: Path, names: list[str]) -> None:
        self.store, self.names = store.absolute(), names
        self.command = [
            *(sys.executable, "-m", "alignlab", "task=serve", f"task.registry={registry.absolute()}"),
            *("task.port=0", f"task.store={self.store}", "task.temperature=1.0", "task.top_p=1.0"),
            f"hardware.device={config.hardware.device}",
        ]

    def __enter__(self) -> Self:
        """Create the keys, start the server, and wait until it listens; raises a `Failure` where it ends before."""
        keys = self.create_keys()
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        lines: list[str] = []
        for line in self.process.stderr:
            lines.append(line)
            if match := re.search(r"serving at (http://\S+)", line):
                threading.Thread(target=self.process.stderr.read, daemon=True).start()
                self.clients = {name: client(match[1], key) for name, key in keys.items()}
                return self
        raise failure("task=serve", f"the server ended: {' '.join(lines[-3:]).strip()}", "see its message")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """End the server, which finishes running requests first."""
        self.process.terminate()
        self.process.wait(timeout=TIMEOUT)
        for each in self.clients.values():
            each.close()

    def create_keys(self) -> dict[str, str]:
        """Create a key for each user and one for the administrator; return them by name."""
        engine, roles = connect(str(self.store)), dict.fromkeys(self.names, "use") | {ADMINISTRATOR: "administer"}
        with engine.begin() as connection:
            keys = {name: create_key(connection, name, role) for name, role in roles.items()}
        engine.dispose()
        return keys

    def send(self, user: str, verb: str, path: str, body: Any = None, **more: Any) -> "httpx.Response":
        """Send a request of a user; raises a `Failure` where the answer is no success."""
        response = self.clients[user].request(verb, path, json=body, **more)
        if not response.is_success:
            raise failure(f"task=serve, {path}", f"answers {response.status_code}: {response.text[:200]}")
        return response


def client(url: str, key: str) -> "httpx.Client":
    """Return a client with a key; proxies of the environment are not used for the loopback."""
    import httpx

    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT, trust_env=False)


def user_names(world: PocketData) -> list[str]:
    """Return the names of the users, one for each annotator of the world."""
    return [f"user-{number}" for number in range(len(world.annotators))]


def collect(server: Server, world: PocketData, settings: Loop, seed: int) -> None:
    """Let users ask and judge until the store holds the feedback that is asked for; what it holds stays."""
    left = [number for number in range(settings.feedback) if number not in stored_numbers(server)]
    with (
        progress(settings.feedback, "feedback", "feedbacks") as advance,
        ThreadPoolExecutor(settings.concurrency) as pool,
    ):
        advance(settings.feedback - len(left))
        for _ in pool.map(lambda number: give_feedback(server, world, settings, seed, number), left):
            advance(1)


def stored_numbers(server: Server) -> set[int]:
    """Return the numbers of the feedback that the store holds."""
    numbers: set[int] = set()
    offset, total = 0, 1
    while offset < total:
        page = server.send(ADMINISTRATOR, "GET", "/feedback", params={"limit": PAGE, "offset": offset}).json()
        comments = [row["value"].get("comment", "") for row in page["feedback"]]
        numbers |= {int(match[1]) for comment in comments if (match := NUMBERED.fullmatch(comment))}
        offset, total = offset + PAGE, page["total"]
    return numbers


def give_feedback(server: Server, world: PocketData, settings: Loop, seed: int, number: int) -> None:
    """Let the user whose turn it is ask one question, and judge one answer or compare two."""
    prompt, random = users.ask(number, seed, world.size)
    user, reliability = (
        user_names(world)[number % len(world.annotators)],
        world.annotators[number % len(world.annotators)],
    )
    comment = {"comment": f"simulated {number}"}
    asked = random.getrandbits(31)
    if random.random() < settings.comparisons:
        item = server.send(user, "POST", "/items/compare", {"messages": turns(prompt), "seed": asked}).json()
        texts = [answer["completion"] for answer in item["answers"]]
        better = users.choose(prompt, texts[0], texts[1], reliability, random)
        choice = "tie" if better is None else item["answers"][better]["id"]
        server.send(user, "POST", f"/items/{item['id']}/choice", {"choice": choice, **comment})
        return
    answer = server.send(user, "POST", "/predict", {"messages": turns(prompt), "seed": asked}).json()
    finished = answer["finish_reason"] == "stop"
    feedback = users.judge_answer(
        prompt, answer["completion"], finished, reliability, settings.corrections, world.size, random
    )
    server.send(user, "POST", "/feedback", {"id": answer["id"], **feedback, **comment})


def turns(prompt: Prompt) -> list[dict[str, str]]:
    """Return the conversation that a prompt begins."""
    return [{"role": "user", "content": prompt.text}]


def wait_for(server: Server, registry: Registry, world: PocketData) -> str:
    """Ask until the model in service answers; return its version, a question and its answer.

    Raises a `Failure` where the server does not switch in time.
    """
    pointer = registry.current()
    assert pointer is not None
    prompt, _ = users.ask(0, 0, world.size)
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        answer = server.send(ADMINISTRATOR, "POST", "/predict", {"messages": turns(prompt), "seed": 0}).json()
        if answer["version"] == pointer["fingerprint"]:
            return f"version {pointer['version']} is in service: {prompt.text} {answer['completion']}"
        time.sleep(0.2)
    raise failure(
        str(registry.folder), f"the server has not switched to version {pointer['version']}", "see its message"
    )
