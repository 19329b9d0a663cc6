"""ESP32-DevKitC (ESP32-WROOM-32) as an air node: pins, and which device hangs on which bus.

GPIO 16 and 17 are the WROOM's UART2 by default; on a WROVER they belong to the
PSRAM, and another pair is needed. UART1's own pins (9, 10) belong to the
flash: 32 and 33 are free. 21 and 22 are the usual I2C pins; sensors that share
them need different addresses, and 10 kOhm to 3.3 V on each of the two, once.
A PMS5003's SET and RESET may stay open: both are pulled up inside.

An SCD41 draws up to 205 mA for moments: it counts beside Wi-Fi's own peaks
when the regulator of 3.3 V is chosen.
"""

NAME = "ESP32-DevKitC"
CHIP = "esp32"
FLASH_MB = 4

BUSES = {
    "uart1": {"kind": "uart", "id": 1, "tx": 33, "rx": 32},
    "uart2": {"kind": "uart", "id": 2, "tx": 17, "rx": 16},
    "i2c0": {"kind": "i2c", "id": 0, "scl": 22, "sda": 21},
}

DEVICES = {
    "pms": {"driver": "pms5003", "bus": "uart2"},
    "sht": {"driver": "sht4x", "bus": "i2c0"},
    "co2": {"driver": "scd41", "bus": "i2c0"},
    "bme": {"driver": "bme280", "bus": "i2c0"},
    "gas": {"driver": "sgp41", "bus": "i2c0"},
}
