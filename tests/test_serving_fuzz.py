"""Requests that nobody foresaw: schemathesis' checks, odd headers, huge and slow bodies; no 500, memory bounded."""

import os
import resource
import socket
import subprocess
import sys
import time

import httpx
import pytest
from served import MESSAGES, bearer, served, tiny_engine
from tiny import tiny_model

pytestmark = pytest.mark.pages
KEYS = [("root", "administer")]
EXAMPLES = os.environ.get("ALIGNLAB_FUZZ", "20")  # per operation; 500 for the record


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    options = ("task.requests_per_minute=10000000", "task.wrong_keys_per_minute=10000000", "task.body_timeout=2")
    engine = tiny_engine(queue=1000, model=tiny_model(context=8192))  # 1,000 empty messages fit
    with served(tmp_path_factory.mktemp("fuzz"), *options, engines=[engine], keys=KEYS) as client:
        client.headers.update(bearer(client, "root"))
        answer = client.post("/predict", json={"messages": MESSAGES}).json()["id"]
        client.post("/feedback", json={"id": answer, "thumb": "up"})
        yield client


def test_schemathesis_finds_no_failure(client, tmp_path):
    pytest.importorskip("schemathesis")
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{client.url}/openapi.json", "--checks", "all"]
    options = ["--max-examples", EXAMPLES, "--seed", "1", "--request-timeout", "30", "--generation-database", "none"]
    options += ["--header", f"Authorization: {client.headers['Authorization']}", "--suppress-health-check", "all"]
    options += ["--exclude-checks", "use_after_free"]  # withdrawn feedback stays readable, without its content
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=3000)
    print(done.stdout[-6000:])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"prompt": "\\ud800"}', b'{"prompt": "\\u0000"}',
        b'{"prompt": 1e999}',
        b'{"prompt": "a", "temperature": NaN}', b"[" * 100_000, b'{"prompt": "' + "🙃".encode() * 10 + b'"}',
        b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", b'{"prompt": "a", "prompt": "b"}',
    ],
    ids=range(13),
)  # fmt: skip
def test_odd_bodies_are_refused_or_answered(client, content):
    for path in ("/predict", "/feedback", "/v1/chat/completions", "/items"):
        response = client.post(path, content=content, headers={"Content-Type": "application/json"})
        assert response.status_code in {200, 400, 422}, (path, response.text)


def test_odd_headers(client):
    for name, value in (
        ("Authorization", "Bearer \xff"), ("Authorization", "Basic x"), ("Cookie", "alignlab_key=\x01; ;;="),
        ("Idempotency-Key", "x" * 5000), ("Content-Type", "text/plain"), ("Content-Length", "-1"), ("Accept", "💥"),
    ):  # fmt: skip
        headers = {name: value.encode("utf-8")}
        try:
            response = client.post("/feedback", json={"id": "x", "thumb": "up"}, headers=headers)
        except httpx.TransportError:  # the connection was closed
            continue
        assert 400 <= response.status_code < 500, (name, response.status_code)


def test_a_body_of_100_mb_takes_no_memory(client):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    chunk = b"x" * 1_000_000
    for headers in ({}, {"Content-Length": "100000000"}):
        try:
            response = client.post("/predict", content=(chunk for _ in range(100)), headers=headers)
            assert response.status_code == 413
        except httpx.TransportError:  # the server closes the connection while the client still writes
            pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # kB, this process has the server, too
    assert client.get("/health").status_code == 200


def test_a_slow_body_ends_and_slow_clients_stop_nobody(client):
    host, port = client.url.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(50)]
    for each in slow:
        each.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nContent-Type: application/json\r\n\r\n{"
        )
    start = time.monotonic()
    assert client.post("/predict", json={"messages": MESSAGES}).status_code == 200
    assert time.monotonic() - start < 5
    slow[0].settimeout(20)
    assert b"408" in slow[0].recv(1000)
    for each in slow:
        each.close()
