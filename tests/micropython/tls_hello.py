"""A node's TLS as firmware/node/broker.py sets it up: run as `micropython tls_hello.py PORT CA CERTIFICATE KEY [HOST]`.

Prints "connected" if the broker takes the MQTT connection, or the error.
"""

import socket
import ssl
import sys


def read(path):
    """Return the bytes of a file."""
    with open(path, "rb") as file:
        return file.read()


port, authority, certificate, key = sys.argv[1:5]
host = sys.argv[5] if len(sys.argv) > 5 else "localhost"
try:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=read(authority))
    context.load_cert_chain(read(certificate), read(key))
    plain = socket.socket()
    plain.connect(socket.getaddrinfo("127.0.0.1", int(port))[0][-1])
    secured = context.wrap_socket(plain, server_hostname=host)
    secured.write(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x1e\x00\x05air-7")
    answer = secured.read(4)
    print("connected" if answer == b"\x20\x02\x00\x00" else "refused: %r" % answer)
except (OSError, ValueError) as error:
    print("%s: %s" % (type(error).__name__, error))
