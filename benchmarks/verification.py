"""Measure what the verification of stored files costs a stage: the CPU time of hashing beside that of the whole run.

`python benchmarks/verification.py model=local model.path=FOLDER` trains a stage of SFT in a cache of its own, then asks
for it again. Hashing runs in a thread while training continues, so that its CPU time is the most that it can cost.
"""

import sys
import tempfile
import time
from pathlib import Path

import alignlab
from alignlab.runtime import manifest

STAGE = ("method=sft", "dataset=pocket_small", "evaluation=none", "tracking=jsonl", "hardware.device=cpu")
STEPS = ("method.max_steps=4", "method.save_steps=4")


def main() -> None:
    """Train, reuse, and print the shares of the time that went into hashing."""
    hash_file, read = manifest.sha256, [0, 0.0]

    def timed(path: Path) -> str:
        started = time.thread_time()
        result = hash_file(path)
        read[0] += path.stat().st_size
        read[1] += time.thread_time() - started
        return result

    manifest.sha256 = timed
    with tempfile.TemporaryDirectory() as folder:
        for run in ("trained", "reused, verified", "reused"):
            read[:] = 0, 0.0
            started = time.process_time()
            with_settings = alignlab.compose(*STAGE, *STEPS, *sys.argv[1:])
            alignlab.run(with_settings, Path(folder) / run.replace(", ", "_"))
            taken = time.process_time() - started
            hashing = f"hashing {read[0] / 1e9:.2f} GB took {read[1]:.2f} s ({read[1] / taken:.1%})"
            print(f"{run}: {taken:.1f} s of CPU time, of which {hashing}", flush=True)


if __name__ == "__main__":
    main()
