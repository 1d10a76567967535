# Everything is installed below .venv; only missing Debian packages need root.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2 # processes that run tests; each starts the servers that its tests need

# A suite of Debian whose Python is of the version of $(PYTHON)
IMAGE_SUITE ?= bookworm
IMAGE_BASE ?= build/$(IMAGE_SUITE)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check check-lint check-format check-mypy check-basedpyright check-imports \
	check-docs docs bench bench-quick clean system dist image licences

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.runtime ## Store, mount and compare a few small images in a temporary directory
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python scripts/demo.py

test: $(VENV)/.development ## Run all tests; ARGS="-k name" is handed to pytest
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder $(ARGS)

check: check-lint check-format check-mypy check-basedpyright check-imports check-docs ## Run all static checks

check-lint: $(VENV)/.development ## Run ruff's linter
	$(BIN)/ruff check

check-format: $(VENV)/.development ## Run ruff's formatter without changing anything
	$(BIN)/ruff format --check

check-mypy: $(VENV)/.development ## Check types with mypy
	$(BIN)/mypy

check-basedpyright: $(VENV)/.development ## Check types with basedpyright
	$(BIN)/basedpyright --pythonpath $(BIN)/python

check-imports: $(VENV)/.development ## Check who imports whom
	$(BIN)/lint-imports

check-docs: $(VENV)/.development ## Check that the pages make a site
	$(BIN)/mkdocs build --quiet --strict --site-dir build/checked-site

docs: $(VENV)/.development ## Make a site of the pages, build/site/index.html
	$(BIN)/mkdocs build --quiet --strict

bench: $(VENV)/.development ## Measure everything next to its baseline; ARGS="add read" chooses
	$(BIN)/python -m pytest benchmarks/micro
	$(BIN)/python -m benchmarks.scenarios $(ARGS)

bench-quick: $(VENV)/.development ## Run all benchmarks with small images, to see that they work
	$(BIN)/python -m pytest benchmarks/micro --quiet --benchmark-max-time=0.1 --benchmark-min-rounds=3
	$(BIN)/python -m benchmarks.scenarios --quick $(ARGS)

dist: $(VENV)/.development ## Build the wheel and the source distribution in dist/
	$(BIN)/python -m build

image: $(VENV)/.runtime | $(IMAGE_BASE) ## Make an image with ocistow in build/store, of what debootstrap makes; as root
	$(BIN)/python scripts/image.py $(IMAGE_BASE) localhost/ocistow:latest --store build/store

licences: $(VENV)/.runtime ## Write the licences of what is installed with ocistow into docs/licences.md
	$(BIN)/python -m ocistow.cli.components docs/licences.md

clean: ## Remove the virtual environment and everything generated
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache .benchmarks .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(IMAGE_BASE):
	mkdir -p $(@D)
	rm -rf --one-file-system $@.part
	debootstrap --variant=minbase --include=ca-certificates,fuse3,python3 $(IMAGE_SUITE) $@.part
	rm -rf $@.part/var/cache/apt/* $@.part/var/lib/apt/lists/* # a third of it
	mv $@.part $@

system:
	@scripts/bootstrap "$(PYTHON)" $(if $(filter test,$(MAKECMDGOALS)),test,run)

# The stamps are rebuilt when pyproject.toml changes; dependency groups need pip 25.1.
$(VENV)/.runtime: pyproject.toml | system
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	$(PIP) install --editable .
	@touch $@

$(VENV)/.development: $(VENV)/.runtime
	$(PIP) install --editable . --group dev
	@touch $@
