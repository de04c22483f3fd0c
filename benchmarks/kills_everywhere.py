"""Kill every method, task and sweep at drawn moments of its whole run, and compare the end of the same command.

    .venv/bin/python benchmarks/kills_everywhere.py           # or some names, such as sft cai; about half an hour
    .venv/bin/python benchmarks/evidence.py kills_everywhere  # writes the table of the kills that are recorded

Moments are seconds of CPU time of the command and its children, so that a busy machine does not move them. Each third
of a run is killed once. A run begins with imports and an empty cache, and ends with the report.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from faults import COMMANDS, Place
from running import PPO, WORDS, children, gone, tiny

EVALUATED = ("evaluation=quick", "evaluation.prompts=8", "evaluation.samples=2")
STEPS = ("method.batch_size=8", "method.max_steps=48", "method.save_steps=6", *EVALUATED)
ROLLOUTS = ("method.total_episodes=192", "method.save_steps=2", *EVALUATED)
WITH_GROUPS = [part for part in PPO if part != "method=ppo"]


def answered(*stages: str) -> list[str]:
    """Return the settings of stages that the model answers its own few prompts for."""
    few = ("prompts=8", "red_team=null", "max_new_tokens=8", "batch_size=8", "max_steps=12", "max_length=96")
    return [f"{stage}.{setting}" for stage in stages for setting in few]


CAI = answered("stages.cai_sft")
SFT = tiny("method=sft", *STEPS)
RUNS = {
    "sft": SFT,
    "rm": tiny("method=rm", *STEPS),
    "dpo": tiny("method=dpo", *STEPS),
    "kto": tiny("method=kto", *STEPS, "dataset.label_pairs=true"),
    "cost": tiny("method=cost", *STEPS, "dataset.validation=0.15", "dataset.label_pairs=true"),
    "ppo": tiny(*PPO, WORDS, *ROLLOUTS),
    "grpo": tiny("method=grpo", *WITH_GROUPS, WORDS, *ROLLOUTS, "method.group_size=4"),
    "cai": tiny("method=cai", *CAI, *answered("method"), "method.save_steps=2", *EVALUATED),
    "cai, then ppo": tiny(
        "method=cai", "method.then=ppo", *CAI, *answered("stages.cai_rm"), "method.policy=auto", *PPO[2:],
        "method.total_episodes=96", "method.save_steps=2", *EVALUATED,
    ),
    "sweep": tiny("method=sft", *STEPS, "method.learning_rate=1e-3,2e-3", "-m"),
}  # fmt: skip
TASKS = {
    "prepare": COMMANDS["prepare"],
    "generate": ["task=generate", "task.model=outputs/latest/sft/model", "task.prompts=rows.jsonl",
                 "task.max_new_tokens=8", "task.batch_size=4"],
    "evaluate": ["task=evaluate", "task.model=outputs/latest/sft/model", *EVALUATED,
                 *(part for part in SFT if part.startswith(("dataset", "model", "hardware")))],
    "explain": ["task=explain", "task.run=outputs/latest", "task.measure=length/mean", "task.items=3"],
}  # fmt: skip
TRAINED_FIRST = ("generate", "evaluate", "explain")  # they read the run of `SFT`
EACH = 3
RECORD = Path(__file__).parent / "parts" / "kills_everywhere.json"  # the kills by command


class Kill(NamedTuple):
    """A kill: the command, its CPU time and phase at the kill, the seconds until all had ended, and the faults."""

    name: str
    moment: float
    phase: str
    ended: float
    faults: list[str]


def kills_everywhere() -> Iterator[str]:
    """Return the table of the kills that were recorded."""
    done = [Kill(*kill) for kills in read_record().values() for kill in kills]
    yield "Every method, task and sweep on a tiny model (`benchmarks/kills_everywhere.py`) is killed (SIGKILL) once in"
    yield "each third of its run, at a drawn moment of its CPU time, and given again. It has to end with the same files"
    yield "by hash (weights, data, samples, records of measurements, explanations, completions). Nothing may be left"
    yield "running after 5 s, nor a temporary folder."
    yield ""
    yield "| command | killed after, in s of CPU time | none left after | end |"
    yield "|---|---|---|---|"
    for name in dict.fromkeys(kill.name for kill in done):
        kills = [kill for kill in done if kill.name == name]
        moments = ", ".join(f"{kill.moment:.1f} ({kill.phase})" for kill in kills)
        faults = "; ".join(fault for kill in kills for fault in kill.faults)
        end = f"**{faults}**" if faults else "the same"
        yield f"| {name} | {moments} | {max(kill.ended for kill in kills):.1f} s | {end} |"
    good = sum(not kill.faults for kill in done)
    phases = ", ".join(f"{count} {phase}" for phase, count in Counter(kill.phase for kill in done).items())
    yield ""
    yield f"- {'met' if good == len(done) else '**not met**'}: {good} of {len(done)} kills with the same end ({phases})"


def read_record() -> dict[str, list[Any]]:
    """Return the kills by command, in the order of `RUNS` and `TASKS`."""
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    return {name: record[name] for name in RUNS | TASKS if name in record}


def kills_of(name: str) -> Iterator[Kill]:
    """Run a command to its end, then kill it at each of its moments; every run begins in the same folder."""
    draw = Random(name)
    with tempfile.TemporaryDirectory(prefix="kills-") as top:
        folder, template = Path(top) / "place", Path(top) / "template"
        folder.mkdir()
        place = Place(folder, SFT)
        if name in TRAINED_FIRST and (ended := place.run()).code:
            raise SystemExit(ended.printed)
        place.command = (RUNS | TASKS)[name]
        shutil.copytree(folder, template, symlinks=True)
        seconds, ended = timed(place), made(place)
        for third in range(EACH):
            restore(template, folder)
            moment = seconds * (third + draw.random()) / EACH
            while (one := kill(place, name, moment, ended)) is None:
                moment *= 0.9  # the run took less CPU time than the first one
                restore(template, folder)
            print(one, flush=True)
            yield one
        if left := place.close():
            raise SystemExit(f"{name}: temporary folders: {left}")


def restore(template: Path, folder: Path) -> None:
    """Put a folder back to the state before the command."""
    shutil.rmtree(folder)
    shutil.copytree(template, folder, symlinks=True)


def timed(place: Place) -> float:
    """Run a command to its end and return its CPU time in seconds."""
    process, seconds = place.start(), 0.0
    while process.poll() is None:
        seconds = max(seconds, cpu_seconds(process.pid))
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit((place.folder / "log").read_text(encoding="utf-8"))
    return seconds


def kill(place: Place, name: str, moment: float, expected: str) -> Kill | None:
    """Kill a command at a moment of its CPU time, run it again, and compare; None where it ended before."""
    before = runs_in(place)
    process = place.start()
    while process.poll() is None and cpu_seconds(process.pid) < moment:
        time.sleep(0.01)
    if process.poll() is not None:
        return None
    below = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    struck = time.monotonic()
    faults = [] if gone(below, 5) else ["still running after 5 s"]
    seconds, at = time.monotonic() - struck, phase(place, name, before)
    again = place.run()
    faults += [] if again.code == 0 else [f"exit code {again.code}: {again.printed[-200:]}"]
    faults += [] if made(place) == expected else ["another end"]
    faults += [f"temporary: {left}" for left in temporary(place)]
    return Kill(name, moment, at, seconds, faults)


def made(place: Place) -> str:
    """Return the hash of what the last run made, with the completions of task=generate."""
    completions = place.folder / "rows.completions.jsonl"
    return place.made() + (completions.read_text(encoding="utf-8") if completions.exists() else "")


def temporary(place: Place) -> list[str]:
    """Return the names of temporary files and folders, which a finished command has to have removed."""
    left = [*place.temporary.iterdir(), *place.folder.rglob("*.partial")]
    return [path.name for path in left]


def runs_in(place: Place) -> set[Path]:
    """Return the folders of runs."""
    return {*place.folder.glob("outputs/2*/*"), *place.folder.glob("multirun/*")}


def phase(place: Place, name: str, before: set[Path]) -> str:
    """Return how far a killed command has come, by the folders that it made."""
    stages = [path.name for path in place.folder.glob("cache/stages/*-*")]
    files = {path.name for run in runs_in(place) - before for path in run.rglob("*")}
    if name in TASKS:
        return "files written" if files or (place.folder / "rows.completions.jsonl").exists() else "no file yet"
    if any(stage.endswith(".partial") for stage in stages):
        return "training"
    if "records.jsonl" in files:
        return "report"
    return "evaluation" if stages else "start-up"


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process, of those below it and of those that they have waited for."""
    ticks = 0
    for one in [process, *children(process)]:
        try:
            ticks += sum(map(int, Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11:15]))
        except OSError:  # it has ended meanwhile
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Kill the named commands, or all, and keep the kills of each."""
    for name in sys.argv[1:] or [*RUNS, *TASKS]:
        kills = [*kills_of(name)]
        RECORD.write_text(json.dumps(read_record() | {name: kills}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
