# Everything runs in a virtual environment inside the clone; only Python 3.11+ and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(dir $(wildcard plugins/*/pyproject.toml))
DEMO_HOME := $(CURDIR)/.engine

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench clean

help: ## list what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

# Two runs of make at once would write into the same environment; the lock lets one wait.
$(VENV)/installed: pyproject.toml $(addsuffix pyproject.toml,$(PLUGINS))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.11" >&2; exit 2; }
	@echo "Setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' $(addprefix --editable ./,$(PLUGINS))
	@touch $@

setup: $(VENV)/installed ## make the virtual environment with the engine and its plugins

demo: setup ## serve two users' flows, call them, and leave the engine running
	@BIN=$(BIN) DEMO_HOME=$(DEMO_HOME) sh docs/demo.sh

test: setup ## the whole test suite
	@$(BIN)/python -m pytest --numprocesses=4 --dist=worksteal

lint: setup ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup ## measure, beside stock aiflows 1.1.1; writes docs/benchmarks.md
	@$(BIN)/python -m tests.benchmarks

clean: ## remove the virtual environment and the caches
	rm -rf $(VENV) .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
