# esp32.NVS. Errors are the IDF's, negated, as the port raises them.
from _board import call


class NVS:
    def __init__(self, namespace):
        call("nvs_open", space=namespace)
        self._space = namespace

    def set_i32(self, key, value):
        if not -(2**31) <= value < 2**31:
            raise OverflowError("value")
        call("nvs_set", space=self._space, key=key, type=0, value=(value & 0xFFFFFFFF).to_bytes(4, "little").hex())

    def get_i32(self, key):
        value = int.from_bytes(bytes.fromhex(call("nvs_get", space=self._space, key=key, type=0)), "little")
        return value - 2**32 if value & 0x80000000 else value

    def set_blob(self, key, value):
        call("nvs_set", space=self._space, key=key, type=1, value=bytes(value).hex())

    def get_blob(self, key, buffer):
        value = bytes.fromhex(call("nvs_get", space=self._space, key=key, type=1, room=len(buffer)))
        buffer[: len(value)] = value
        return len(value)

    def erase_key(self, key):
        call("nvs_erase", space=self._space, key=key)

    def commit(self):
        call("nvs_commit", space=self._space)
