# Everything a newcomer needs: `make demo` and `make test`. Both set up .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint types bench embedded-models model-card clean
.DEFAULT_GOAL := help

help:
	@echo "make demo             run the main job on the embedded models and write a report"
	@echo "make test             run the test suite"
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
	$(BIN)/pytest -n auto

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

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
	rm -rf $(VENV) demo
