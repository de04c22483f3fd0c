"""Folders of runs as alignlab writes them, made in milliseconds, and a dashboard over them."""

import json
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import uvicorn

from alignlab.dashboard.app import Dashboard
from alignlab.dashboard.runs import Index

CONFIG = (
    "defaults:\n- override /method: {method}\n- override /dataset: pocket_small\n- override /model: {model}\nseed: 3\n"
)


def measured(name, value, base, better="higher"):
    """A row of a result."""
    row = {
        "name": name,
        "value": value,
        "low": value - 0.01,
        "high": value + 0.01,
        "n": 80,
        "rate": True,
        "better": better,
    }
    return row | {"before": {"value": base, "low": base, "high": base}, "difference": {}}


def write_run(folder, method="ppo", helpful=0.8, harmful=0.1, rows=4, model="pocket_small", text="yes", finished=True):
    """Write a run of one stage with two measures, a curve of ten steps, and completions."""
    stage = folder / method
    stage.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG.format(method=method, model=model))
    steps = [{"step": step, "train/loss": 1 / (step + 1), "policy/kl": step / 10} for step in range(10)]
    (stage / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    if not finished:
        return folder
    samples = [sample(number, text) for number in range(rows)]
    (stage / "samples.jsonl").write_text("".join(json.dumps(each) + "\n" for each in samples))
    measurements = [measured("gold/helpful", helpful, 0.5), measured("gold/harmful_compliance", harmful, 0.9, "lower")]
    result = {"stage": method, "seed": 3, "measurements": measurements, "seconds": 1, "model": "", "report": ""}
    for place in (folder, stage):
        (place / "result.json").write_text(json.dumps(result))
    (folder / "plan.json").write_text(json.dumps([{"stage": method, "action": "ran"}]))
    return folder


def sample(number, text="yes"):
    """A held-out prompt with its completions; the score of every second one is 0."""
    answers = {
        name: {"completion": f"{text} {name} {number}", "finished": True, "tokens": 3}
        for name in ("before", "previous", "after")
    }
    kind, scores = ("how_to", "fact")[number % 2], {"gold/score": float(number % 2), "gold/helpful": 1.0}
    prompt = [{"role": "user", "content": f"{text} question {number}"}]
    return {"id": f"id-{number}", "kind": kind, "prompt": prompt, **answers, "scores": scores}


@contextmanager
def dashboard(folder, token="", explain=None, hosts=()):
    """Serve the runs of `folder`/outputs and `folder`/multirun on a free port, and yield a client."""
    shown = Dashboard(Index({name: folder / name for name in ("outputs", "multirun")}), token, explain)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(shown.application(hosts), log_level="error", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url, timeout=30) as client:
                client.url = url
                yield client
        finally:
            shown.closing = server.should_exit = True
            thread.join()
