"""What is freed stays with the process, so that the system clears no page again."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from alignlab.runtime.heap import keep_freed
if sys.argv[1] == "keep":
    keep_freed()
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    tensors = [torch.ones(4 << 20, dtype=torch.uint8) for _ in range(20)]
use()
before = pages()
for _ in range(10):
    use()
print(pages() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's options")
def test_memory_that_is_freed_is_not_cleared_again():
    fixed = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}  # glibc's first bound, which it else moves as it likes
    plain, kept = (
        int(subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, check=True, env=fixed).stdout)
        for how in ("plain", "keep")
    )
    used = 10 * 20 * 1024  # pages of 4 kB
    assert plain >= 0.9 * used
    assert kept <= 0.1 * used
