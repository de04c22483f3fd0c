"""A server in a process of its own, and the simulated users who ask it and judge its answers over HTTP."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

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

ADMINISTRATOR = "administrator"
STARTER = (  # a command that is killed with the process of the first argument
    "import sys; from alignlab.main import main; from alignlab.runtime.signals import die_with; "
    "die_with(int(sys.argv.pop(1))); main()"
)
TIMEOUT = 120.0  # seconds for an answer
NUMBERED = re.compile(r"simulated (\d+)")  # the comment of a feedback
PAGE = 500  # feedbacks of a request


class Users:
    """Clients of a server by the names of their users, each with a key."""

    def __init__(self, url: str, keys: Mapping[str, str]) -> None:
        import httpx

        self.clients = {
            name: httpx.Client(
                base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT, trust_env=False
            )
            for name, key in keys.items()
        }  # trust_env: a proxy of the environment does not reach the loopback

    def send(self, user: str, verb: str, path: str, body: Any = None, **more: Any) -> Any:
        """Send a request of a user and return the answer's JSON; raises a `Failure` where it is no success."""
        response = self.clients[user].request(verb, path, json=body, **more)
        if not response.is_success:
            raise failure(f"task=serve, {path}", f"answers {response.status_code}: {response.text[:200]}")
        return response.json()

    def close(self) -> None:
        """Close the connections."""
        for each in self.clients.values():
            each.close()


@contextmanager
def served(config: Config, registry: Path, store: Path) -> Iterator[Users]:
    """Serve the model in service in a process of its own, on a free port of the loopback; give its users.

    The server ends with the block, and where this process is killed. Raises a `Failure` where it does not start.
    """
    keys = create_keys(store, [*user_names(world_of(config)), ADMINISTRATOR])
    command = [
        *(sys.executable, "-c", STARTER, str(os.getpid()), "task=serve", f"task.registry={registry.absolute()}"),
        *("task.port=0", f"task.store={store.absolute()}", "task.temperature=1.0", "task.top_p=1.0"),
        f"hardware.device={config.hardware.device}",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        with closing(Users(address_of(process), keys)) as users_of_server:
            yield users_of_server
    finally:
        process.terminate()
        process.wait(timeout=TIMEOUT)


def address_of(process: "subprocess.Popen[str]") -> str:
    """Wait until a server listens, and return its address; raises a `Failure` where it ends before."""
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if match := re.search(r"serving at (http://\S+)", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return match[1]
    raise failure("task=serve", f"the server ended: {' '.join(lines[-3:]).strip()}", "see its message")


def create_keys(store: Path, names: Sequence[str]) -> dict[str, str]:
    """Create a key for each user in a store, and return them by name; the administrator's exports and deletes."""
    store.parent.mkdir(parents=True, exist_ok=True)
    engine = connect(str(store))
    with engine.begin() as connection:
        keys = {name: create_key(connection, name, "administer" if name == ADMINISTRATOR else "use") for name in names}
    engine.dispose()
    return keys


def world_of(config: Config) -> PocketData:
    """Return the pocket world of the users; `task=loop` refuses data sets without one."""
    world = config.dataset.pocket_world
    assert world is not None
    return world


def user_names(world: PocketData) -> list[str]:
    """Return the names of the users, one for each annotator of the world."""
    return [f"user-{number}" for number in range(len(world.annotators))]


def collect(server: Users, world: PocketData, settings: Loop, seed: int) -> None:
    """Let users ask and judge until the store holds the feedback that is asked for; what it holds stays."""
    stored = stored_numbers(server)
    left = [number for number in range(settings.feedback) if number not in stored]
    with (
        progress(settings.feedback, "feedback", "feedbacks") as advance,
        ThreadPoolExecutor(settings.concurrency) as pool,
    ):
        advance(settings.feedback - len(left))
        for _ in pool.map(lambda number: give_feedback(server, world, settings, seed, number), left):
            advance(1)


def stored_numbers(server: Users) -> set[int]:
    """Return the numbers of the feedback that the store holds."""
    numbers: set[int] = set()
    offset, total = 0, 1
    while offset < total:
        page = server.send(ADMINISTRATOR, "GET", "/feedback", params={"limit": PAGE, "offset": offset})
        comments = [row["value"].get("comment", "") for row in page["feedback"]]
        numbers |= {int(match[1]) for comment in comments if (match := NUMBERED.fullmatch(comment))}
        offset, total = offset + PAGE, page["total"]
    return numbers


def give_feedback(server: Users, world: PocketData, settings: Loop, seed: int, number: int) -> None:
    """Let the user whose turn it is ask one question, and judge one answer or compare two."""
    prompt, random = users.ask(number, seed, world.size)
    user, reliability = (
        user_names(world)[number % len(world.annotators)],
        world.annotators[number % len(world.annotators)],
    )
    comment = {"comment": f"simulated {number}"}
    asked = random.getrandbits(31)
    if random.random() < settings.comparisons:
        item = server.send(user, "POST", "/items/compare", {"messages": turns(prompt), "seed": asked})
        texts = [answer["completion"] for answer in item["answers"]]
        better = users.choose(prompt, texts[0], texts[1], reliability, random)
        choice = "tie" if better is None else item["answers"][better]["id"]
        server.send(user, "POST", f"/items/{item['id']}/choice", {"choice": choice, **comment})
        return
    answer = server.send(user, "POST", "/predict", {"messages": turns(prompt), "seed": asked})
    finished = answer["finish_reason"] == "stop"
    feedback = users.judge_answer(
        prompt, answer["completion"], finished, reliability, settings.corrections, world.size, random
    )
    server.send(user, "POST", "/feedback", {"id": answer["id"], **feedback, **comment})


def turns(prompt: Prompt) -> list[dict[str, str]]:
    """Return the conversation that a prompt begins."""
    return [{"role": "user", "content": prompt.text}]


def wait_for(server: Users, registry: Registry, world: PocketData) -> str:
    """Ask until the model in service answers; return its version, a question and its answer.

    Raises a `Failure` where the server does not switch in time.
    """
    pointer = registry.current()
    assert pointer is not None
    prompt, _ = users.ask(0, 0, world.size)
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        answer = server.send(ADMINISTRATOR, "POST", "/predict", {"messages": turns(prompt), "seed": 0})
        if answer["version"].endswith(pointer["fingerprint"]):
            return f"version {pointer['version']} is in service: {prompt.text} {answer['completion']}"
        time.sleep(0.2)
    raise failure(
        str(registry.folder), f"the server has not switched to version {pointer['version']}", "see its message"
    )
