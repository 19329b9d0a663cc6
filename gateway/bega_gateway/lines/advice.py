"""What went wrong with a wire and what to do about it, in one sentence for whoever stands at the pole."""

from __future__ import annotations

import errno
import socket
import termios


def port_advice(port: str, how: str, error: Exception) -> str:
    """Return the sentence for a serial port; how: the settings that it was asked to take."""
    number = getattr(error, "errno", None) or next(iter(error.args), None)
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EIO):
        return f"{port} is not there: plug the adapter in, or correct `port` (ls /dev/serial/by-id); trying again"
    if number == errno.EACCES:
        return f"{port} may not be opened: add the gateway's user to the group dialout; trying again"
    if "lock" in str(error) or number in (errno.EBUSY, errno.EAGAIN):
        return f"{port} is in use by another program (fuser {port} names it); trying again"
    if isinstance(error, termios.error | ValueError):
        return f"{port} does not take {how}: correct the line's settings ({error}); trying again"
    return f"{port}: {error}; trying again"


def host_advice(host: str, port: int, error: Exception) -> str:
    """Return the sentence for a Modbus TCP server."""
    if isinstance(error, ConnectionRefusedError):
        return f"{host}:{port} refuses: is Modbus TCP switched on there, and is `port` right? trying again"
    if isinstance(error, socket.gaierror):
        return f"nobody knows the name {host}: correct `host`, or write its address; trying again"
    if isinstance(error, TimeoutError):
        return f"{host}:{port} does not answer: check its power, its cable and `host`; trying again"
    if getattr(error, "errno", None) in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return f"there is no way to {host}: check the network cable and `host`; trying again"
    return f"{host}:{port}: {error}; trying again"


def i2c_advice(bus: int, error: OSError) -> str:
    """Return the sentence for an I2C bus of this machine."""
    port = f"/dev/i2c-{bus}"
    if error.errno in (errno.ENOENT, errno.ENODEV):
        return f"{port} is not there: switch I2C on (dtparam=i2c_arm=on), or correct `bus`; trying again"
    if error.errno == errno.EACCES:
        return f"{port} may not be opened: add the gateway's user to the group i2c; trying again"
    return f"{port}: {error}; trying again"
