# Every command that people and CI run. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
# Handed to pip, for example PIP_ARGS="--extra-index-url URL" for another build of torch.
PIP_ARGS ?=
# Handed to the command: make quickstart ARGS="train.epochs=2", make test ARGS="tests/launch -x".
ARGS ?=

STAMP := .venv/.installed
BIN := .venv/bin
CODE := pipeline workers launch tests deploy

.PHONY: help install quickstart test test-all tools fuzz soak lint types format bench clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## Make .venv and install Onward with its tools into it.

# Old only when pyproject.toml changes, so that every target below starts at once.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Onward needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1)." \
	    "Install one and name it: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@[ -x $(BIN)/python ] || { echo "Making a virtual environment in .venv"; $(PYTHON) -m venv .venv; }
	@echo "Installing Onward and its dependencies into .venv (the first time pip downloads up to 5 GB: be patient)"
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off $(PIP_ARGS) -e '.[dev]' \
	  | awk '/^ *(Collecting|Downloading|Installing|Successfully)/ {print "  " substr($$0, 1, 110); fflush()}'
	@touch $(STAMP)

quickstart: $(STAMP) ## Train the small example; ARGS="key=value ..." changes it.
	@$(BIN)/python -m launch.cli train configs/quickstart.yaml $(ARGS)

test: lint types ## What CI runs: lint, types, and every test that is not slow.
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

tools: ## What the slow tests ask and look with: Debian's Prometheus and Chromium.
	@for tool in prometheus promtool chromium; do command -v $$tool >/dev/null || missing=1; done; \
	if [ -n "$${missing:-}" ]; then apt-get update && \
	  apt-get install -y --no-install-recommends prometheus chromium fonts-dejavu-core || { \
	  echo "error: prometheus, promtool and chromium are needed; install them with your system's package manager" >&2; \
	  exit 1; }; fi

test-all: lint types tools ## The same with the slow tests.
	$(BIN)/python -m pytest $(ARGS)

fuzz: $(STAMP) ## Try 10,000 inputs of every kind that a run reads; FUZZ_EXAMPLES and FUZZ_SEED change how many and which.
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-10000} $(BIN)/python -m pytest tests/fuzz --timeout=7200 $(ARGS)

soak: $(STAMP) ## Kill random processes of runs for MINUTES=30, and compare what they trained.
	$(BIN)/python tests/soak.py --minutes $${MINUTES:-30} --seed $${SEED:-1}

lint: $(STAMP) ## Rules and formatting.
	$(BIN)/python -m ruff check $(CODE)
	$(BIN)/python -m ruff format --check $(CODE)

types: $(STAMP) ## Types, strictly.
	$(BIN)/python -m mypy

format: $(STAMP) ## Format the code and mend what can be mended.
	$(BIN)/python -m ruff format $(CODE)
	$(BIN)/python -m ruff check --fix $(CODE)

bench: $(STAMP) ## Run every benchmark.
	@for benchmark in tests/benchmarks/*.py; do \
	  [ -e "$$benchmark" ] || { echo "error: there is no benchmark in tests/benchmarks" >&2; exit 1; }; \
	  echo "== $$benchmark"; $(BIN)/python "$$benchmark" $(ARGS); done

clean: ## Remove caches and build outputs; runs/ and .venv stay.
	rm -rf build dist ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find pipeline workers launch tests -name __pycache__ -type d -prune -exec rm -rf {} +
