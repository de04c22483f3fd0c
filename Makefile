# alignlab in one-word commands. `make` explains them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m alignlab
TORCH := torch==2.13.0
# A file's tests share what they have trained; the files with most to train come first by name, not last by number.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
# More settings for a run: make dpo ARGS="method.beta=0.1 seed=1"
ARGS ?=
# Real public data for development; tests that need it are skipped without it.
ifeq ($(ALIGNLAB_DATA),)
ifneq ($(wildcard ../shared/data),)
export ALIGNLAB_DATA := $(abspath ../shared/data)
endif
endif

.PHONY: help setup dev demo sft rm dpo ppo sweep search gpu gpus slurm image kubernetes report lora test test-runs test-scale quick check format docs evidence bench-ppo bench-ppo-parity bench-gpu clean clean-cache

help: ## Explain every target.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# torch goes first, by its exact version: a range would take a build with gigabytes of CUDA packages.
$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "alignlab needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

setup: $(VENV)/.run ## Install what a run needs into .venv.

dev: $(VENV)/.dev ## Install what tests and checks need, too.

demo: setup ## The main job: a base model, SFT, reward model, PPO, and a report of what changed.
	$(RUN) $(ARGS)

sft: setup ## Supervised fine-tuning.
	$(RUN) method=sft $(ARGS)

rm: setup ## A reward model.
	$(RUN) method=rm $(ARGS)

dpo: setup ## Direct preference optimisation (SFT first, where it is not there yet).
	$(RUN) method=dpo $(ARGS)

ppo: setup ## PPO against a reward model (both stages first, where they are not there yet).
	$(RUN) method=ppo $(ARGS)

sweep: setup ## The main job with five seeds, and one table.
	$(RUN) sweep=seeds $(ARGS)

search: setup ## Search PPO's settings with Optuna; killed, it goes on.
	$(RUN) sweep=ppo_hparams $(ARGS)

gpu: setup ## The main job on one GPU.
	$(RUN) hardware.device=cuda $(ARGS)

$(VENV)/.gpus: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --editable '.[deepspeed]'
	@touch $@

gpus: $(VENV)/.gpus ## The main job on all GPUs of this machine, sharded (ZeRO-3).
	$(RUN) hardware=zero3 $(ARGS)

slurm: $(VENV)/.gpus ## Submit a run to Slurm, queued again until it is done; see docs/hardware.md.
	sbatch deploy/slurm.sh $(ARGS)

image: ## Build the container image.
	docker build --tag alignlab:latest --file deploy/Dockerfile .

kubernetes: ## Start the run of deploy/jobset.yaml.
	kubectl apply --filename deploy/jobset.yaml

report: setup ## Write the last run's report again.
	$(RUN) task=report $(ARGS)

test: dev ## The tests, in under five minutes on two cores.
	$(PYTEST) -m "not scale and not runs" tests

test-runs: dev ## The tests of whole runs: killed, repeated, swept; about six minutes.
	$(PYTEST) -m runs tests

test-scale: dev ## The tests of several processes, in under fifteen minutes.
	$(PYTEST) -m scale tests

quick: dev ## The tests that need no training, in about a minute.
	$(PYTEST) -m "not slow and not scale and not runs" tests

check: dev ## Format, lint, types and import floors.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: dev ## Rewrite the sources in the house's format.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/.docs: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

docs: $(VENV)/.docs ## Build the documentation into build/site; a broken link is an error.
	$(BIN)/python -m sphinx --quiet --fresh-env --write-all --fail-on-warning --keep-going --builder html docs build/site
	@echo "build/site/index.html"

evidence: setup ## Measure again what benchmarks/RESULTS.md says, and write it (an hour).
	$(BIN)/python benchmarks/evidence.py

# The last trl with a PPOTrainer, in an environment of its own; transformers is the one that alignlab runs on.
.venv-trl/.run:
	$(PYTHON) -m venv .venv-trl
	.venv-trl/bin/python -m pip install --quiet "$(TORCH)"
	.venv-trl/bin/python -m pip install --quiet trl==1.12.0 transformers==5.23.0
	@touch $@

bench-ppo: setup .venv-trl/.run ## PPO beside trl's, in turns: speed, memory, where the time goes (ten minutes).
	OMP_NUM_THREADS=2 $(BIN)/python benchmarks/evidence.py ppo_speed

bench-gpu: setup ## SFT, DPO and PPO of a 0.5B model on a GPU: tokens a second, peak memory.
	$(BIN)/python benchmarks/evidence.py gpu

bench-ppo-parity: setup .venv-trl/.run ## PPO beside trl's: the reward at equal KL, five seeds a side (twenty minutes).
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/ppo_vs_trl/parity.py
	$(BIN)/python benchmarks/evidence.py ppo_parity

clean: ## Remove the runs' folders; the cache of finished stages stays.
	rm -rf outputs multirun

clean-cache: ## Remove the cache: base models, prepared data, finished stages.
	rm -rf "$${ALIGNLAB_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/alignlab}"
