# What an air node carries, for MicroPython's own image build: make BOARD=ESP32_GENERIC FROZEN_MANIFEST=this file.
# ruff: noqa: F821
# `require` names micropython-lib packages by version; the air node needs none beyond what every ESP32 image freezes.
include("$(MPY_DIR)/extmod/asyncio")
package("bega_protocols", base_path="../protocols")
for part in ("app", "config", "flash", "health", "link", "main", "mqtt", "sensor", "store", "wifi", "wires"):
    module(part + ".py", base_path="node")
module("esp32_devkitc.py", base_path="boards")
