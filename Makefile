# make run    everything a fresh machine needs, then a server with TLS and demo users
# make test   everything the tests need, then all of them
# make check  style, types, layers
# make bench  measures this machine
# make docs   writes the generated parts of README.md and docs/ anew, and builds the site
# make clean  removes what was made here, but for offhook-data

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Most tests wait, and need not wait for each other. Those that kill servers under load do so two at a time, since they
# make network interfaces, which disturbs browsers. What loads the machine itself, or measures, runs alone.
KILLS := $(wildcard tests/chaos/test_*kill.py) tests/chaos/test_client_faults.py
ALONE := tests/chaos tests/conformance tests/unit/bench
TOGETHER := $(ALONE:%=--ignore=%)

.PHONY: run test check bench docs clean

run: $(VENV)/.server
	@exec $(BIN)/offhook serve --tls-dev --demo

test: $(VENV)/.dev
	@tests/prepare.sh
	$(BIN)/python -m pytest $(TOGETHER) --numprocesses 3 --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest $(KILLS) --numprocesses 2 --dist worksteal
	$(BIN)/python -m pytest $(ALONE) $(KILLS:%=--ignore=%)

check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	$(BIN)/offhook bench

docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) tests/e2e/js/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Offhook needs Python 3.11 or newer; name one with make PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "Python's venv module is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }

# The stamps are younger than pyproject.toml once everything it names is installed.
$(VENV)/.server: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[server]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[server]' --group dev
	@touch $@ $(VENV)/.server
