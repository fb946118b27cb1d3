# Everything sets itself up: `make test` on a bare machine is enough.
# ARGS go to the command that a target runs: make quickstart ARGS="--max_steps 40", make test ARGS="-k algorithm".
PYTHON ?= python3
ARGS ?=
SEEDS ?= 5
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1

.PHONY: help quickstart real test test-quick test-newest lint docs ladder setup base-model clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart   train the shipped model on arithmetic (a minute on 2 cores, once installed)"
	@echo "make real         train a pretrained model of 135 M weights on word problems (half an hour on 2 cores)"
	@echo "make test         run the tests (about ten minutes on 2 cores)"
	@echo "make test-quick   run those that take no more than a few seconds each (two minutes)"
	@echo "make test-newest  the contract tests and the quick start with the newest libraries, in .venv-newest"
	@echo "make lint         ruff and mypy"
	@echo "make docs         build the documentation into site/"
	@echo "make ladder       the paper's ladder in small (SEEDS=1: ten minutes on 2 cores)"
	@echo "make base-model   make the shipped models again"

setup: $(STAMP)

# Runs again only when what is to be installed changes.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

quickstart: setup
	$(BIN)/dapo-trl train --config configs/quickstart.yaml $(ARGS)
	@echo
	@echo "Look at the report, then try (dapo-trl is in .venv/bin):"
	@echo "  dapo-trl train --config configs/quickstart.yaml configs/algorithm/grpo.yaml --output_dir runs/grpo"
	@echo "    the baseline: all four techniques off"
	@echo "  dapo-trl train --config configs/quickstart.yaml --env_kwargs '{levels: [4, 5], operations: \"+\"}' --output_dir runs/hard"
	@echo "    more digits than the model has ever seen"
	@echo "  an environment of your own in ten lines: README.md"

# A shorter run, of about ten minutes: make real ARGS="--max_steps 40 --eval_problems 24".
SMOLLM2 := runs/smollm2-135m-instruct
real: setup
	HF_HUB_OFFLINE=0 $(BIN)/python scripts/get_smollm2.py $(SMOLLM2)
	rm -rf $(SMOLLM2)-warm
	$(BIN)/dapo-trl warmup --config configs/real/smollm2.yaml --model $(SMOLLM2) --rows 96 --learning_rate 2e-5 --output_dir $(SMOLLM2)-warm
	$(BIN)/dapo-trl train --config configs/real/smollm2.yaml --model $(SMOLLM2)-warm $(ARGS)

# One thread a worker: tiny models run ten times slower when workers share cores. A worker more than cores, because many
# tests wait for processes.
WORKERS = $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-quick: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(ARGS)

# What the libraries of tomorrow break: the newest that pyproject.toml allows, without constraints.txt. TORCH names another
# build of PyTorch, such as one for the CPU alone: make test-newest TORCH=torch==2.13.0.
TORCH ?= torch
test-newest:
	test -x .venv-newest/bin/python || $(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager "$(TORCH)" -e ".[dev]"
	PATH="$(CURDIR)/.venv-newest/bin:$$PATH" python scripts/newest.py $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	$(BIN)/python scripts/make_docs.py
	$(BIN)/mkdocs build --strict --quiet

# Finished runs are kept in runs/ladder: a second call goes on, or adds seeds.
ladder: setup
	$(BIN)/python benchmarks/ladder.py --seeds $(SEEDS) $(ARGS)

base-model: setup
	$(BIN)/python scripts/make_base_model.py arithmetic --output models/arithmetic-0.8m
	$(BIN)/python scripts/make_base_model.py rambling --output models/rambling-0.8m

clean:
	rm -rf $(VENV) .venv-newest runs dist build site
