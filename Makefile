# make demo    synthetic photos -> LMDB files -> one epoch of every loader; a table and demo/throughput.png
# make test    the test suite
# make lint    ruff
# make clean   removes .venv, caches and demo/
# Needs Python >= 3.10 with venv; everything else is installed into .venv, at the versions in constraints.txt.

PYTHON ?= python3
DEMO_IMAGES ?= 400
PYTEST_ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lint clean
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/python examples/demo.py --images $(DEMO_IMAGES)

test: .venv/installed
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: .venv/lint-installed
	$(BIN)/ruff check .

# A new environment, never a changed one: what is in it depends on these files alone.
.venv/installed: setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python >= 3.10 is needed: make PYTHON=...")'
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet -c constraints.txt -e '.[test]'
	@touch $@

.venv/lint-installed: .venv/installed
	$(PIP) install --quiet -c constraints.txt ruff
	@touch $@

clean:
	rm -rf .venv demo build dist *.egg-info .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
