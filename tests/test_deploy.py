"""Training on a cluster: a JobSet whose command composes, and a script that queues itself again on 75."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from command import ROOT
from test_docs import commands

from alignlab.config.compose import bind_tree, check

DEPLOY = ROOT / "deploy"
DOCS = commands((ROOT / "docs" / "hardware.md").read_text())


def job() -> dict:
    manifest = yaml.safe_load((DEPLOY / "jobset.yaml").read_text())
    assert (manifest["kind"], manifest["apiVersion"]) == ("JobSet", "jobset.x-k8s.io/v1alpha2")
    return manifest


def test_the_manifests_command_composes_and_agrees_with_the_manifest():
    manifest = job()
    (replicated,) = manifest["spec"]["replicatedJobs"]
    spec = replicated["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["args"].count("hardware.rank=$(JOB_COMPLETION_INDEX)") == 1
    for index in range(spec["completions"]):
        own = [text.replace("$(JOB_COMPLETION_INDEX)", str(index)) for text in container["args"]]
        hardware = bind_tree(check(own, binds=True).trees[0]).hardware
        assert hardware.rank == index
    assert hardware.nodes == spec["completions"] == spec["parallelism"]
    assert hardware.processes == container["resources"]["limits"]["nvidia.com/gpu"]
    first = f"{manifest['metadata']['name']}-{replicated['name']}-0-0.{manifest['spec']['network']['subdomain']}"
    assert hardware.rendezvous == f"{first}:29500"


def test_the_manifest_starts_a_pod_again_that_was_asked_to_stop():
    from alignlab.runtime.signals import EX_TEMPFAIL

    spec = job()["spec"]["replicatedJobs"][0]["template"]["spec"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("Ignore", [EX_TEMPFAIL])
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # without which there is no such policy
    (mount, _) = spec["template"]["spec"]["containers"][0]["volumeMounts"]
    assert f"ALIGNLAB_CACHE={mount['mountPath']}/" in (DEPLOY / "Dockerfile").read_text()


@pytest.mark.parametrize(("code", "requeued"), [(75, True), (0, False), (1, False)])
def test_the_slurm_script_queues_itself_again_on_75_alone(code, requeued, tmp_path: Path):
    """Slurm's two commands are stood in for: what they are called with is what counts."""
    for name, does in (("srun", f'echo "$@" > ran; exit {code}'), ("scontrol", 'echo "$@" > queued')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "42", "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_CPUS_PER_TASK": "64"}
    slurm |= {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", str(DEPLOY / "slurm.sh"), "method=ppo", "dataset.path=[a,b]"]
    done = subprocess.run(command, env=os.environ | slurm, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code
    ran = (tmp_path / "ran").read_text()
    flags = "--kill-on-bad-exit=1 --wait=0 --cpus-per-task=64"
    assert ran == f"{flags} {tmp_path}/.venv/bin/python -m alignlab method=ppo dataset.path=[a,b]\n"
    assert (tmp_path / "queued").exists() == requeued
    if requeued:
        assert (tmp_path / "queued").read_text() == "requeue 42\n"


def test_the_page_has_a_section_for_every_place():
    page = (ROOT / "docs" / "hardware.md").read_text()
    titles = ["A CPU, or one GPU", "Precision", "Eight GPUs in one machine", "Several machines"]
    titles += ["Slurm", "Kubernetes", "SageMaker", "Vertex AI", "TPUs"]
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == titles
    assert len(DOCS) >= 7
