# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install demo test test-slow lint clean

help:
	@echo "make demo   install into .venv and run the embedded first run"
	@echo "make test   install into .venv and run the tests, but for the slow ones"
	@echo "make test-slow  run these, too: every family in every engine, kills, training on several processes"
	@echo "make lint   ruff, mypy, import-linter"
	@echo "make clean  remove .venv and what the tools left"

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Taxonet needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1); set PYTHON=..."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $@

demo: install
	$(BIN)/taxonet demo

# one process a core, each of one thread
test: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto -m "not slow"

test-slow: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache taxonet-demo
