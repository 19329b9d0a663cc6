"""Example of a carrier: an air node in a box on a pole, around an ESP32-DevKitC.

A JST socket for a dust sensor on each UART, so that two makes can be compared
over a winter, and four sockets on one I2C bus, pulled up once on the carrier
(4.7 kOhm). 5 V for the dust sensors comes from the supply, not over the
DevKitC's USB diode: an SPS30's fan starts with 80 mA and more.

Three high-side switches, high is on, pulled down so that all is off while the
node sleeps or is flashed: 25 and 26 for the dust sensors, 27 for the I2C
sockets and the pull-ups of their bus. Without a supply a sensor would else
live on what its data lines give it, and would not begin anew.
"""

NAME = "air carrier with an ESP32-DevKitC"
CHIP = "esp32"
FLASH_MB = 4

BUSES = {
    "uart1": {"kind": "uart", "id": 1, "tx": 33, "rx": 32},
    "uart2": {"kind": "uart", "id": 2, "tx": 17, "rx": 16},
    "i2c0": {"kind": "i2c", "id": 0, "scl": 22, "sda": 21},
}

DEVICES = {
    "dust": {"driver": "sps30", "bus": "uart1", "power_pin": 25},
    "pms": {"driver": "pms5003", "bus": "uart2", "power_pin": 26},
    "sht": {"driver": "sht4x", "bus": "i2c0", "power_pin": 27},
    "co2": {"driver": "scd41", "bus": "i2c0", "power_pin": 27},
    "gas": {"driver": "sgp41", "bus": "i2c0", "power_pin": 27, "beside": "sht"},
}

LIGHT = {"led": 4}  # `blink` finds the node by it
