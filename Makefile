# `make` alone lists the commands. Each one makes .venv first, or reuses it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
LOCK := .requirements.lock

# The stamp carries a checksum of what was installed: a changed lock installs again.
KEY := $(shell cat $(LOCK) pyproject.toml setup.py | cksum | cut -d ' ' -f 1)
RUN_READY := $(VENV)/.installed-run-$(KEY)
TEST_READY := $(VENV)/.installed-test-$(KEY)
INSTALL := $(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint $(LOCK)

# TensorFlow, which SeqIO reads data with, has no wheels for Python 3.14 yet.
PYTHON3 ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$python && break; done)

PYTEST := $(PYTHON) -m pytest -n 2 --dist loadfile

.PHONY: help quickstart test test-all lint format bench bench-peft lock parameters

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

quickstart: $(RUN_READY)  ## train a prompt on a small frozen model: about a minute, two cores
	@$(PYTHON) -m prompt_tuning.cli quickstart

test: $(TEST_READY)  ## the fast tests
	@$(PYTEST) --durations=20

test-all: $(TEST_READY)  ## every test
	@$(PYTEST) -m ""

lint: $(TEST_READY)  ## formatting, lint and types
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m pyright

format: $(TEST_READY)  ## mend formatting and imports
	@$(PYTHON) -m ruff check --fix-only --quiet .
	@$(PYTHON) -m ruff format .

bench: $(RUN_READY)  ## step time and FLOPs of T5 1.1 Small with a 100-token prompt
	@$(PYTHON) benchmarks/step.py --no_peer

bench-peft: $(RUN_READY)  ## the same against Hugging Face PEFT, in an environment of its own
	@$(PYTHON) benchmarks/step.py

parameters: $(RUN_READY)  ## write docs/parameters.md from the code
	@$(PYTHON) docs/parameters.py

lock: $(TEST_READY)  ## write the lock anew, for Python 3.11 and later on any platform
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check uv
	@$(VENV)/bin/uv pip compile pyproject.toml --universal --fork-strategy fewest --all-extras \
		--no-header --no-annotate --quiet --output-file $(LOCK)

$(VENV)/bin/pip:
	@test -n "$(PYTHON3)" || { echo "No Python 3.11, 3.12 or 3.13 found. Install one \
	(https://www.python.org/downloads/), or name one: make PYTHON3=/path/to/python3" >&2; exit 2; }
	@$(PYTHON3) -m venv $(VENV)

$(RUN_READY): | $(VENV)/bin/pip
	@echo "Installing the package and its dependencies into $(VENV) (some minutes, once)."
	@$(INSTALL) --editable .
	@rm -f $(VENV)/.installed-*
	@touch $@

$(TEST_READY): | $(VENV)/bin/pip
	@echo "Installing the package, its dependencies and the test tools into $(VENV) (some minutes, once)."
	@$(INSTALL) --editable '.[test]'
	@rm -f $(VENV)/.installed-*
	@touch $@ $(RUN_READY)
