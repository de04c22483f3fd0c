"""Time the dashboard over many large runs: `.venv/bin/python benchmarks/dashboard.py` (a minute).

Writes 200 runs with 2,000 completions each into a temporary folder (ALIGNLAB_BENCH_RUNS changes their number), serves
them in a process of its own, and asks for pages: the first table of a new process, the table again, a run, its
completions, and two runs side by side. Prints wall time and the server's CPU time, and how long a step that is appended
takes to arrive.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

RUNS, RECORDS, STEPS = int(os.environ.get("ALIGNLAB_BENCH_RUNS", "200")), 2000, 500
MEASURES = ("gold/harmful_compliance", "gold/helpful", "gold/score", "reward/mean", "length/mean", "eval/kl")
DAY = "outputs/2026-01-02"


def main() -> None:
    """Print the times."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(RUNS):
            write_run(folder / DAY / f"{number:06}-ppo", number)
        command = [sys.executable, "-m", "alignlab", "task=dashboard", "task.port=0", "task.explain=false"]
        root = Path(__file__).parent.parent
        environment = os.environ | {"PYTHONPATH": str(root), "ALIGNLAB_OUTPUTS": str(folder / "outputs")}
        server = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment)
        try:
            assert server.stderr
            url = server.stderr.readline().split()[-1]
            with httpx.Client(base_url=url, timeout=60) as client:
                ask(client, server.pid, folder)
        finally:
            server.terminate()
            server.wait()


def ask(client: httpx.Client, process: int, folder: Path) -> None:
    """Ask for each page, and print its times."""
    first, second = f"{DAY}/000000-ppo", f"{DAY}/000001-ppo"
    pages = [
        ("the first table of a new process", "/"),
        ("the table again", "/"),
        ("a run", f"/run/{first}"),
        ("its completions", f"/completions/{first}"),
        ("two runs side by side", f"/compare?run={first}&run={second}"),
    ]
    print(f"{RUNS} runs with {RECORDS:,} completions and {STEPS} steps each")
    for name, path in pages:
        time.sleep(0.6)  # until the index looks at the disk again
        cpu, wall = cpu_seconds(process), time.perf_counter()
        answer = client.get(path)
        seconds = time.perf_counter() - wall
        assert answer.status_code == 200, path
        print(
            f"{name}: {seconds:.2f} s, {cpu_seconds(process) - cpu:.2f} s of CPU, {len(answer.content) / 1000:.0f} kB"
        )
    with client.stream("GET", f"/events/{first}") as stream:
        lines = stream.iter_lines()
        next(line for line in lines if line.startswith("event: state"))
        started = time.perf_counter()
        with (folder / first / "ppo" / "metrics.jsonl").open("a") as metrics:
            metrics.write(json.dumps({"step": STEPS, "train/loss": 0.1}) + "\n")
        next(line for line in lines if line.startswith("event: steps"))
        print(f"a step that is appended arrives after {time.perf_counter() - started:.2f} s")


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def write_run(folder: Path, number: int) -> None:
    """Write a finished run of one stage."""
    stage = folder / "ppo"
    stage.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        f"defaults:\n- override /method: ppo\n- override /dataset: pocket\n- override /model: pocket\nseed: {number}\n"
    )
    write_lines(
        stage / "metrics.jsonl", [{"step": n, "train/loss": 1 / (n + 1), "policy/kl": n / 100} for n in range(STEPS)]
    )
    write_lines(stage / "samples.jsonl", [sample(n, number) for n in range(RECORDS)])
    write_lines(stage / "records.jsonl", [{"measure": "gold", "id": str(n), "values": {}} for n in range(RECORDS)])
    rows = [measured(name, (number * 7 % 100) / 100) for name in MEASURES]
    result = json.dumps({"stage": "ppo", "seed": number, "measurements": rows, "seconds": 1, "model": "", "report": ""})
    for place in (folder, stage):
        (place / "result.json").write_text(result)
    (folder / "plan.json").write_text(json.dumps([{"stage": "ppo", "action": "ran"}]))


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write a JSONL file."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sample(number: int, run: int) -> dict[str, Any]:
    """Return a completion whose scores depend on the run."""
    text = f"A completion of some length, number {number}, that says what it has to say in twenty words. " * 3
    models = {
        name: {"completion": f"{text} {name}", "finished": True, "tokens": 60}
        for name in ("before", "previous", "after")
    }
    scores = {name: float((number + run) % 2) for name in MEASURES}
    return {
        "id": str(number),
        "kind": "how_to",
        "prompt": [{"role": "user", "content": text}],
        **models,
        "scores": scores,
    }


def measured(name: str, value: float) -> dict[str, Any]:
    """Return a row of a result."""
    ends = {"value": value, "low": value - 0.05, "high": value + 0.05}
    return {"name": name, "n": RECORDS, "rate": True, "better": "higher", **ends, "before": ends, "difference": {}}


if __name__ == "__main__":
    main()
