"""Measure how long pairs of HH-RLHF take to tokenise for DPO: `python benchmarks/tokenising.py 160000`.

It needs `ALIGNLAB_DATA` with HH-RLHF's harmless pairs, and SmolLM2's folder in `ALIGNLAB_SMOLLM2`. Pairs are repeated,
each time with other first words, until there are as many as asked for. Its output is a line of RESULTS.md.
"""

import gzip
import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from alignlab import compose
from alignlab.runtime.distributed import configure_process
from alignlab.runtime.stage_run import Run
from alignlab.runtime.worker_pool import usable_cores

PAIRS, LONGEST = 160_000, 180  # the aim, in seconds on two cores
FILE, TEST = "hh-rlhf/harmless-base.train.jsonl.gz", "hh-rlhf/harmless-base.test.dev.jsonl"


def write_pairs(file: Path, count: int) -> None:
    """Write so many different pairs in the format of HH-RLHF."""
    with gzip.open(Path(os.environ["ALIGNLAB_DATA"]) / FILE, "rt", encoding="utf-8") as stream:
        pairs = [json.loads(line) for line in stream]
    with file.open("w", encoding="utf-8") as stream:
        for number in range(count):
            pair = pairs[number % len(pairs)]
            turn = number // len(pairs)
            begin = f"\n\nHuman: {f'Question {turn}: ' if turn else ''}"
            stream.write(json.dumps({key: text.replace("\n\nHuman: ", begin, 1) for key, text in pair.items()}) + "\n")


def measure(count: int, folder: Path) -> str:
    """Tokenise the pairs twice, the second time from the cache; return both times, and whether the aim is met."""
    from transformers import AutoTokenizer

    from alignlab.data import view
    from alignlab.methods import dpo
    from alignlab.pipeline.prepare_inputs import prepare_data

    os.environ["ALIGNLAB_CACHE"] = str(folder / "cache")
    data = Path(os.environ["ALIGNLAB_DATA"])
    file, model = folder / "pairs.jsonl", os.environ["ALIGNLAB_SMOLLM2"]
    write_pairs(file, count)
    paths = [f"dataset.train={file}", f"dataset.test={data / TEST}", "dataset.validation=0.001"]
    config = compose("method=dpo", "model=local", f"model.path={model}", "dataset=hh_rlhf", *paths)
    configure_process(1)
    prepare_data(config)
    rows = view(config.dataset, "pairs", "train")
    run: Run = Run(config, config.method, {"policy": Path(model)}, folder, None)  # type: ignore[arg-type, type-arg]
    tokenizer = AutoTokenizer.from_pretrained(model)
    seconds, of_cpu = [], []
    for _ in range(2):
        start, cpu = time.monotonic(), cpu_seconds()
        tokens = dpo.tokenise_pairs(run, tokenizer)["train"]
        seconds.append(time.monotonic() - start)
        of_cpu.append(cpu_seconds() - cpu)
    assert len(tokens) == len(rows)
    cores, load = usable_cores(), os.getloadavg()[0]
    first = f"{seconds[0]:.0f} s ({of_cpu[0]:.0f} s of CPU)"
    times = f"{len(rows):,} pairs, {cores} cores, load {load:.1f}: {first}, again from the cache {seconds[1]:.1f} s"
    if count < PAIRS:
        return times
    return f"{times}\n- {'met' if seconds[0] < LONGEST else '**not met**'}: {PAIRS:,} pairs in under {LONGEST} s"


def cpu_seconds() -> float:
    """Return the CPU time of this process and of the processes that it has started and that have ended."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        print(measure(int(sys.argv[1]), Path(folder)))
