# What an interpreter image for Bega's nodes freezes: make BOARD=ESP32_GENERIC FROZEN_MANIFEST=this file.
# The node's own program is not among it: `bega node build` puts that on the file system, where updates can change it.
# ruff: noqa: F821
include("$(PORT_DIR)/boards/manifest.py")  # all that a stock image has: asyncio, ssl, what mounts the file system

# micropython-lib beyond that. A stock image lacks it: `bega node build --micropython-lib DIR` takes it from a copy.
require("aioble", version="0.6.0")
