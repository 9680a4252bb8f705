# Two commands for newcomers: make run, make test. The rest serves those who change the code.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS := $(VENV)/.runs
STAMP := $(VENV)/.installed

.PHONY: run test check bench mutants vm arena arena-smoke docs clean setup

run: $(RUNS)
	@$(BIN)/forestall run

test: setup
	$(BIN)/pytest -m "not vm and not bench"

check: setup
	$(BIN)/ruff format --check src tests arena
	$(BIN)/ruff check src tests arena
	$(BIN)/mypy
	$(BIN)/pytest -q tests/tidy

bench: setup
	$(BIN)/pytest -q -s -m bench tests/bench

mutants: setup
	$(BIN)/python -m tests.mutation --write

vm: setup
	$(BIN)/pytest -q -m vm tests/vm

arena-smoke: setup
	$(BIN)/python -m arena smoke

arena: setup
	$(BIN)/python -m arena all

docs: setup
	$(BIN)/python -m forestall.cli.main docs docs

setup: $(STAMP)

$(RUNS): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "forestall needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	@echo "setting up $(VENV), once"
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { echo "Python's venv module is missing. On Debian and Ubuntu: sudo apt install python3-venv"; rm -rf $(VENV); exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check -e ".[tui]"
	@touch $@

# What only those need who test or change the code.
$(STAMP): $(RUNS)
	@$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
