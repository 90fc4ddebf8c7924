# make lab    read the book           make test   run every test
# make check  look over the code      make bench  measure side by side what the tests do not time
# make book   rebuild the notebooks   make book CHAPTERS=05_nearest_etf   rebuild one (-B: even if it is up to date)
# make cuda   everything that needs a CUDA device, in parts; goes on where it stopped
# ARGS reaches the program that is run: make lab ARGS=--no-browser, make test ARGS="-k etf"
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
CHAPTERS ?= $(basename $(notdir $(wildcard notebooks/[0-9][0-9]_*.py)))

.PHONY: help lab test check bench book cuda
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# //p' Makefile

lab: $(VENV)/.book
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb $(ARGS)

test: $(VENV)/.test
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.test
	$(BIN)/ruff check ncbook tests notebooks
	$(BIN)/mypy
	$(BIN)/oxlint --deny-warnings ncbook

bench: $(VENV)/.bench
	$(BIN)/python -m pytest tests/benchmarks -s $(ARGS)

cuda: $(VENV)/.cuda
	$(BIN)/python tests/cuda/run.py $(ARGS)

book: $(CHAPTERS:%=notebooks/%.ipynb)

notebooks/%.ipynb: notebooks/%.py notebooks/build_book.py $(shell find ncbook -name '*.py' -o -name '*.js') | $(VENV)/.test
	$(BIN)/python notebooks/build_book.py $<

$(VENV)/.book: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --editable '.[book]'
	@touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --editable '.[test]'
	@touch $(VENV)/.book $@

$(VENV)/.bench: $(VENV)/.test
	$(BIN)/python -m pip install --editable '.[bench]'
	@touch $@

$(VENV)/.cuda: $(VENV)/.test
	$(BIN)/python -m pip install --editable '.[cuda]'
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "ncbook needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "Name another one, for example: PYTHON=python3.12 make lab" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@
