# Two commands: `make compare` runs the main job, `make test` the tests. Each sets up .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help compare test test-gpu test-statistics test-oldest faults slow lint

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

compare: .venv/.run  ## train nGPT and Nemotron on the same tokens and write the report (minutes on two cores)
	$(BIN)/ngpt-lab compare

test: .venv/.dev lint  ## linters, type checks and the test suite
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal -m "not gpu and not statistics and not faults and not slow"

test-gpu: .venv/.dev  ## the tests that need a GPU
	$(BIN)/pytest -m gpu

test-statistics: .venv/.dev  ## coverage of the intervals and false positives of the tests, in thousands of made comparisons
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto -m statistics -rP

faults: .venv/.dev  ## kill runs at random moments and see that they go on as if nothing had happened (a quarter of an hour)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal -m faults -rP tests/faults

slow: .venv/.dev  ## what takes billions of parameters: importing a large sharded model
	OMP_NUM_THREADS=2 $(BIN)/pytest -m slow -rP

test-oldest: .venv-oldest/.dev  ## parity with the references on the oldest torch that is supported
	.venv-oldest/bin/pytest tests/parity tests/nn tests/models -m "not gpu"

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
	$(PIP) --editable ".[dev,hf,eval]"
	@touch $@ .venv/.run

.venv-oldest/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-oldest
	sed -E '/^torch==/d' constraints.txt > .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pip --disable-pip-version-check install --quiet \
		--constraint .venv-oldest/constraints.txt torch==2.11.0 --editable ".[dev,hf,eval]"
	@touch $@
