"""An evaluation that is killed five times leaves the records of one that was not, and computes nothing twice."""

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise

import pytest
from tiny import tiny_model, tiny_tokenizer

WORDS = ("how do i bake", "how do i stop", "why now", "mix flour and water", "bake bread", "no", "yes", "stop bread")
COUNTED = """
import os, signal, sys
from alignlab.evaluation.subjects import LanguageModel
from alignlab.models import load

log, last, stored = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "stored"
lines = 0

def write(line):
    with open(log, "a") as stream:
        stream.write(line + "\\n")

def counted(name, method):
    def batches(self, items, *how):
        global lines
        for batch in method(self, items, *how):
            lines += 1
            if lines == last and not stored:
                os.kill(os.getpid(), signal.SIGKILL)  # computed, and not in the journal
            yield batch
            write(" ".join([name, self.fingerprint, *(items[place].id for place in sorted(batch))]))
            if lines == last:
                os.kill(os.getpid(), signal.SIGKILL)
    return batches

for name in ("sample", "score"):
    setattr(LanguageModel, name, counted(name, getattr(LanguageModel, name)))
loaded = LanguageModel.loaded.func
LanguageModel.loaded.func = lambda self: (write("loaded"), loaded(self))[1]

from alignlab.__main__ import main
sys.argv = ["alignlab", *sys.argv[4:]]
main()
"""


def items_of(lines):
    """Return the items of the computed batches, with how they were asked and the model."""
    return [(*line.split()[:2], item) for line in lines for item in line.split()[2:]]


@pytest.mark.runs
def test_an_evaluation_that_is_killed_five_times_has_the_same_records_and_computes_nothing_twice(tmp_path):
    for seed, name in enumerate(("base", "policy")):
        tiny_model(seed).save_pretrained(tmp_path / name)
        tiny_tokenizer().save_pretrained(tmp_path / name)
    pairs = [{"prompt": a, "chosen": b, "rejected": c} for a in WORDS for b, c in pairwise(WORDS)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    rows = [{"prompt": word, "completion": "mix flour and water"} for word in WORDS]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(json.dumps(row | {"split": split}) for row in rows))
    command = [
        "task=evaluate", f"task.model={tmp_path}/policy", "model=local", f"model.path={tmp_path}/base",
        "dataset=file", f"dataset.path={tmp_path}/train.jsonl", f"dataset.test_path={tmp_path}/test.jsonl",
        "measure=[hhh,capabilities,length]", f"measure.hhh.path={tmp_path}/pairs.jsonl",
        "measure.capabilities.items=20", "evaluation.batch_size=8", "evaluation.max_new_tokens=6",
    ]  # fmt: skip

    def run(cache, last=0, stored="stored"):
        """Run the command, killed at a batch; return its exit status, the new lines of its log, and the records."""
        log = tmp_path / "log"
        log.write_text("")
        environment = os.environ | {"ALIGNLAB_CACHE": str(tmp_path / cache), "ALIGNLAB_OUTPUTS": str(tmp_path / "out")}
        script = [sys.executable, "-c", COUNTED, str(log), str(last), stored, *command]
        ended = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
        assert ended.returncode in {0, -signal.SIGKILL}, ended.stderr
        records = sorted((tmp_path / "out").rglob("*records.jsonl"))
        return ended.returncode, log.read_text().splitlines(), [file.read_bytes() for file in records[-2:]]

    status, expected, records = run("undisturbed")
    assert (status, len(records)) == (0, 2)
    batches = [line for line in expected if line != "loaded"]
    assert len(batches) > 12
    computed = []
    for number in range(5):
        status, lines, _ = run("killed", 2, "stored" if number % 2 else "computed")
        assert status == -signal.SIGKILL
        computed += [line for line in lines if line != "loaded"]
    status, lines, same = run("killed")
    assert (status, same) == (0, records)
    computed += [line for line in lines if line != "loaded"]
    assert sorted(items_of(computed)) == sorted(items_of(batches))  # each once
    status, lines, again = run("killed")
    assert (status, lines, again) == (0, [], records)  # no model was even loaded
