# One measurement of a Modbus meter on MicroPython, driven with recorded replies.
# Run as: micropython modbus_measure.py RECORDED.py; that file holds `profile` and `exchanges`.
import sys

from bega_protocols.devices.modbus_meter.driver import Driver

recorded = {}
exec(open(sys.argv[1]).read(), recorded)
driver = Driver({"profile": recorded["profile"], "address": 1})
measurement = driver.measure(0)
answer = None
groups = None
for question, reply in recorded["exchanges"]:
    ask = measurement.send(answer)
    if ask.write != question:
        raise SystemExit("asked %r, recorded %r" % (ask.write, question))
    answer = reply
try:
    measurement.send(answer)
except StopIteration as stop:
    groups = stop.value
print([[tuple(reading) for reading in group] for group in groups])
