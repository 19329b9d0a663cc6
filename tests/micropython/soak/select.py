# MicroPython's select, whose waits are as short as time.py makes them.
import sys

_path = sys.path
sys.path = ()
try:
    from select import *  # noqa: F403
    from select import poll as _poll
finally:
    sys.path = _path

from time import SPEED  # noqa: E402


class poll:
    def __init__(self):
        poller = _poll()
        self.register, self.unregister, self.modify = poller.register, poller.unregister, poller.modify
        self._ipoll = poller.ipoll

    def ipoll(self, timeout=-1, flags=0):
        return self._ipoll(timeout if timeout <= 0 else max(1, timeout // SPEED), flags)
