"""Training that resumes after damage to its newest checkpoint ends with the weights of an undisturbed run."""

import shutil

import pytest
from damage import DAMAGES
from several import Lines, job, write_rows

from alignlab.pipeline import workers
from alignlab.runtime import signals
from alignlab.runtime.manifest import sha256
from alignlab.runtime.signals import Stopped
from alignlab.training.checkpoints import newest_first

pytestmark = [pytest.mark.slow, pytest.mark.faults]

STAGE = ("method=sft", "method.batch_size=8", "method.max_steps=12", "method.save_steps=4", "method.save_total_limit=2")
FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "whole.json")


def train(one):
    """Train a stage; return the hash of its weights, or None where it was interrupted."""
    try:
        workers.learn(one, Lines(one.folder / "lines.jsonl"))
    except Stopped:
        signals.clear_stop_request()
        return None
    return sha256(one.folder / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A stage that was interrupted after its eighth step, and the hash of the weights of one that was not."""
    folder = tmp_path_factory.mktemp("stage")
    rows = write_rows(folder / "rows.jsonl")
    undisturbed = train(job(rows, folder / "undisturbed", "single", *STAGE))
    one = job(rows, folder / "interrupted", "single", *STAGE)
    (one.folder / "interrupt").touch()
    assert train(one) is None
    return one, undisturbed


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damage_to_a_checkpoint_changes_no_weight(tmp_path, capsys, stage, name, damage):
    one, undisturbed = stage
    again = one._replace(folder=tmp_path / "again")
    shutil.copytree(one.folder, again.folder)
    newest, *earlier = newest_first(again.folder / "checkpoints")
    assert earlier
    DAMAGES[damage](newest / name)
    assert train(again) == undisturbed
    assert ("resumes from an earlier one" in capsys.readouterr().err) == (name != "whole.json" or damage != "delete")
