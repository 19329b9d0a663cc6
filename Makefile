# Bega. `make demo` shows the whole city corner; `make test` is what CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := gateway,kiosk,sim,tech

.PHONY: help demo test quick lint types pytest system-packages install clean

help:
	@echo "make demo    a city corner on this machine, no hardware (Ctrl-C ends it); ARGS='--for 60' is passed on"
	@echo "make test    lint, types and every test, installing what they need"
	@echo "make quick   lint, types and the tests that take no more than five seconds each"

# The demo needs no root: what is missing is said by the demo, and the rest comes up.
demo: install
	@$(BIN)/bega demo $(ARGS)

install: $(STAMP)

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "python3 is missing: install python3 (3.11 or newer) and its venv package"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Bega needs Python 3.11 or newer, this is $$($(PYTHON) --version)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "cannot make $(VENV): install the package python3-venv"; exit 1; }
	@echo "installing Bega into $(VENV) (once, about a minute)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.installed-test: $(STAMP)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS),test]'
	@touch $@

system-packages:
	@sh tests/system_packages.sh

test: $(VENV)/.installed-test system-packages lint types pytest

quick: $(VENV)/.installed-test lint types
	@$(BIN)/python -m pytest -m "not slow"

lint: $(VENV)/.installed-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	@$(BIN)/mypy

pytest: $(VENV)/.installed-test
	@$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
