# `make demo` and `make test` work on a fresh clone with Python >= 3.10 and nothing else; both set themselves up.
VENV ?= .venv
BIN := $(VENV)/bin
OUTPUT ?= runs/demo

.PHONY: help setup demo test check format align-demo pool docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv with pinned versions (the other targets do it for you; instant when nothing changed)
	@VENV="$(VENV)" sh scripts/setup.sh

demo: setup ## curate, train, evaluate and chat on real data (FAST=1: about 2 minutes); killed, it goes on where it was
	@$(BIN)/bunny demo --output "$(OUTPUT)" $(if $(FAST),--fast)

test: setup ## run the tests
	@$(BIN)/python -m pytest

check: setup ## formatting, lint, types, import rules, docs, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python scripts/recipe_docs.py --check
	$(BIN)/python -m pytest

format: setup ## format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup ## write the generated parts of docs/ again
	$(BIN)/python scripts/recipe_docs.py

align-demo: setup ## make the demo's aligned projector again (one longer run)
	$(BIN)/bunny train recipes/align-demo.yaml --only align --output runs/align-demo
	$(BIN)/python scripts/release_projector.py runs/align-demo/aligned demo

pool: setup ## prepare the demo's picture pool again from the Debian packages
	$(BIN)/python scripts/prepare_pool.py

clean: ## remove caches and build output (keeps .venv and runs)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .coverage
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
