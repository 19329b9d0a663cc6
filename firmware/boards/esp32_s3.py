"""ESP32-S3-DevKitC-1 (ESP32-S3-WROOM-1, 8 MB) as an air node: pins, and which device hangs on which bus.

35, 36 and 37 belong to the RAM of modules with eight lines to it (N8R8), 19
and 20 to the USB socket, 43 and 44 to the other one. GPIO 17 and 18 are
UART1's usual pins. I2C needs 4.7 kOhm to 3.3 V on each of its two lines, once.
The LED on the board is on 48 of the first edition and on 38 of the second.
"""

NAME = "ESP32-S3-DevKitC-1"
CHIP = "esp32s3"
FLASH_MB = 8

BUSES = {
    "uart1": {"kind": "uart", "id": 1, "tx": 17, "rx": 18},
    "uart2": {"kind": "uart", "id": 2, "tx": 15, "rx": 16},
    "i2c0": {"kind": "i2c", "id": 0, "scl": 9, "sda": 8},
}

DEVICES = {
    "pms": {"driver": "pms5003", "bus": "uart2"},
    "sht": {"driver": "sht4x", "bus": "i2c0"},
    "co2": {"driver": "scd41", "bus": "i2c0"},
    "bme": {"driver": "bme280", "bus": "i2c0"},
    "gas": {"driver": "sgp41", "bus": "i2c0"},
}
