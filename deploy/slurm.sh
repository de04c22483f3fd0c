#!/bin/bash
# Train on Slurm, and go on by itself when time is over or the job is preempted:
#
#     sbatch --nodes=2 deploy/slurm.sh method=ppo model=pythia_1b dataset=hub dataset.path=owner/name hardware=zero3
#
# One task a machine: alignlab starts a process for each GPU itself, and takes machine numbers and meeting place from
# Slurm. Run it from a disk that all machines see; .venv and the cache lie there.
#SBATCH --job-name=alignlab
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@180
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append

export ALIGNLAB_CACHE=${ALIGNLAB_CACHE:-$SLURM_SUBMIT_DIR/cache}
PYTHON=${PYTHON:-$SLURM_SUBMIT_DIR/.venv/bin/python}

# Where one machine fails, all end; one that has nothing left to train waits for machine 0, which measures and reports.
# srun does not take the number of cores from sbatch.
srun --kill-on-bad-exit=1 --wait=0 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "$PYTHON" -m alignlab "$@"
code=$?

# 75 says: asked to stop, a checkpoint is written, the same command goes on.
if [ "$code" -eq 75 ]; then
  echo "stopped with a checkpoint: the job is queued again"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
