# Everything that contributors and CI run, in one place. Needs Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup test slow fast faults field secure lint format typecheck prose docs screenshots coverage lowest newest build sbom locks audit bench demo clean

# More arguments for pytest: make fast ARGS="-x -k canary".
ARGS ?=

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Error: $(PYTHON) is older than 3.11. Cure: make setup PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

# Lint, types, floors, then the tests; the real stack is started once.
test: lint
	$(BIN)/python -m pytest $(ARGS)

# The tests that take minutes each: faults, kills in the middle, every kind of key and mode.
slow: setup
	$(BIN)/python -m pytest -m slow $(ARGS)

# The main tests on a stack with TLS, passwords and ACLs everywhere (docs/security.md).
MAIN := agent clients connectors control_plane defs failover snapshots verification
secure: setup
	CDC_TEST_SECURE=1 $(BIN)/python -m pytest -m "stack and not slow" $(MAIN:%=tests/%) $(ARGS)

# Every fault of docs/faults.md on a real stack, with a table at the end: about half an hour.
faults: setup
	$(BIN)/python -m pytest -m slow tests/faults $(ARGS)

# The field cases (tests/field/cases.py) on real servers, a table of cases and engines at the end. What passed is kept
# in .field/ for the commit it passed on, so that a run that was stopped goes on with the rest: run it again. `rm -r
# .field` begins anew. One case: make field ARGS="-k ENUM-KEY".
field: setup
	$(BIN)/python -m pytest -p tests.field.plugin -m field $(ARGS)

# Dagster's pages in Debian's Chromium (package chromium); their pictures go into docs/images.
screenshots: setup
	CDC_SCREENSHOTS=1 $(BIN)/python -m pytest -m browser tests/browser $(ARGS)

# The tests that need no stack: about four minutes on two cores.
fast: setup
	$(BIN)/python -m pytest -m "not stack and not slow" $(ARGS)

lint: setup typecheck prose
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# What ruff can put right by itself.
format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: setup
	$(BIN)/mypy

# Links, spelling and wording.
prose: setup
	$(BIN)/python .ci/check_links.py
	$(BIN)/python .ci/check_phrases.py
	$(BIN)/codespell

# The site in site/: https://www.mkdocs.org, with mkdocs-material.
docs: prose
	$(BIN)/python docs/reference/generate.py
	$(BIN)/python -m mkdocs build --strict

# Branch coverage of the tests of `make test`, a line for each module; the pages are in htmlcov/.
coverage: setup
	$(BIN)/python -m pytest --cov --cov-report=term --cov-report=html $(ARGS)

bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks $(ARGS)

# The Dagster layer with the oldest versions that pyproject.toml allows, and with the newest that resolve.
ENDS := tests/defs tests/packaging
lowest: setup
	$(BIN)/python -m tests.packaging.lowest_versions > $(VENV)/lowest.txt
	$(call at_one_end,-c $(VENV)/lowest.txt)
newest: setup
	$(call at_one_end)

define at_one_end
	$(PYTHON) -m venv --clear .venv-$@
	.venv-$@/bin/python -m pip install --quiet --disable-pip-version-check $(1) -e '.[dev]'
	.venv-$@/bin/python -m pip list --disable-pip-version-check | grep -E '^(dagster|great-expectations|numpy|pyarrow) '
	.venv-$@/bin/python -m pytest -q -m "not stack and not slow" $(ENDS)
endef

# Wheel and source archive in dist/.
build: setup
	$(BIN)/python -m build --outdir dist .

# What the wheel brings with it, as CycloneDX JSON beside it.
sbom: setup
	mkdir -p dist
	$(BIN)/python .ci/sbom.py > dist/sbom.json

# Hashes of all that an image or an agent's host installs: deploy/locks.
locks: setup
	$(BIN)/python .ci/lock.py

# Known holes in what is pinned, by pip-audit, which is installed apart and asks its own service for them.
AUDIT := .venv-audit
audit:
	test -x $(AUDIT)/bin/pip-audit || { $(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/python -m pip install --quiet pip-audit; }
	$(PYTHON) .ci/audit.py $(AUDIT)/bin/pip-audit deploy/locks/image.txt deploy/locks/agent.txt

demo: setup
	$(BIN)/cdc-platform demo

clean:
	-$(BIN)/cdc-platform stack down
	rm -rf .venv .venv-* .stack site .field htmlcov dist .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
