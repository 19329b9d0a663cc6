# machine.I2C of the ESP32 port: 19 (ENODEV) where nobody acknowledges, 116 (ETIMEDOUT) where a line is held down.
from _board import call


class I2C:
    def __init__(self, id, *, scl=None, sda=None, freq=400000, timeout=50000):
        self._bus = id
        usual = (18, 19) if id == 0 else (25, 26)
        scl, sda = usual[0] if scl is None else int(scl), usual[1] if sda is None else int(sda)
        call("i2c_init", bus=id, scl=scl, sda=sda, freq=freq)

    def scan(self):
        return call("i2c_scan", bus=self._bus)

    def writeto(self, addr, buf, stop=True):
        return call("i2c_write", bus=self._bus, address=addr, data=bytes(buf).hex())

    def writevto(self, addr, vector, stop=True):
        return self.writeto(addr, b"".join([bytes(part) for part in vector]))

    def readfrom(self, addr, nbytes, stop=True):
        return bytes.fromhex(call("i2c_read", bus=self._bus, address=addr, size=nbytes))

    def readfrom_into(self, addr, buf, stop=True):
        buf[:] = self.readfrom(addr, len(buf))

    def readfrom_mem(self, addr, memaddr, nbytes, *, addrsize=8):
        self.writeto(addr, memaddr.to_bytes(addrsize // 8, "big"), False)
        return self.readfrom(addr, nbytes)

    def readfrom_mem_into(self, addr, memaddr, buf, *, addrsize=8):
        buf[:] = self.readfrom_mem(addr, memaddr, len(buf), addrsize=addrsize)

    def writeto_mem(self, addr, memaddr, buf, *, addrsize=8):
        self.writeto(addr, memaddr.to_bytes(addrsize // 8, "big") + bytes(buf))


class SoftI2C(I2C):
    def __init__(self, scl, sda, *, freq=400000, timeout=50000):
        super().__init__(0, scl=scl, sda=sda, freq=freq)
