"""The parts of RESULTS.md about `task=serve`: its speed, and that its store loses nothing.

.venv/bin/python benchmarks/evidence.py serving           # eight minutes, on two idle cores
.venv/bin/python benchmarks/evidence.py serving_store     # ten minutes; needs strace and PostgreSQL (make postgres)
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECONDS = "20"
KILLS = "10"


def output(*command: str, **environment: str) -> str:
    """Run a command of the checkout, and return what it prints; ends the benchmark where it fails."""
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout[-3000:] + done.stderr[-3000:])
    return done.stdout.strip()


def serving() -> Iterator[str]:
    """Measure the server with 50 clients and with one, beside a server of one request at a time."""
    yield "`python benchmarks/serving.py`: pocket, streamed, the server on one core, two minutes a row; times in ms."
    yield "Aims: 4 times the requests of one at a time, p95 of 400 ms, p95 of the first token of 100 ms, no failure but"
    yield "429; for one client a median of at most 1.2 times that of one at a time."
    yield ""
    yield output(sys.executable, "benchmarks/serving.py")


def serving_store() -> Iterator[str]:
    """Measure the store with 16 writers, kill the server under load, and trace a commit; on both databases."""
    script = ["benchmarks/serving_store.py"]
    yield f"`python {script[0]}`: 16 writers, {SECONDS} s, each waits for the disk; aim: p99 50 ms."
    yield ""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)  # PostgreSQL's user has to reach its folder
        yield f"- {output(sys.executable, *script, f'{name}/feedback.db', SECONDS, PYTHONPATH=str(ROOT))}"
        url = output("deploy/postgres.sh", "start", f"{name}/postgres")
        try:
            yield f"- {output(sys.executable, *script, url, SECONDS, PYTHONPATH=str(ROOT))}"
        finally:
            output("deploy/postgres.sh", "stop", f"{name}/postgres")
    yield ""
    yield "`pytest tests/test_serving_runs.py`: the server is killed (SIGKILL) under the load of 16 clients and started"
    yield "again; every feedback that was acknowledged is there, and none twice. Then system calls from the request"
    yield "to its response: the log of the database is written and synced before the response is sent."
    for database in ("sqlite", "postgres"):
        yield from ("", f"{database}:", "", "```")
        for test in ("killed", "trace"):
            command = [
                "-m",
                "pytest",
                "-q",
                "-s",
                "-m",
                "runs",
                "tests/test_serving_runs.py",
                "-k",
                f"{test} and {database}",
            ]
            printed = output(sys.executable, *command, ALIGNLAB_KILLS=KILLS).splitlines()
            yield from (line for line in printed if "acknowledged," in line or line.startswith("TRACE"))
        yield "```"
