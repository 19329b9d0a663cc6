"""ESP32-DevKitC (ESP32-WROOM-32) as an air node: pins, and which device hangs on which bus.

GPIO 16 and 17 are the WROOM's UART2 by default; on a WROVER they belong to the
PSRAM, and another pair is needed. 21 and 22 are the usual I2C pins. A
PMS5003's SET and RESET may stay open: both are pulled up inside.
"""

NAME = "ESP32-DevKitC"

BUSES = {
    "uart2": {"kind": "uart", "id": 2, "tx": 17, "rx": 16},
    "i2c0": {"kind": "i2c", "id": 0, "scl": 22, "sda": 21},
}

DEVICES = {
    "pms": {"driver": "pms5003", "bus": "uart2"},
    "sht": {"driver": "sht4x", "bus": "i2c0"},
}
