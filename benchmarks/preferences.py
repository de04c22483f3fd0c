"""Measure task=preferences: kills on real prompts, annotators of known reliability, an unreliable server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from chat_server import chat_server, honest, said

FILES = ("answers.jsonl", "labels.jsonl", "data/pairs.jsonl", "data/rankings.jsonl", "data/best.jsonl")
HH = (
    "dataset=hh_rlhf",
    "dataset.train={data}/harmless-base.train.2000.jsonl",
    "dataset.test={data}/harmless-base.test.dev.jsonl",
)
MODEL = ("model=scratch", "tracking=jsonl", "evaluation=none", "hardware.threads=1")
RELIABILITIES = (0.6, 0.6875, 0.775, 0.8625, 0.95)
SEEDS = range(5)


def preferences() -> Iterator[str]:
    """Run all three benchmarks."""
    with tempfile.TemporaryDirectory() as name:
        yield from killed_twice(Path(name))
    yield ""
    with tempfile.TemporaryDirectory() as name:
        yield from annotated(Path(name))
    yield ""
    with tempfile.TemporaryDirectory() as name:
        yield from erring(Path(name))


def alignlab(folder: Path, *arguments: str) -> str:
    """Run a command as a user does; return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "alignlab", *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    print(" ".join(arguments), flush=True)
    return done.stdout


def environment(folder: Path) -> dict[str, str]:
    """Return the environment with a separate cache."""
    return os.environ | {"ALIGNLAB_CACHE": str(folder / "cache")}


def killed_twice(folder: Path) -> Iterator[str]:
    """Label 200 prompts of HH-RLHF with a kill during sampling and one during judging; compare with an unkilled run."""
    data = os.environ.get("ALIGNLAB_DATA")
    if not data:
        yield "Not measured: ALIGNLAB_DATA names no folder of real data."
        return
    real = [one.format(data=f"{data}/hh-rlhf") for one in HH]
    for method in ("sft", "rm"):
        short = ("method.max_steps=30", "method.batch_size=16", "method.max_length=192")
        alignlab(folder, f"method={method}", *MODEL, *real, *short)
        shutil.copytree((folder / "outputs" / "latest" / method / "model").resolve(), folder / method)
    own = ("task.model=sft", "judge=reward", "reward.path=rm", "preferences.prompts=200")
    command = ("task=preferences", *MODEL, *real, *own)
    moments = [kill(folder, command, "answers", 64), kill(folder, command, "labels", 64)]
    alignlab(folder, *command)
    gone_on = files(folder)
    for journal in (folder / "cache" / "preferences").glob("*.jsonl"):
        journal.unlink()
    began = time.monotonic()
    alignlab(folder, *command)
    seconds = time.monotonic() - began
    alone = files(folder)
    same = sum(gone_on.get(name) == text for name, text in alone.items())
    shown, names = " ".join(command).replace(data, "…"), ", ".join(f"`{name}`" for name in alone)
    yield f"`python -m alignlab {shown}` (SFT and reward model of 30 steps each, made before):"
    yield f"killed (SIGKILL) with {moments[0]} of 200 prompts answered, and again with {moments[1]} labelled, then"
    yield f"finished by the same command. {names} against a run from the start, which takes {seconds:.0f} s:"
    yield f"{same} of {len(alone)} the same, byte for byte ({sum(map(len, alone.values())):,} bytes)."
    yield ""
    yield f"- {'met' if gone_on == alone and max(moments) < 200 else '**not met**'}: the same files after two kills"


def files(folder: Path) -> dict[str, bytes]:
    """Return the results of a run without failed requests."""
    latest = folder / "outputs" / "latest"
    return {name: (latest / name).read_bytes() for name in FILES if (latest / name).exists()}


def kill(folder: Path, command: tuple[str, ...], journal: str, lines: int) -> int:
    """Start the command and kill it once a journal has so many lines; gives how many it has then."""
    run = subprocess.Popen(
        [sys.executable, "-m", "alignlab", *command], cwd=folder, env=environment(folder), stdout=subprocess.DEVNULL
    )

    def done() -> int:
        found = (folder / "cache" / "preferences").glob(f"{journal}-*.jsonl")
        return sum(path.read_bytes().count(b"\n") for path in found)

    while run.poll() is None and done() < lines:
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.wait()
    return done()


def known(folder: Path) -> dict[str, Any]:
    """Return the facts of a run's report."""
    facts: dict[str, Any] = json.loads((folder / "outputs" / "latest" / "preferences.json").read_text(encoding="utf-8"))
    return facts


def annotated(folder: Path) -> Iterator[str]:
    """Run five simulated annotators over five seeds."""
    command = ("task=preferences", "judge=annotators", "preferences.prompts=350", "seed=0,1,2,3,4", "-m")
    alignlab(folder, *command)
    yield f"`python -m alignlab {' '.join(command)}`: the base model's answers on"
    yield f"pocket, simulated annotators who are right as often as {', '.join(map(str, RELIABILITIES))}, and Dawid and"
    yield "Skene's consensus. Pairs in the right order by gold, in per cent; 95% intervals over prompts; farthest is"
    yield "the largest difference between an annotator's reliability as estimated, without gold, and as it was set."
    yield ""
    yield "| seed | pairs | consensus | majority | best one | consensus − majority | consensus − best one | farthest |"
    yield "|---|---|---|---|---|---|---|---|"
    met = []
    for seed in SEEDS:
        (found,) = folder.glob(f"multirun/*/*/{seed}/preferences.json")
        facts = json.loads(found.read_text(encoding="utf-8"))
        right = {one["name"]: one for one in facts["right"]}
        (gain, beside) = (right[name] for name in right if "−" in name)
        best = right[beside["name"].partition(" − ")[2]]
        off = max(abs(one["reliability"] - true) for one, true in zip(facts["labelers"], RELIABILITIES, strict=True))
        values = [f"{100 * right[name]['value']:.1f}" for name in ("consensus", "majority")]
        cells = [*values, f"{100 * best['value']:.1f}", points(gain), points(beside), f"{off:.3f}"]
        yield f"| {seed} | {gain['pairs']:,} | {' | '.join(cells)} |"
        met.append((gain["pairs"] >= 1000, gain["low"] > 0, beside["high"] >= 0, off <= 0.05))
    yield ""
    for number, what in enumerate(
        (
            "at least 1,000 pairs in every seed",
            "the consensus beats the majority, the interval excludes 0, in every seed",
            "it is no worse than the best annotator (no interval lies below 0) in every seed",
            "every reliability is estimated within 0.05 in every seed",
        )
    ):
        yield f"- {'met' if all(one[number] for one in met) else '**not met**'}: {what}"


def points(one: dict[str, float]) -> str:
    """Return a difference in percentage points with its interval."""
    said = f"{100 * one['value']:+.1f} ({100 * one['low']:+.1f} to {100 * one['high']:+.1f})"
    return said.replace("-", "−")


def erring(folder: Path) -> Iterator[str]:
    """A server that answers every second request correctly, and fails for good at some moment."""
    random = Random(0)
    troubles: Counter[str] = Counter()
    ill = {
        "429": lambda: (429, "", {"Retry-After": "0.05"}),
        "500": lambda: (500, "oops", {}),
        "timeout": lambda: time.sleep(0.6) or (200, "", {}),
        "broken answer": lambda: (200, '{"choices": [', {}),
        "nonsense": lambda: said({"A": {"safety": {"rank": 0}}}),
    }

    def moody(body: Any, number: int) -> Any:
        kind = random.choice([*ill, *["good"] * len(ill)])
        troubles[kind] += 1
        return honest(body, number) if kind == "good" else ill[kind]()

    os.environ["no_proxy"] = "127.0.0.1"
    with chat_server(moody) as server:
        own = (
            f"judge.url={server.url}",
            "judge.model=m",
            "judge.timeout=0.5",
            "judge.backoff=0.02",
            "judge.retries=12",
        )
        command = ("task=preferences", "judge=openai", *own, "preferences.prompts=200", "tracking=jsonl")
        alignlab(folder, *command)
        facts = known(folder)
        pairs = [json.loads(line) for line in (folder / "outputs" / "latest" / "data" / "pairs.jsonl").open()]
        wrong = sum(len(one["chosen"][0]["content"]) < len(one["rejected"][0]["content"]) for one in pairs)
        counted = facts["cost"]["again"]
        ill_ones, again = troubles.total() - troubles["good"], sum(counted.values())
        yield "A server on the loopback that ranks by length, and at random answers every other request with 429, 500,"
        yield f"silence, broken JSON or impossible ranks ({ill_ones:,} of {len(server.asked):,} requests;"
        yield f"`judge=openai`, eight at a time): {facts['labelled']} of {facts['compared']} prompts labelled; again"
        yield f"{', '.join(f'{count} × {kind}' for kind, count in sorted(counted.items()))}; {wrong} of {len(pairs):,}"
        yield "pairs are not as the server ranks them."
        yield ""
        met = (
            not wrong and facts["labelled"] == facts["compared"] and again == len(server.asked) - 2 * facts["labelled"]
        )
        yield f"- {'met' if met else '**not met**'}: every label is the server's own, every further try is counted"
    yield from stopping(folder)


def stopping(folder: Path) -> Iterator[str]:
    """Run a judge whose server fails for good after 100 requests."""
    with chat_server(lambda body, number: honest(body, number) if number < 100 else (503, "", {})) as server:
        own = (f"judge.url={server.url}", "judge.model=other", "judge.backoff=0.01", "judge.retries=2")
        command = [
            sys.executable,
            "-m",
            "alignlab",
            "task=preferences",
            "judge=openai",
            *own,
            "preferences.prompts=200",
        ]
        done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True)
        told = [line for line in done.stderr.splitlines() if line.startswith("judge: ")]
        server.script, asked = honest, len(server.asked)
        again = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True)
        facts = known(folder)
        left = (len(server.asked) - asked) // 2
    met = done.returncode == 1 and len(told) == 1 and again.returncode == 0 and left < facts["labelled"]
    said_so = told[0].replace(server.url, "…") if told else done.stderr[-200:]
    yield f"- {'met' if met else '**not met**'}: one that breaks down for good stops the run with"
    yield f"  `{said_so}`;"
    yield f"  mended, the same command asks for {left} of {facts['labelled']} prompts, those that had no label"
