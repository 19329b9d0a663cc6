# The built-in `ssl`, but that a connection needs room in the IDF's heap, as it does on the chip.
import sys

from _board import ask

del sys.modules["ssl"]
import ssl as real


class SSLContext(real.SSLContext):
    def wrap_socket(self, *args, **more):
        ask("machine._tls_wrap")
        return super().wrap_socket(*args, **more)


real.SSLContext = SSLContext
