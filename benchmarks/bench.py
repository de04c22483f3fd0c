"""Train beside TRL and a bare loop, in turns on the same rows, and compare CPU time, memory and the work done.

    make bench                                          # every case three times, on one thread and on two
    make bench-check                                    # alignlab by the bare loop, beside the last table
    .venv/bin/python benchmarks/bench.py --cases=dpo,rm --rounds=1 --steps=4     # single cases; a few minutes each
    .venv/bin/python benchmarks/bench.py --cases=sft-512 --threads=2
    .venv/bin/python benchmarks/bench.py --cases=lora --lora=FOLDER   # DPO with LoRA on a model, such as SmolLM2

CPU time (`time.process_time`) is what another process on the machine changes least: it measures one thread. Two threads
wait for each other, so they are measured by wall time, on a machine that does nothing else. A side's rate is the tokens
of its steps after the first by their time. Tokens are no padding, and count a pair's prompt twice for every side.
TRL runs as it comes (`trl`), and with its best documented switches (`trl_best`): no gradient checkpointing, which is on
in TRL alone; packing for SFT; the reference in advance for DPO, whose time counts: over one epoch, each side computes
the reference once for each row. Every run has an empty cache, since TRL and alignlab both keep references on disk. See
`bench_side.py` for the sides. A case replaces what `parts/bench.json` has of it; the table is written from all of it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from bench_table import PACKING, PRODUCTS, Record, Recorded, relative, table

HERE = Path(__file__).parent
RECORD = HERE / "parts" / "bench.json"
FILES = {"train": "harmless-base.train.2000.jsonl", "test": "harmless-base.test.dev.jsonl"}
ROWS, ROUNDS, STEPS, TOLERANCE = 400, 3, 6, 0.2
COMMON = (
    "dataset=hh_rlhf", "method.policy=base", "method.learning_rate=1e-4", "method.num_train_epochs=1",
    "method.batch_size=8", "hardware.device=cpu", "evaluation=none", "tracking=jsonl",
)  # fmt: skip
MODEL = (
    "model=scratch", "model.vocab_size=4096", "model.hidden_size=256", "model.intermediate_size=688",
    "model.num_hidden_layers=5", "model.num_attention_heads=8", "model.num_key_value_heads=8",
    "model.max_position_embeddings=2048",
)  # fmt: skip


class Case(NamedTuple):
    """One block of the table: a title, a method, its settings, and the compared sides; the first is alignlab."""

    title: str
    method: str
    settings: tuple[str, ...]
    sides: tuple[str, ...]


TRL = ("trl", "trl_best")
MORE = {PACKING: ("method.packing=true",), PRODUCTS: ("hardware.matmul=torch",)}  # settings of some sides
CASES = {
    "sft-512": Case(
        "SFT, 512", "sft", (*MODEL, "method.max_length=512"), ("alignlab", PRODUCTS, PACKING, "bare", *TRL)
    ),
    "rm": Case("reward model", "rm", (*MODEL, "method.max_length=512"), ("alignlab", PRODUCTS, *TRL)),
    "dpo": Case("DPO", "dpo", (*MODEL, "method.max_length=512", "method.nll_weight=0"), ("alignlab", PRODUCTS, *TRL)),
    "sft-1024": Case("SFT, 1,024", "sft", (*MODEL, "method.max_length=1024"), ("alignlab", PACKING)),
    "sft-2048": Case("SFT, 2,048", "sft", (*MODEL, "method.max_length=2048"), ("alignlab", PACKING)),
}
CHECKED = {
    "sft-512": CASES["sft-512"]._replace(sides=(PRODUCTS, "bare")),
    **{name: CASES[name]._replace(sides=(PRODUCTS,)) for name in ("rm", "dpo")},
}


def lora_case(folder: str) -> Case:
    """Return the case of a real model with adapters, on pairs of at most 256 tokens."""
    model = ("model=local", f"model.path={folder}", "model/adapter=lora", "hardware.dtype=float32")
    return Case(
        "DPO with LoRA", "dpo", (*model, "method.max_length=256", "method.nll_weight=0"), ("alignlab", PRODUCTS, "trl")
    )


def measure(cases: dict[str, Case], threads: int, rounds: int, steps: int) -> dict[str, Recorded]:
    """Run every side of every case, in turns."""
    results: dict[str, Recorded] = {
        key: {"method": case.method, "title": case.title, "steps": steps, "sides": {side: [] for side in case.sides}}
        for key, case in cases.items()
    }
    for number in range(rounds):
        for key, case in cases.items():
            for side in case.sides:
                cost = run(case, side, steps, threads)
                results[key]["sides"][side].append(cost)
                print(number, case.title, side, cost, flush=True, file=sys.stderr)
    return results


def rows_of(folder: Path) -> tuple[str, ...]:
    """Write the first rows of the training file, and return the settings that name the files."""
    data = Path(os.environ["ALIGNLAB_DATA"]) / "hh-rlhf"
    with (data / FILES["train"]).open(encoding="utf-8") as lines:
        (folder / "train.jsonl").write_text("".join(islice(lines, ROWS)), encoding="utf-8")
    return f"dataset.train={folder / 'train.jsonl'}", f"dataset.test={data / FILES['test']}"


def run(case: Case, side: str, steps: int, threads: int) -> dict[str, Any]:
    """Run one side in its own process, from an empty cache."""
    more = MORE.get(side, ())
    with tempfile.TemporaryDirectory() as name:
        limits = f"method.max_steps={steps}", f"hardware.threads={threads}"
        settings = (*COMMON, *case.settings, *limits, *rows_of(Path(name)), *more)
        command = [sys.executable, str(HERE / "bench_side.py"), case.method, side.partition(",")[0], *settings]
        quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        environment = os.environ | quiet | {"OMP_NUM_THREADS": str(threads), "ALIGNLAB_CACHE": f"{name}/cache"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    cost: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    seconds = cost["steps"] + cost["reference"]
    return cost | {"losses": cost["losses"][:1], "rate": cost["tokens"] / seconds}


def read_record() -> Record:
    """Return the costs that are recorded."""
    record: Record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    return record


def measure_and_record(cases: dict[str, Case], threads: int, rounds: int, steps: int) -> None:
    """Measure cases and write them over their former costs, each as soon as it is measured."""
    for key, case in cases.items():
        costs = measure({key: case}, threads, rounds, steps)
        record = read_record()
        record[str(threads)] = record.get(str(threads), {}) | costs
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def bench() -> Iterator[str]:
    """Measure every case on one thread and on two, and yield the table; a part of `evidence.py`."""
    for threads in (1, 2):
        measure_and_record(CASES, threads, ROUNDS, STEPS)
    yield from table(read_record())


def check() -> int:
    """Compare with the last table; return 1 where a rate, by the bare loop's, has fallen by more than `TOLERANCE`."""
    if "sft-512" not in (record := read_record()).get("1", {}):
        raise SystemExit(f"{RECORD}: there is no bare loop to compare with; run `make bench` first")
    now, before = relative({"1": measure(CHECKED, 1, 1, STEPS)}), relative(record)
    for name, rate in now.items():
        earlier = f"{rate / before[name]:.2f} of the last table's" if name in before else "not in the last table"
        print(f"{name}: {rate:.2f} of the bare loop's rate, {earlier}")
    return int(any(rate < (1 - TOLERANCE) * before.get(name, 0.0) for name, rate in now.items()))


def main(arguments: Sequence[str] = sys.argv[1:]) -> int:
    """Run what the command line names, and write the table from all that is recorded."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--lora", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args(arguments)
    if options.check:
        return check()
    from evidence import write_part

    cases = CASES | ({"lora": lora_case(options.lora)} if options.lora else {})
    keys = options.cases.split(",")
    if unknown := ", ".join(set(keys) - set(cases)):
        parser.error(f"--cases: {unknown} is none of {', '.join(cases)}; lora needs --lora=FOLDER")
    chosen = {key: cases[key] for key in keys}
    measure_and_record(chosen, options.threads, options.rounds, options.steps)
    write_part("bench", table(read_record()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
