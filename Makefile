# Every target that begins a line "name: … ## text" is listed by `make`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Byte-code on disk makes the first import of VectorBT three times faster.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test soak check fmt bench docs clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; choose one with: make PYTHON=python3.11 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing the project into $(VENV) (a few minutes the first time) …"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[talib]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing the project and its tools into $(VENV) (a few minutes the first time) …"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

install: $(VENV)/.installed ## Create the virtual environment and install the project.

demo: $(VENV)/.installed ## Run the demo on the sandbox exchange, offline.
	@$(BIN)/python examples/demo.py

test: check ## Run linters, type checks and the whole test suite.
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered -q

soak: $(VENV)/.installed-dev ## Run the long tests: thousands of faults, kills and flipped bits.
	$(BIN)/python -m pytest -m slow -s -q tests/e2e/test_soak.py tests/contract

check: $(VENV)/.installed-dev ## Run ruff, mypy and codespell.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

fmt: $(VENV)/.installed-dev ## Format the code and apply safe fixes.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev ## Run the benchmarks and print their tables.
	$(BIN)/python -m benchmarks

docs: $(VENV)/.installed-dev ## Regenerate docs/cli.md.
	$(BIN)/python docs/generate_cli.py

clean: ## Remove the virtual environment and generated files.
	rm -rf $(VENV) .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* build *.egg-info
