"""Several processes, as far as one process can see them: settings, meeting places, checkpoints, what is told."""

import errno
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest
from command import config, heed_signals

from alignlab.config.compose import check
from alignlab.errors import Failure, Fault, Mistake
from alignlab.pipeline import workers
from alignlab.pipeline.launch import check_alone
from alignlab.pipeline.workers import Job
from alignlab.runtime import distributed, manifest, rendezvous, sharding, signals, worker_errors
from alignlab.runtime.worker_errors import ErrorReport
from alignlab.training import checkpoints
from alignlab.training.batching import MicroBatches, RealRows, ShuffledSteps
from alignlab.training.step_weights import StepWeights


def faults(*overrides):
    with pytest.raises(Mistake) as caught:
        check(list(overrides), binds=True)
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["hardware=single", "hardware.processes=2"], "hardware.processes: hardware=single is one process"),
        (["hardware=zero3", "hardware.deepspeed.zero_optimization.stage=2"], "2 is not hardware=zero3's; use 3"),
        (["hardware=zero3", "hardware.deepspeed.zero_optimization.reduce_bucketsize=1"], "mean 'reduce_bucket_size'?"),
        (["hardware=zero3", "hardware.deepspeed.zero_optimisation=1"], "did you mean 'zero_optimization'?"),
        (["hardware=fsdp2", "hardware.fsdp.reshard=true"], "did you mean 'reshard_after_forward'?"),
        (["hardware=ddp", "hardware.nodes=2", "hardware.rank=0"], "hardware.rendezvous: missing, though nodes is 2"),
        (["hardware=ddp", "hardware.rank=1"], "hardware.rank: 1 is not below nodes (1)"),
        (["hardware=ddp", "hardware.processes=two"], "hardware.processes: 'two' is not a whole number"),
    ],
)
def test_a_mistake_in_hardware_is_one_sentence(overrides, said, monkeypatch):
    monkeypatch.delenv("SLURM_NODEID", raising=False)
    assert said in faults(*overrides)


def test_a_key_that_the_yaml_leaves_out_reaches_deepspeed():
    own = config("hardware=zero3", "hardware.deepspeed.zero_optimization.stage3_max_reuse_distance=7").hardware
    block = own.deepspeed.block()
    assert block["zero_optimization"]["stage3_max_reuse_distance"] == 7
    assert "round_robin_gradients" not in block["zero_optimization"]  # left to the library
    assert block["train_batch_size"] == block["gradient_clipping"] == "auto"  # the experiment's, not the hardware's


def test_every_key_is_one_of_deepspeeds_own():
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    from alignlab.config.hardware import OffloadOptimizer, OffloadParam, Zero

    fields = DeepSpeedZeroConfig.model_fields
    known = {field.alias or name for name, field in fields.items()}
    assert set(Zero.model_fields) <= known
    for shape, name in ((OffloadParam, "offload_param"), (OffloadOptimizer, "offload_optimizer")):
        theirs = next(kind for kind in fields[name].annotation.__args__ if kind is not type(None))
        assert set(shape.model_fields) <= set(theirs.model_fields)


def test_fsdp2_without_gpus_is_refused():
    with pytest.raises(Mistake, match="fsdp2 needs a GPU; on a CPU it would behave as ddp; use hardware=zero3 or ddp"):
        distributed.check(config("hardware=fsdp2", "hardware.device=cpu").hardware)


def test_a_step_that_does_not_split_is_refused_before_anything_runs():
    with pytest.raises(Mistake) as caught:
        workers.check(config("method=sft", "hardware=ddp", "hardware.processes=3", "hardware.device=cpu"))
    assert str(caught.value).startswith(
        "method.batch_size: a step of 32 does not split over 3 processes; use a multipl"
    )


def test_ppo_counts_the_completions_of_a_step():
    settings = config("method=ppo", "method.batch_size=12", "method.num_mini_batches=4").method
    assert settings.step_size == 3


def test_two_processes_are_the_default_on_a_cpu():
    assert distributed.local_world_size(config("hardware=zero3", "hardware.device=cpu").hardware) == 2
    assert distributed.local_world_size(config("hardware=single", "hardware.device=cpu").hardware) == 1
    assert (
        rendezvous.total_processes(config("hardware=ddp", "hardware.device=cpu", "hardware.processes=4").hardware) == 4
    )


def test_who_started_the_processes_counts_them(monkeypatch):
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "8"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    hardware = config("hardware=ddp", "hardware.device=cpu").hardware
    assert (distributed.local_world_size(hardware), rendezvous.total_processes(hardware)) == (4, 8)
    assert not rendezvous.is_host(hardware)
    with pytest.raises(Mistake, match="WORLD_SIZE is 8, but hardware=single uses one process"):
        distributed.check(config("hardware=single").hardware)
    with pytest.raises(Mistake, match="2, but 4 were started"):
        distributed.check(config("hardware=ddp", "hardware.processes=2", "hardware.device=cpu").hardware)


@pytest.mark.parametrize(
    ("nodes", "place"),
    [
        ("gpu[07-09,12],big1", "gpu07:29523"),
        ("gpu3,gpu5", "gpu3:29523"),
        ("node-a-[1,4]", "node-a-1:29523"),
    ],
)
def test_slurm_says_where_machines_meet(nodes, place, monkeypatch):
    said = {"STEP_NUM_NODES": "3", "NODEID": "2", "STEP_NODELIST": nodes, "JOB_ID": "4123"}
    for name, value in said.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    hardware = config("hardware=ddp", "hardware.device=cpu").hardware
    assert rendezvous.resolve(hardware) == (3, 2, place)
    assert rendezvous.total_processes(hardware) == 6
    assert not rendezvous.is_host(hardware)
    assert rendezvous.resolve(config("hardware=single").hardware).nodes == 1
    assert place in next(rendezvous.open_ports(hardware))
    assert not list(rendezvous.open_ports(config("hardware=single").hardware))


def test_the_name_under_which_machines_meet_cannot_be_guessed(monkeypatch, tmp_path):
    """It is the same on all machines that mount a cache, and another one for another cache or stage."""
    names = []
    for cache in (tmp_path / "one", tmp_path / "other"):
        monkeypatch.setenv("ALIGNLAB_CACHE", str(cache))
        names += [rendezvous.run_id("sft-1"), rendezvous.run_id("sft-2")]
        assert names[-2] == rendezvous.run_id("sft-1")
        (key,) = cache.glob("rendezvous-*.key")
        assert key.stat().st_mode & 0o077 == 0
    assert len(set(names)) == 4
    assert all(len(name) == 64 for name in names)


def test_a_key_that_cannot_be_written_leaves_no_empty_one(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(rendezvous, "token_bytes", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rendezvous.run_id("sft-1")
    assert not list(tmp_path.glob("rendezvous-*.key"))


@pytest.mark.parametrize(
    ("hardware", "tasks", "nodes", "said"),
    [
        (
            "ddp",
            8,
            1,
            "srun has started 8 tasks on 1 machine, and each would be a run of its own; use srun --ntasks-per-node=1",
        ),
        (
            "ddp",
            4,
            2,
            "srun has started 4 tasks on 2 machines, and each would be a run of its own; use srun --ntasks-per-node",
        ),
        ("single", 2, 2, "each would be a run of its own; use srun --ntasks=1, or hardware=ddp"),
        ("ddp", 2, 2, None),
        ("single", 1, 1, None),
    ],
)
def test_as_many_tasks_as_machines_or_one(hardware, tasks, nodes, said, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", str(tasks))
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", str(nodes))
    settings = config(f"hardware={hardware}", "hardware.device=cpu").hardware
    if said is None:
        rendezvous.check_tasks(settings)
    else:
        with pytest.raises(Mistake, match=re.escape(said)):
            rendezvous.check_tasks(settings)


def test_a_sweep_is_not_shared_with_other_machines():
    with pytest.raises(Mistake, match="shares none with other machines or processes; give the command once"):
        check_alone(config("hardware=ddp", "hardware.nodes=2", "hardware.rank=1", "hardware.rendezvous=a:29500"))
    check_alone(config("hardware=ddp"))
    check_alone(config())


def test_alone_everything_is_at_hand():
    assert (distributed.rank(), distributed.world_size(), distributed.all_gather("x")) == (0, 1, ["x"])
    assert distributed.map_rows(5, lambda own: [row**2 for row in own]) == [0, 1, 4, 9, 16]
    assert distributed.any_process(True)
    assert not distributed.any_process(False)


def test_shares_are_put_together_in_order(monkeypatch):
    """Three processes with the rows 0, 3, 6 and 1, 4 and 2, 5; what each gives comes back in the rows' order."""
    shares = [[row**2 for row in range(rank, 7, 3)] for rank in range(3)]
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    seen = []

    def gathered(mine):
        seen.append(mine)
        return shares

    monkeypatch.setattr(distributed, "all_gather", gathered)
    assert distributed.map_rows(7, lambda own: [row**2 for row in own]) == [0, 1, 4, 9, 16, 25, 36]
    assert seen == [[1, 16]]


def checkpoint(folder: Path, step: int) -> Path:
    place = folder / f"checkpoint-{step}"
    place.mkdir(parents=True)
    (place / "weights").write_bytes(b"1234")
    (place / "trainer_state.json").write_text("{}")
    checkpoints.complete(place, checkpoints.record_of_processes())
    return place


def test_what_was_cut_short_is_passed_over(tmp_path):
    checkpoint(tmp_path, 2)
    whole = checkpoint(tmp_path, 10)
    shorter = checkpoint(tmp_path, 12)
    (shorter / "weights").write_bytes(b"123")
    (checkpoint(tmp_path, 14) / "trainer_state.json").unlink()
    (checkpoint(tmp_path, 16) / checkpoints.WHOLE).unlink()
    (checkpoint(tmp_path, 18) / checkpoints.WHOLE).write_text('{"proce')
    assert checkpoints.last_checkpoint(tmp_path) == str(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2"]


def test_the_newest_and_the_best_are_kept(tmp_path):
    for step in (5, 10, 15, 20):
        checkpoint(tmp_path, step)
    checkpoints.clear(tmp_path, 2, str(tmp_path / "checkpoint-5"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-15", "checkpoint-20", "checkpoint-5"]
    (tmp_path / "checkpoint-25").mkdir()  # is being written
    checkpoints.clear(tmp_path, 1, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-20", "checkpoint-25"]


def saved(callback, folder: Path, step: int) -> Path:
    """A checkpoint as the Trainer writes it, and what it then calls."""
    place = folder / f"checkpoint-{step}"
    place.mkdir()
    (place / "weights").write_bytes(b"1234")
    state = SimpleNamespace(global_step=step, best_model_checkpoint=None)
    callback.on_save(SimpleNamespace(output_dir=str(folder)), state, None)
    return place


def test_training_goes_on_while_a_checkpoint_goes_to_the_disk(tmp_path, monkeypatch):
    slow, flushed = Event(), checkpoints.sync
    monkeypatch.setattr(checkpoints, "sync", lambda folder: slow.wait(20) and flushed(folder))
    callback = checkpoints.Checkpoints(limit=1)
    with callback.open():
        first = saved(callback, tmp_path, 5)
        assert not checkpoints.is_complete(first)
        slow.set()
        second = saved(callback, tmp_path, 10)  # waits for the one before
        assert checkpoints.is_complete(first) or not first.exists()
    assert checkpoints.is_complete(second)
    assert not first.exists()


def test_a_full_disk_is_told_where_the_training_hears_of_it(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "sync", full)
    callback = checkpoints.Checkpoints(limit=1)
    with pytest.raises(Failure, match=r"checkpoint-5: no space left on the disk; free some"), callback.open():
        saved(callback, tmp_path, 5)
    assert checkpoints.last_checkpoint(tmp_path) is None


def test_a_checkpoint_of_another_strategy_is_not_taken(tmp_path):
    place = checkpoint(tmp_path / "checkpoints", 5)
    assert manifest.read(place, checkpoints.WHOLE)["kind"] == "single"
    checkpoints.complete(place, {"kind": "zero3", "processes": 4})
    with pytest.raises(Failure, match=r"was written under hardware=zero3; resume with hardware=zero3, or remove"):
        checkpoints.last_checkpoint(tmp_path / "checkpoints")
    assert checkpoints.has_other_shards(str(place))


@pytest.fixture
def workers_folder(tmp_path):
    """Where the workers of machine 0 say what goes wrong."""
    folder = tmp_path / worker_errors.FOLDER.format(0)
    folder.mkdir()
    return folder


def told(folder: Path, rank: int, when: int, error=None, text="") -> None:
    (folder / f"{rank}.error").write_bytes(pickle.dumps(ErrorReport(rank, when, error, text)))


def ended(rank: int, code: int):
    return SimpleNamespace(failures={rank: SimpleNamespace(exitcode=code)})


def test_the_first_error_that_is_no_echo_is_told(workers_folder):
    told(workers_folder, 0, 1, text="RuntimeError: Connection closed by peer")
    told(workers_folder, 2, 3, signals.stopped())
    told(workers_folder, 1, 2, Failure([Fault("reward", "raised", "mend it")]))
    assert str(worker_errors.first_error(workers_folder, ended(0, 1))) == "reward: raised; mend it"


def test_a_process_that_was_killed_is_named(workers_folder):
    told(workers_folder, 0, 1, text="RuntimeError: Connection closed by peer")
    said = str(worker_errors.first_error(workers_folder, ended(1, -9)))
    assert said.startswith("process 1: was killed (SIGKILL); check the system's log for the OOM killer")
    assert "resumes from the last checkpoint" in said


def test_the_launcher_may_name_one_that_fell_with_the_one_that_was_killed(workers_folder):
    for rank in (0, 1):
        worker_errors.record_start(workers_folder, rank)
    told(workers_folder, 0, 1, text="RuntimeError: Connection closed by peer")
    assert str(worker_errors.first_error(workers_folder, ended(0, 1))).startswith(
        "process 1: was killed, or exited without an error report"
    )
    worker_errors.record_start(workers_folder, 2)  # ended by the launcher: nobody knows which of the two was first
    assert str(worker_errors.first_error(workers_folder, ended(0, 1))).startswith("a process of this stage: was killed")


def test_where_all_tell_of_each_other_the_first_has_met_the_fault(workers_folder):
    """A collective that fails in every process raises the error that another's end raises, too."""
    for rank, when in ((0, 5), (1, 3)):
        worker_errors.record_start(workers_folder, rank)
        told(workers_folder, rank, when, text=f"DistBackendError: /dev/shm is full, says {rank}")
    assert "in process 1:\nDistBackendError: /dev/shm is full" in str(
        worker_errors.first_error(workers_folder, ended(0, 1))
    )


def test_a_fault_on_another_machine_is_told(tmp_path):
    here, there = (tmp_path / worker_errors.FOLDER.format(machine) for machine in (0, 1))
    for folder in (here, there):
        folder.mkdir()
    told(here, 0, 1, text="RuntimeError: Connection closed by peer")
    told(there, 1, 2, Failure([Fault("reward", "raised", "mend it")]))
    assert str(worker_errors.first_error(here, ended(0, 1))) == "reward: raised; mend it"


def test_workers_that_were_stopped_one_by_one_have_been_stopped(workers_folder):
    assert worker_errors.first_error(workers_folder, ended(0, signals.EX_TEMPFAIL)).exit_code == signals.EX_TEMPFAIL


def test_memory_that_runs_out_is_a_sentence_with_the_remedy():
    import torch

    with pytest.raises(worker_errors.OutOfMemory, match="memory ran out") as caught:
        with worker_errors.explain_out_of_memory():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert caught.value.exit_code == 1
    with pytest.raises(RuntimeError, match="something else"), worker_errors.explain_out_of_memory():
        raise RuntimeError("something else")


def test_fewer_rows_at_once_are_tried_where_memory_runs_out(monkeypatch, capsys):
    tried = []

    def attempt(job, _):
        tried.append(job.config.hardware.micro_batch_size)
        if len(tried) < 3:
            raise worker_errors.OutOfMemory([Fault("hardware.micro_batch_size", "memory ran out")])

    monkeypatch.setattr(workers, "attempt", attempt)
    settings = config("method=sft", "hardware.device=cpu", "method.batch_size=24")
    workers.train(Job(settings, settings.method, {}, Path(), "", 1), None)
    assert tried == [None, 12, 6]
    given = config("method=sft", "hardware.device=cpu", "method.batch_size=24", "hardware.micro_batch_size=4")
    tried.clear()
    with pytest.raises(worker_errors.OutOfMemory):  # what the user has set is not changed behind their back
        workers.train(Job(given, given.method, {}, Path(), "", 1), None)
    assert tried == [4]


SLEEPS = """
import os, signal, sys, time
from pathlib import Path
from alignlab.runtime import signals
signals.handle_signals_in_worker(Path(sys.argv[1]), os.getppid())
print("ready", flush=True)
while not signals.stop_requested():
    time.sleep(0.01)
sys.exit(signals.EX_TEMPFAIL)
"""


def sleeper(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", SLEEPS, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_worker_hears_that_it_should_stop(tmp_path):
    process = sleeper(tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 75


def test_a_worker_hears_it_from_its_parent_and_has_what_time_it_needs(tmp_path):
    process = sleeper(tmp_path)
    (tmp_path / signals.STOP_FILE).touch()
    assert process.wait(10) == 75


def test_a_worker_dies_with_its_parent(tmp_path):
    code = f"import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', {SLEEPS!r}, sys.argv[1]])\n"
    code += "print(child.pid, flush=True)\nchild.wait()"
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert parent.stdout.readline() == "ready\n"
    parent.kill()
    parent.wait()
    end = time.monotonic() + 10
    while alive(child):
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.runs
@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_each_stop_signal_saves_a_checkpoint_that_the_same_command_resumes(tmp_path, name):
    """A checkpoint is saved although save_steps is null."""
    command = [sys.executable, "-m", "alignlab", "method=sft", "model=pocket_small", "dataset=pocket_small"]
    command += ["evaluation=quick", "method.logging_steps=1", "method.num_train_epochs=30", "method.max_steps=300"]
    environment = {**os.environ, "ALIGNLAB_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, preexec_fn=heed_signals, **output)
    end = time.monotonic() + 200
    while not list((tmp_path / "cache").glob("stages/sft-*.partial/metrics.jsonl")):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    message = process.communicate(timeout=60)[1]
    assert process.returncode == (130 if name == "SIGINT" else 75), message
    assert message.splitlines()[-1] == f"stopped: by {name}; the same command resumes from the last checkpoint"
    (checkpoint,) = (tmp_path / "cache").glob("stages/sft-*.partial/checkpoints/checkpoint-*")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert f"sft: 300 steps, from {checkpoint.name.rpartition('-')[2]}" in done.stderr
    curve = (tmp_path / "outputs" / "latest" / "sft" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in curve if "train/loss" in line]
    assert steps == list(range(1, 301))


def test_sigterm_outside_of_training_ends_at_once_with_75():
    code = "import signal, os\nfrom alignlab.runtime import signals\nfrom alignlab.errors import Explained\n"
    code += "signals.handle_stop_signals()\n"
    code += "try:\n    os.kill(os.getpid(), signal.SIGTERM)\nexcept Explained as error:\n    print(error)\n"
    code += "    raise SystemExit(error.exit_code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.returncode == 75
    assert done.stdout == "stopped: by SIGTERM; the same command resumes from the last checkpoint\n"


def orders(world: int, micro: int, rows: int = 21, batch_size: int = 8):
    """The micro-batches of every process, of an order of rows in steps of eight."""
    order = ShuffledSteps([n % 5 for n in range(rows)], batch_size, seed=3)
    return [list(MicroBatches(order, micro, rank, world)) for rank in range(world)]


@pytest.mark.parametrize(("world", "micro"), [(1, 8), (1, 3), (2, 4), (2, 2), (4, 1), (4, 2)])
def test_the_rows_of_a_step_are_the_same_however_it_is_cut(world, micro):
    """Steps of 8, 8 and 5 of the 21 rows; every process computes as many micro-batches of each."""
    (alone,) = orders(1, 8)
    shares = orders(world, micro)
    assert all(len(part) <= micro for share in shares for part in share)
    assert {len(share) for share in shares} == {len(MicroBatches(ShuffledSteps([1] * 21, 8, 0), micro, 0, world))}
    steps = [-(-size // (micro * world)) for size in (8, 8, 5)]
    for rows in alone:
        count = steps.pop(0)
        found = [row for share in shares for part in share[:count] for row in part if row >= 0]
        assert sorted(found) == sorted(rows)
        shares = [share[count:] for share in shares]
    assert not any(shares)


def test_a_process_without_a_row_gets_a_placeholder_that_counts_nothing():
    """17 rows in steps of eight leave one, which is the first process's."""
    shares = orders(4, 2, rows=17)
    last = [share[-1] for share in shares]
    rows = [row for part in last for row in part]
    (real,) = (row for row in rows if row >= 0)
    assert sorted(rows) == [-1 - real] * 3 + [real]
    given = RealRows([{"n": n} for n in range(17)])
    assert given[-1 - real] == ({"n": real}, False)
    assert given[real] == ({"n": real}, True)


def test_the_means_of_uneven_micro_batches_are_weighted_to_the_mean_over_rows(monkeypatch):
    """Five rows in two processes: 2 and 3, whose means 1 and 2 are to be (2·1 + 3·2) / 5 = 1.6 on average."""
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    one, other = StepWeights(), StepWeights()
    for trainer, rows in ((one, 2), (other, 3)):
        trainer.model, trainer.rows_now, trainer.rows_in_step, trainer.micro_batches = (
            SimpleNamespace(training=True),
            rows,
            5,
            1,
        )
    assert (one.weight() * 1 + other.weight() * 2) / 2 == pytest.approx(1.6)
    one.model.training = False
    assert one.weight() == 1


def test_fsdp2s_shares_are_made_whole_before_they_are_saved():
    """Tied weights stay one, and every tensor is a plain one again."""
    import torch
    from tiny import tiny_model
    from torch import distributed as torch_distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch_distributed.init_process_group("gloo", store=torch_distributed.HashStore(), rank=0, world_size=1)
    try:
        model, plain = tiny_model(), tiny_model()
        model.lm_head.weight = model.model.embed_tokens.weight
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        assert all(hasattr(weight, "full_tensor") for weight in model.parameters())
        sharding.unshard(model)
    finally:
        torch_distributed.destroy_process_group()
    whole = model.state_dict()
    expected = plain.state_dict() | {"lm_head.weight": plain.model.embed_tokens.weight}
    assert all(torch.equal(whole[name], expected[name]) for name in expected)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_an_adapter_without_numbers_makes_no_stage(tmp_path):
    """The classic under ZeRO-3: tensors that are saved while their numbers lie in shares."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file
    from tiny import tiny_model, tiny_tokenizer

    from alignlab.models import load

    model = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules="all-linear"))
    load.save(model, tiny_tokenizer(), tmp_path / "whole" / "model")
    assert all(tensor.numel() for tensor in load_file(tmp_path / "whole/adapter/adapter_model.safetensors").values())
    hollow = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules="all-linear"))
    weight = next(weight for name, weight in hollow.named_parameters() if "lora_B" in name)
    weight.data = torch.empty(0)
    with pytest.raises(Failure, match=r"1 trained tensors are empty, '.*lora_B.*' among them"):
        load.save(hollow, tiny_tokenizer(), tmp_path / "hollow" / "model")


def test_sigterm_while_a_stage_is_saved_waits_until_it_is_put_away(tmp_path, monkeypatch):
    """What was trained is not lost for the lack of a checkpoint: the next command finds the stage."""
    from several import TINY, write_rows

    from alignlab.models import load
    from alignlab.pipeline import plan, prepare_inputs, train_stage

    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    settings = ["method=sft", "method.max_steps=2", "method.save_steps=1", "dataset=file"]
    made = config(*settings, f"dataset.path={write_rows(tmp_path / 'rows.jsonl')}", *TINY)
    prepare_inputs.prepare_data(made)
    prepare_inputs.prepare_base(made)
    (stage,) = plan.make(made).stages
    (tmp_path / "run").mkdir()
    save = load.save
    signals.handle_stop_signals()

    def interrupted(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        save(*given)

    monkeypatch.setattr(load, "save", interrupted)
    try:
        with pytest.raises(signals.Stopped):
            train_stage.train_stage(plan.make(made), stage, tmp_path / "run", workers.Wire(None))
    finally:
        signals.clear_stop_request()
        for number in signals.SIGNALS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    assert (stage.folder / "model" / "model.safetensors").exists()
    assert (stage.folder / "provenance.json").exists()
    assert not (stage.folder / "checkpoints").exists()
    assert plan.make(made).stages[0].done
