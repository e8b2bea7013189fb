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

# The tests start hundreds of interpreters, and pytest rewrites every test's assertions: neither twice.
unexport PYTHONDONTWRITEBYTECODE

STAMP := .venv/.installed
BIN := .venv/bin
CODE := pipeline workers launch onward tests deploy docs

# Each worker has one part of the files, so that what a file shares is made once; who is done first helps. One worker more
# than there are cores on a small machine, since tests of processes wait for most of their time.
PYTEST := pytest -n $${WORKERS:-3} --dist worksteal

# Lint and types run beside the tests $(1); what they found is shown at the end, and a failure of any is one of all.
define with_checks
@found=$$(mktemp); trap 'kill $$checking 2>/dev/null || true; rm -f "$$found"' EXIT; \
$(MAKE) --no-print-directory -k -j2 lint types >"$$found" 2>&1 & checking=$$!; \
failed=; $(BIN)/python -m $(PYTEST) -m "$(1)" $(ARGS) || failed=" tests"; \
wait $$checking || failed="$$failed lint or types"; cat "$$found"; \
[ -z "$$failed" ] || { echo "failed:$$failed" >&2; exit 1; }
endef

# One line and exit code 1 if the interpreter $(PYTHON) is too old.
define new_enough
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
  echo "error: Onward needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1)." \
    "Install one and name it: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
endef

# `make gpu PYTHON=python3` uses that interpreter as it is, and `make gpu` the one of .venv.
GIVEN_PYTHON := $(if $(filter file,$(origin PYTHON)),,$(PYTHON))

.PHONY: help install quickstart test test-quick test-all test-elsewhere coverage mutation tools fuzz soak lint types \
  format docs bench gpu clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## Make .venv and install Onward with its tools into it.

# Old only when pyproject.toml changes, so that every target below starts at once.
$(STAMP): pyproject.toml
	$(new_enough)
	@[ -x $(BIN)/python ] || { echo "Making a virtual environment in .venv"; $(PYTHON) -m venv .venv; }
	@echo "Installing Onward and its dependencies into .venv (the first time pip downloads up to 5 GB: be patient)"
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off $(PIP_ARGS) -e '.[dev]' \
	  | awk '/^ *(Collecting|Downloading|Installing|Successfully)/ {print "  " substr($$0, 1, 110); fflush()}'
	@touch $(STAMP)

quickstart: $(STAMP) ## Train the small example; ARGS="key=value ..." changes it.
	@$(BIN)/python -m launch.cli train configs/quickstart.yaml $(ARGS)

test-quick: $(STAMP) ## While writing: lint, types, and the tests that neither start a process nor compute for seconds.
	$(call with_checks,not processes and not long and not slow and not gpu)

test: $(STAMP) ## What CI runs, under ten minutes: also the real runs that guard the promises.
	$(call with_checks,not slow)

test-all: lint types tools ## Everything, half an hour to an hour: also Chromium, Prometheus, Slurm, ssh, and a little of `make fuzz`.
	$(BIN)/python -m $(PYTEST) $(ARGS)

test-elsewhere: $(STAMP) ## The tests as on other machines, at the same time: two other processors and one core; three quarters of an hour.
	$(BIN)/python -m tests.elsewhere $(ARGS)

coverage: $(STAMP) ## Lines and branches that `make test` runs, in every process of every run.
	rm -rf .coverage && mkdir .coverage
	COVERAGE_CORE=ctrace $(BIN)/python -m coverage run -m $(PYTEST) -m "not slow" $(ARGS)
	$(BIN)/python -m coverage combine -q && $(BIN)/python -m coverage report --skip-covered --sort=miss | tail -n 60

mutation: $(STAMP) ## Break a sample of lines, one at a time, and list the breaks that no test notices.
	$(BIN)/python -m tests.mutation $(ARGS)

tools: ## What the slow tests ask and look with: Debian's Prometheus, Chromium, Slurm and OpenSSH.
	@missing=; for tool in prometheus promtool chromium slurmctld slurmd sbatch munged sshd ssh-keygen; do PATH=$$PATH:/usr/sbin command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	[ -n "$$missing" ] || exit 0; packages="prometheus chromium fonts-dejavu-core slurmctld slurmd slurm-client munge openssh-server openssh-client"; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Not here:$$missing. Installing Debian's packages $$packages"; \
	  apt-get update -q && apt-get install -qy --no-install-recommends $$packages; \
	else echo "Not here:$$missing. The tests that ask them will fail, and say so; they come with Debian's packages" \
	  "$$packages (apt-get install takes root)"; fi

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

docs: $(STAMP) ## The documentation as a site, in build/site; ARGS=serve shows it and follows changes.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs $(or $(ARGS),build) --strict

bench: $(STAMP) ## Run every benchmark.
	@for benchmark in tests/benchmarks/*.py; do \
	  [ -e "$$benchmark" ] || { echo "error: there is no benchmark in tests/benchmarks" >&2; exit 1; }; \
	  echo "== $$benchmark"; $(BIN)/python "$$benchmark" $(ARGS); done

gpu: $(if $(GIVEN_PYTHON),,$(STAMP)) ## The proof on a GPU, ten minutes: PART=2/4 a quarter; DEVICE=cpu SMALL=1 without; PYTHON=python3 as it is.
	$(new_enough)
	@PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(or $(GIVEN_PYTHON),$(BIN)/python) -m tests.gpu \
	  --device $(or $(DEVICE),cuda) $(if $(SMALL),--small) $(if $(PART),--part $(PART)) $(ARGS)

clean: ## Remove caches and build outputs; runs/ and .venv stay.
	rm -rf build dist ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find pipeline workers launch onward tests -name __pycache__ -type d -prune -exec rm -rf {} +
