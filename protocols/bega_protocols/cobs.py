"""Consistent overhead byte stuffing: octets without a zero, so that a zero can end a frame and nothing else.

Spec: S. Cheshire and M. Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM
Transactions on Networking 7(2), 1999, section III. At most one octet more for
each 254, whatever they are; an escape character can double them.
"""

from bega_protocols.errors import WireError

LONGEST_RUN = 254  # octets behind one code; a code of 255 says that no zero follows


def encode(data: bytes) -> bytes:
    """Return `data` stuffed, without the zero that ends it."""
    stuffed = b""
    runs = data.split(b"\0")
    last = len(runs) - 1
    for index, run in enumerate(runs):
        while len(run) >= LONGEST_RUN:
            stuffed += b"\xff" + run[:LONGEST_RUN]
            run = run[LONGEST_RUN:]
            if not run and index == last:
                return stuffed
        stuffed += bytes((len(run) + 1,)) + run
    return stuffed


def decode(stuffed: bytes) -> bytes:
    """Return what `encode` was given; raises WireError if these octets are no stuffing."""
    data = b""
    at = 0
    while at < len(stuffed):
        code = stuffed[at]
        run = stuffed[at + 1 : at + code]
        if code == 0 or len(run) != code - 1 or 0 in run:
            raise WireError("no COBS", stuffed[:16])
        at += code
        data += run
        if code <= LONGEST_RUN and at < len(stuffed):
            data += b"\0"
    if not stuffed:
        raise WireError("no COBS")
    return data
