# Two commands: `make compare` runs the main job, `make test` the tests. Each sets up .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help compare bench bench-gpu test test-gpu test-statistics test-oldest faults parallel slow slurm-test ray-test lint
KEPT_APART := gpu statistics faults slow parallel slurm ray
# One more than there are cores: a good part of the suite waits, for signals, for processes, for a disk.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
empty :=
space := $(empty) $(empty)

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

compare: .venv/.run  ## train nGPT and Nemotron on the same tokens and write the report (minutes on two cores)
	$(BIN)/ngpt-lab compare

bench: .venv/.bench  ## what a step may cost on this CPU: measure it against the bounds (an hour on a quiet core)
	OMP_NUM_THREADS=1 $(BIN)/ngpt-lab bench bounds experiments/speed/cpu.yaml

bench-gpu: .venv/.bench  ## the same on one GPU, at 0.5B and 124M, then both models trained at 30M (under an hour)
	$(BIN)/ngpt-lab bench bounds experiments/speed/gpu.yaml
	$(BIN)/ngpt-lab sweep experiments/30m/gpu.yaml

test: .venv/.dev lint  ## linters, type checks and the test suite
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal -m "not ($(subst $(space), or ,$(KEPT_APART)))"

test-gpu: .venv/.dev  ## the tests that need a GPU
	$(BIN)/pytest -m gpu

test-statistics: .venv/.dev  ## coverage of the intervals and false positives of the tests, in thousands of made comparisons
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto -m statistics -rP

faults: .venv/.dev  ## kill runs at random moments and see that they go on as if nothing had happened (a quarter of an hour)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal -m faults -rP tests/faults

parallel: .venv/.dev  ## runs over two and four processes on every layout, and processes that are killed
	OMP_NUM_THREADS=1 $(BIN)/pytest -m parallel -rP

slurm-test: .venv/.slurm  ## a sweep through a Slurm of two nodes on this machine, which it installs from Debian's packages (as root)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slurm tests/cluster/test_slurm.py

ray-test: .venv/.ray  ## a sweep through a Ray cluster on this machine that loses a node
	OMP_NUM_THREADS=1 $(BIN)/pytest -m ray tests/cluster/test_ray.py

slow: .venv/.dev  ## what takes billions of parameters, much compiling or many processes: large imports, compiled steps against eager ones
	OMP_NUM_THREADS=2 $(BIN)/pytest -m slow -rP

test-oldest: .venv-oldest/.dev  ## parity with the references on the oldest torch that is supported
	.venv-oldest/bin/pytest tests/parity tests/nn tests/models -m "not (gpu or slow)"

lint: .venv/.dev  ## ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.run: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

.venv/.dev: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable ".[dev,hf,eval,bench]"
	@touch $@ .venv/.run

.venv/.bench: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable ".[hf,bench]"
	@touch $@ .venv/.run

.venv/.slurm .venv/.ray: .venv/.%: .venv/.dev
	$(PIP) --editable ".[dev,$*]"
	@touch $@

.venv-oldest/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-oldest
	sed -E '/^torch==/d' constraints.txt > .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pip --disable-pip-version-check install --quiet \
		--constraint .venv-oldest/constraints.txt torch==2.11.0 --editable ".[dev,hf,eval]"
	@touch $@
