# AES-128, a block at a time, for the WebAssembly build, which has no cryptolib: slow, and for tests alone.
# MicroPython's zip has no `strict`. Spec: FIPS 197 (2023), section 5.1; the S-box is worked out as in section 5.1.1.


def _times(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def _substitutes():
    box = bytearray(256)
    for octet in range(256):
        inverse = next((other for other in range(256) if _times(octet, other) == 1), 0)
        box[octet] = 0x63
        for turn in range(5):
            box[octet] ^= (inverse << turn | inverse >> (8 - turn)) & 255
    return box


_BOX = _substitutes()


class aes:
    def __init__(self, key, mode):
        words = [key[at : at + 4] for at in range(0, 16, 4)]
        constant = 1
        for number in range(4, 44):
            word = words[-1]
            if number % 4 == 0:
                word = bytes(_BOX[word[(at + 1) % 4]] ^ (constant if at == 0 else 0) for at in range(4))
                constant = _times(constant, 2)
            words.append(bytes(a ^ b for a, b in zip(words[-4], word)))  # noqa: B905
        self._rounds = [b"".join(words[at : at + 4]) for at in range(0, 44, 4)]

    def encrypt(self, block):
        state = bytes(a ^ b for a, b in zip(block, self._rounds[0]))  # noqa: B905
        for number in range(1, 11):
            state = bytes(_BOX[state[(at + 4 * (at % 4)) % 16]] for at in range(16))
            if number < 10:
                state = b"".join(_mixed(state[at : at + 4]) for at in range(0, 16, 4))
            state = bytes(a ^ b for a, b in zip(state, self._rounds[number]))  # noqa: B905
        return state


def _mixed(column):
    return bytes(
        _times(column[at], 2) ^ _times(column[(at + 1) % 4], 3) ^ column[(at + 2) % 4] ^ column[(at + 3) % 4]
        for at in range(4)
    )
