# Everything a newcomer or a contributor runs. Needs Python 3.11 or newer (with venv), git and make;
# all else is installed into .venv. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The interpreter that makes the environment: `make demo PYTHON=/path/to/python3.12`.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo "$$p"; break; }; done)
# Test processes at a time, and further arguments for pytest: `make test ARGS="-k store"`.
JOBS ?= 2
ARGS ?=

BIN := .venv/bin
INPUTS := pyproject.toml constraints.txt

.PHONY: help demo test lint format wheel constraints clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*##  *\(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24

demo: .venv/.installed  ## build the demo atlas, all set-up included
	$(BIN)/weightatlas demo

# The test processes share the cores, so each keeps to one thread.
test: .venv/.installed-test lint  ## run everything a contributor must pass, all set-up included
	chromium=$$(tools/find_chromium $(BIN)/python); \
	WEIGHTATLAS_CHROMIUM="$$chromium" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile \
		--no-loadscope-reorder $(ARGS)

lint: .venv/.installed-test  ## check style, types, imports and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell

format: .venv/.installed-test  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: .venv/.installed-test  ## build the distribution into dist/
	$(BIN)/python -m build --no-isolation

constraints:  ## pin today's newest versions that pyproject.toml allows
	$(check-python)
	rm -rf .venv-constraints
	"$(PYTHON)" -m venv .venv-constraints
	.venv-constraints/bin/python -m pip install --quiet . '.[test,cluster]' packaging
	.venv-constraints/bin/python tools/pin.py > constraints.txt.new
	mv constraints.txt.new constraints.txt
	rm -rf .venv-constraints

clean:  ## remove the environment, caches, runs and everything built
	rm -rf .venv .venv-constraints build dist runs .mypy_cache .ruff_cache .pytest_cache \
		.import_linter_cache .hypothesis *.egg-info
	find builder tests tools bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
	find site -mindepth 1 -not -path site/README.md -delete

define check-python
@"$(PYTHON)" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	|| { echo "no Python 3.11 or newer with venv found; install one (Debian: python3 and" \
	"python3-venv) or say which: make PYTHON=/path/to/python" >&2; exit 1; }
endef

.venv/bin/python:
	$(check-python)
	"$(PYTHON)" -m venv .venv

# An existing environment is brought up to date, not made again: the stamps are younger than what
# they depend on exactly when everything in it is as pinned.
.venv/.installed: $(INPUTS) | .venv/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/.installed-test: $(INPUTS) | .venv/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,cluster]'
	touch $@ .venv/.installed
