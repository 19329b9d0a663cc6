"""What bytes mean: pure, and the same files on CPython and MicroPython."""
