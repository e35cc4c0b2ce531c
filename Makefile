# Everything a person or CI does, in one place. Needs Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup test slow fast faults secure lint demo clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Error: $(PYTHON) is older than 3.11. Cure: make setup PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[local,dev]'
	touch $(STAMP)

# Lint, types, floors, then the tests; the real stack is started once.
test: lint
	$(BIN)/python -m pytest

# The tests that take minutes each: faults, kills in the middle, every kind of key and mode.
slow: setup
	$(BIN)/python -m pytest -m slow

# The main tests on a stack with TLS, passwords and ACLs everywhere (docs/security.md).
MAIN := agent clients connectors control_plane defs failover snapshots verification
secure: setup
	CDC_TEST_SECURE=1 $(BIN)/python -m pytest -m "stack and not slow" $(MAIN:%=tests/%)

# Every fault of docs/faults.md on a real stack, with a table at the end: about half an hour.
faults: setup
	$(BIN)/python -m pytest -m slow tests/faults

# The tests that need no stack: about a minute.
fast: setup
	$(BIN)/python -m pytest -m "not stack and not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

demo: setup
	$(BIN)/cdc-platform demo

clean:
	-$(BIN)/cdc-platform stack down
	rm -rf $(VENV) .stack .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
