"""The real command: it starts, answers, is killed under load on either database, and nothing acknowledged is lost."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest
from postgres import postgres
from tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.runs

KILLS = int(os.environ.get("ALIGNLAB_KILLS", "2"))  # ten for the record
MESSAGES = [{"role": "user", "content": "how do i bake bread"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_model(context=256).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def start(folder, model, *more, env=None):
    """Start the command; return the process and its address."""
    command = [sys.executable, "-m", "alignlab", "task=serve", f"task.model={model}", "task.port=0", *more]
    options = ["task.max_new_tokens=8", "hardware.device=cpu", "task.requests_per_minute=1000000"]
    process = subprocess.Popen(
        [*command, *options], cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
    )
    for line in process.stderr:
        if match := re.search(r"serving at (http://\S+)", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, match[1]
    raise AssertionError("the server did not start")


def give_until_killed(url, number, acknowledged):
    """Ask and give feedback again and again; note what was acknowledged."""
    with httpx.Client(base_url=url, timeout=10) as client:
        try:
            for turn in range(10_000):
                answer = client.post("/predict", json={"messages": MESSAGES, "seed": turn}).json()["id"]
                body = {"id": answer, "comment": f"{number} {turn}"}
                given = client.post("/feedback", json=body, headers={"Idempotency-Key": answer})
                if given.status_code == 200:
                    acknowledged.append((given.json()["id"], body["comment"]))
        except (httpx.HTTPError, json.JSONDecodeError):
            return


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_killed_under_load_no_acknowledged_feedback_is_lost_or_doubled(database, model, tmp_path):
    if database == "sqlite":
        kill_and_look(model, tmp_path, {}, [])
        return
    with postgres(tmp_path) as url:
        kill_and_look(model, tmp_path, {"STORE_URL": url}, ["task.store_env=STORE_URL"])


def kill_and_look(model, folder, env, more):
    acknowledged: list[tuple[str, str]] = []
    for _ in range(KILLS):
        process, url = start(folder, model, *more, env=env)
        clients = [threading.Thread(target=give_until_killed, args=(url, n, acknowledged)) for n in range(16)]
        before = len(acknowledged)
        for client in clients:
            client.start()
        deadline = time.monotonic() + 60
        while len(acknowledged) < before + 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        for client in clients:
            client.join()
        process.wait()
    process, url = start(folder, model, *more, env=env)
    stored: list[tuple[str, str]] = []
    with httpx.Client(base_url=url, timeout=30) as client:
        while page := client.get("/feedback", params={"limit": 500, "offset": len(stored)}).json()["feedback"]:
            stored += [(row["id"], row["value"]["comment"]) for row in page]
    process.terminate()
    assert process.wait(timeout=30) == 0
    print(f"{len(acknowledged)} acknowledged, {len(stored)} stored, {KILLS} kills")
    assert len(acknowledged) >= 100 * KILLS
    assert {*acknowledged} <= {*stored}
    assert len(stored) == len({*stored})


def test_beyond_the_loopback_it_starts_only_with_a_key(model, tmp_path):
    command = [sys.executable, "-m", "alignlab", "task=serve", f"task.model={model}", "task.host=0.0.0.0"]
    refused = subprocess.run(
        [*command, "task.max_new_tokens=8"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert refused.returncode == 2
    assert "task.host: 0.0.0.0 is not the loopback, and the store holds no key" in refused.stderr
    made = subprocess.run(
        [sys.executable, "-m", "alignlab", "task=key", "task.user=ann"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    process, url = start(tmp_path, model, "task.host=0.0.0.0")
    local = url.replace("0.0.0.0", "127.0.0.1")
    assert httpx.get(f"{local}/v1/models").status_code == 401
    header = {"Authorization": f"Bearer {made.stdout.strip()}"}
    assert httpx.get(f"{local}/v1/models", headers=header).status_code == 200
    process.terminate()
    assert process.wait(timeout=30) == 0


def test_the_command_switches_and_rolls_back_under_load_and_drops_nothing(model, tmp_path):
    from alignlab.pipeline.registry import Registry

    other = tmp_path / "other"
    tiny_model(1, context=256).save_pretrained(other)
    tiny_tokenizer().save_pretrained(other)
    registry = Registry(tmp_path / "registry")
    registry.promote(model, {}, None)
    process, url = start(tmp_path, "base", f"task.registry={registry.folder}", "task.registry_poll=0.2")
    answers: list[str] = []
    errors: list[Exception] = []
    stop = threading.Event()

    def chat():
        with httpx.Client(base_url=url, timeout=60) as client:
            while not stop.is_set():
                try:
                    done = client.post("/predict", json={"messages": MESSAGES}).raise_for_status()
                    answers.append(done.json()["version"].partition("-")[0])
                except Exception as error:
                    errors.append(error)
                    return

    def wait(holds):
        deadline = time.monotonic() + 200
        while not holds():
            assert time.monotonic() < deadline
            assert errors == []
            time.sleep(0.02)

    clients = [threading.Thread(target=chat, daemon=True) for _ in range(8)]
    for client in clients:
        client.start()
    try:
        wait(lambda: answers[-1:] == ["v1"])
        registry.promote(other, {}, 1)
        wait(lambda: answers[-1:] == ["v2"])
        command = [sys.executable, "-m", "alignlab", "task=rollback", f"task.registry={registry.folder}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
        assert done.stdout.startswith("version 1 is in service\n"), done.stderr
        wait(lambda: answers[-1:] == ["v1"])
        before = len(answers)
        wait(lambda: len(answers) > before + 50)
    finally:
        stop.set()
        for client in clients:
            client.join()
        process.terminate()
    assert process.wait(timeout=30) == 0
    print(f"{len(answers)} answers: {answers.count('v1')} of version 1, {answers.count('v2')} of version 2")
    assert errors == []
    assert {*answers} == {"v1", "v2"}
    assert {*answers[-50:]} == {"v1"}
