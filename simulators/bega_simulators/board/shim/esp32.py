# The board's `esp32`: what the port has beside `machine`. Its classes are loaded when they are first named.
import _board
from _board import call

WAKEUP_ALL_LOW, WAKEUP_ANY_HIGH = False, True
HEAP_EXEC, HEAP_DATA = 1, 4
_PARTS = {"NVS": "_nvs", "Partition": "_partition", "PCNT": "_pcnt"}


def __getattr__(name):
    if name not in _PARTS:
        raise AttributeError(name)
    part = getattr(_board.load(_PARTS[name]), name)
    globals()[name] = part
    return part


def idf_heap_info(capabilities):
    return [tuple(region) for region in call("idf_heap", executable=capabilities == HEAP_EXEC)]


def raw_temperature():
    return 128  # degrees Fahrenheit of the chip itself, raw: tells nothing of the air


def wake_on_ext0(pin, level):
    call("wake_on", pins=[] if pin is None else [int(pin)], level=int(level))


def wake_on_ext1(pins, level):
    call("wake_on", pins=[int(pin) for pin in pins or ()], level=int(level))


def gpio_deep_sleep_hold(enable):
    call("hold_in_sleep", on=bool(enable))
