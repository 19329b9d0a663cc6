# Bega. `make demo` shows the whole city corner; `make test` is what CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := gateway,kiosk,sim,tech
# Most tests wait for wires and brokers: four at a time keep two cores busy, and leave the timed ones room
# (docs/decisions/073-by-day-and-by-night.md).
WORKERS := -n 4 --dist worksteal

.PHONY: help demo test quick nightly bench lint types pytest system-packages install clean

help:
	@echo "make demo    a city corner on this machine, no hardware (Ctrl-C ends it); ARGS='--for 60' is passed on"
	@echo "make test    lint, types and every test, installing what they need"
	@echo "make nightly PART=engine|edge|devices|firmware|technician|updates|kiosk   the same checks with many more examples"
	@echo "make bench   what the gateway must hold, measured beside a floor, about 20 minutes; ARGS='load most' measures some"
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
	@$(BIN)/python -m pytest $(WORKERS) -m "not slow"

# The same tests, searched more deeply: BEGA_PROFILE chooses how many examples hypothesis tries (tests/conftest.py).
NIGHTLY_engine := tests/test_spool.py tests/test_spool_powercut.py tests/test_storage_faults.py tests/test_publish.py tests/test_node_line.py tests/test_outages.py tests/test_modbus_line.py tests/test_commands.py tests/test_bench.py tests/test_node_outage.py tests/test_scan.py hil_tests
NIGHTLY_edge := tests/test_edge.py tests/test_edge_totals.py tests/test_edge_weeks.py tests/test_computed.py
NIGHTLY_devices := tests/test_devices.py tests/test_dsmr_p1.py tests/test_vectors_outside.py tests/test_driver_faults.py tests/fuzz tests/test_frames.py tests/test_senml.py tests/test_reading.py tests/test_ccm.py
NIGHTLY_firmware := tests/test_ring.py tests/test_timekeeping.py tests/test_board.py tests/test_board_buttons.py tests/test_lean_build.py tests/test_node_soak.py tests/test_board_storage.py tests/test_meter_node.py tests/test_uplink.py tests/test_uplink_line.py tests/test_uplink_cuts.py tests/test_uplink_node.py tests/test_overheard.py tests/test_beacon.py tests/test_bthome_write.py tests/test_node_recovery.py tests/test_node_gates.py tests/test_node_week.py tests/test_fifteen_pains.py tests/test_32_bit.py
NIGHTLY_technician := tests/test_setup.py tests/test_node_proof.py tests/test_flash.py tests/test_board_serial.py tests/test_provision.py tests/test_cable.py tests/test_revocation.py tests/test_ca_revoke.py
NIGHTLY_updates := tests/test_node_update.py tests/test_update_powercut.py tests/test_update_whole.py tests/test_update_fleet.py
NIGHTLY_kiosk := $(wildcard tests/test_kiosk_*.py) tests/test_look.py tests/test_page_browser.py tests/test_browser.py

nightly: $(VENV)/.installed-test system-packages
	@[ -n "$(NIGHTLY_$(PART))" ] || { echo "name a part: make nightly PART=engine|edge|devices|firmware|technician|updates|kiosk"; exit 1; }
	@BEGA_PROFILE=nightly $(BIN)/python -m pytest $(WORKERS) --timeout 1200 $(NIGHTLY_$(PART))

# On an idle machine, or the figures say little. The bytes on flash need root for their loop mounts.
bench: install
	@$(BIN)/bega bench $(ARGS)

lint: $(VENV)/.installed-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	@$(BIN)/mypy

pytest: $(VENV)/.installed-test
	@$(BIN)/python -m pytest $(WORKERS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
