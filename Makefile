# Everything a newcomer needs: `make demo` and `make test`. Both set up .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-slow test-lowest test-steady lint types bench embedded-models model-card clean
.DEFAULT_GOAL := help

help:
	@echo "make demo             run the main job on the embedded models and write a report"
	@echo "make test             run the test suite, but for its long tests"
	@echo "make test-slow        run the long tests"
	@echo "make test-lowest      run models, recording and experiments with the lowest versions allowed"
	@echo "make test-steady      run tests of kills, signals and threads ten times beside four busy processes"
	@echo "make lint types       ruff and mypy"
	@echo "make bench            what must be fast, beside what it is compared with (ten minutes)"
	@echo "make embedded-models  train the embedded models from nothing (two hours on 4 cores)"
	@echo "make model-card       measure them and write docs/embedded-models.md"

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/neuroglot demo

test: $(VENV)/installed
	$(BIN)/pytest -n auto -m "not slow"

test-slow: $(VENV)/installed
	$(BIN)/pytest -n auto -m slow

# In an environment of its own; the newest versions are those of `make test`.
LOWEST := .venv-lowest
$(LOWEST)/installed: pyproject.toml constraints.txt tests/lowest.py
	$(PYTHON) -m venv --clear $(LOWEST)
	$(PYTHON) tests/lowest.py > $(LOWEST)/pins.txt
	$(LOWEST)/bin/pip install --quiet --constraint $(LOWEST)/pins.txt --editable '.[datasets,lora]' \
		hypothesis pytest pytest-xdist
	touch $@

test-lowest: $(LOWEST)/installed
	$(LOWEST)/bin/pytest -n auto -m "not slow" tests/models tests/store tests/running tests/recording tests/answering \
		tests/comparison

test-steady: $(VENV)/installed
	$(BIN)/python -m tests.steady

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/installed
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python -m bench

embedded-models: $(VENV)/installed
	$(BIN)/python -m training.train
	$(MAKE) model-card

model-card: $(VENV)/installed
	$(BIN)/python -m training.card

clean:
	rm -rf $(VENV) $(LOWEST) demo
