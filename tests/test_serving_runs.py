"""The real command: it starts, answers, is killed under load on either database, and nothing acknowledged is lost."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

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


def start(folder, model, *more, env=None, under=()):
    """Start the command, under another one where that is given; return the process and its address."""
    command = [*under, sys.executable, "-m", "alignlab", "task=serve", f"task.model={model}", "task.port=0", *more]
    options = ["task.max_new_tokens=8", "hardware.device=cpu", "task.requests_per_minute=1000000"]
    process = subprocess.Popen(
        [*command, *options], cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
    )
    lines = []
    for line in process.stderr:
        lines.append(line)
        if match := re.search(r"serving at (http://\S+)", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, match[1]
    raise AssertionError(f"the server did not start: {lines}")


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


CALLS = "trace=read,recvfrom,pwrite64,fdatasync,sendto,sendmsg,write,writev"
STRACE = ("strace", "-f", "-ttt", "-yy", "-s", "2000", "-e", CALLS)


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_trace_of_system_calls_shows_the_sync_before_the_acknowledgement(database, model, tmp_path):
    if not shutil.which("strace"):
        pytest.skip("strace is not installed; apt-get install strace")
    if database == "sqlite":
        trace_and_look(model, tmp_path, {}, [], "feedback.db-wal")
        return
    with postgres(tmp_path) as url:
        number = (tmp_path / "pg" / "data" / "postmaster.pid").read_text().split()[0]
        attached = [*STRACE, "-o", str(tmp_path / "database.txt"), "-p", number]
        tracer = subprocess.Popen(attached, stderr=subprocess.PIPE, text=True)
        assert "attached" in tracer.stderr.readline()
        trace_and_look(model, tmp_path, {"STORE_URL": url}, ["task.store_env=STORE_URL"], "/pg_wal/", tracer)


def trace_and_look(model, folder, env, more, log, tracer=None):
    under = [*STRACE, "--seccomp-bpf", "-o", str(folder / "server.txt")]
    process, url = start(folder, model, *more, env=env, under=under)
    with httpx.Client(base_url=url, timeout=60) as client:
        answer = client.post("/predict", json={"messages": MESSAGES}).json()["id"]
        given = client.post("/feedback", json={"id": answer, "comment": "traced"}).json()["id"]
    server = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
    os.kill(int(server), signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    if tracer:  # what it has seen is in its file when it ends
        tracer.terminate()
        tracer.wait()
    calls = sorted(call for trace in folder.glob("*.txt") for call in traced_calls(trace))
    asked = next(call for call in calls if '\\"comment\\":\\"traced\\"' in call[2])
    connection = re.search(r"<TCP:\S+>", asked[2])[0]
    sent = next(call for call in calls if given in call[2] and connection in call[2] and call[0] > asked[1])
    between = [call for call in calls if asked[1] < call[0] and call[1] < sent[0] and log in call[2]]
    written, synced = ([call for call in between if call[2].startswith(name)] for name in ("pwrite64", "fdatasync"))
    for call in (asked, written[-1], synced[-1], sent):
        shown = re.sub(r'"(.{0,40}).*"', r'"\1…"', call[2].replace(str(folder), "…"))
        print(f"TRACE {1000 * (call[0] - asked[0]):7.3f} ms {shown[:150]}")
    assert written[-1][1] <= synced[-1][0]
    inserted = [call for call in calls if asked[0] < call[0] < sent[0] and "INSERT INTO feedback" in call[2]]
    assert all(call[0] < written[-1][0] for call in inserted)  # PostgreSQL is told in a call; SQLite is not


def traced_calls(trace):
    """Yield begin, end and text of the calls of a trace; a call that another thread's interrupts has two lines."""
    begun = {}
    for line in trace.read_text().splitlines():
        thread, second, text = line.split(None, 2)
        if text.endswith("<unfinished ...>"):
            begun[thread] = (float(second), text.removesuffix("<unfinished ...>"))
        elif "resumed>" in text and thread in begun:
            start, head = begun.pop(thread)
            yield start, float(second), head + text.partition("resumed>")[2]
        else:
            yield float(second), float(second), text


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
