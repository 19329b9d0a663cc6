"""A gateway's configuration: TOML into frozen types. A typo stops the start, with its place in the file.

`tables.py` holds the types, `file.py` reads them, `sense.py` knows what cannot be meant. `gateway/examples/corner.toml`
shows every table with its reasons.
"""

from bega_gateway.commands.table import Commands
from bega_gateway.config.file import check, examine, load
from bega_gateway.config.sense import cautions, problems
from bega_gateway.config.tables import (
    LINES,
    Audience,
    BleLine,
    Config,
    Device,
    Feed,
    Gateway,
    I2cLine,
    Line,
    MbusLine,
    Metrics,
    ModbusRtuLine,
    ModbusTcpLine,
    MqttLine,
    Node,
    Page,
    Priority,
    SerialLine,
    Uplink,
    UplinkLine,
)
from bega_gateway.edge.tables import Treated

__all__ = [
    "LINES",
    "Audience",
    "BleLine",
    "Commands",
    "Config",
    "Device",
    "Feed",
    "Gateway",
    "I2cLine",
    "Line",
    "MbusLine",
    "Metrics",
    "ModbusRtuLine",
    "ModbusTcpLine",
    "MqttLine",
    "Node",
    "Page",
    "Priority",
    "SerialLine",
    "Treated",
    "Uplink",
    "UplinkLine",
    "cautions",
    "check",
    "examine",
    "load",
    "problems",
]
