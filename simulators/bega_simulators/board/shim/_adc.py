# machine.ADC of the ESP32 port: the full scale depends on the attenuation, and its ends cannot be told apart.
from _board import call


class ADC:
    ATTN_0DB, ATTN_2_5DB, ATTN_6DB, ATTN_11DB = 0, 1, 2, 3
    WIDTH_9BIT, WIDTH_10BIT, WIDTH_11BIT, WIDTH_12BIT = 9, 10, 11, 12

    def __init__(self, id, *, sample_ns=None, atten=0):
        self._pin = int(id)
        self._atten = atten
        self.read_uv()

    def init(self, *, sample_ns=None, atten=0):
        self._atten = atten

    def atten(self, atten):
        self._atten = atten

    def read_uv(self):
        return call("adc", pin=self._pin, atten=self._atten)

    def read_u16(self):
        return min(65535, self.read_uv() * 65535 // (950000, 1250000, 1750000, 2450000)[self._atten])

    def read(self):
        return self.read_u16() >> 4
