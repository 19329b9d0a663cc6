# The board's side of every peripheral: one request a line to the process that owns them, one answer a line back.
# Both go over file descriptors that the interpreter inherited, so a board needs no port.
import json
import os
import sys

_fds = json.loads(os.getenv("BEGA_BOARD_FDS"))
_control = open(_fds["control"], "r+b")


def call(op, **facts):
    """Return the answer; raises OSError where the peripheral does, and ends the program where the board is gone."""
    facts["op"] = op
    _control.write(json.dumps(facts).encode() + b"\n")
    line = _control.readline()
    if not line:
        sys.exit(1)  # the process that is this board was killed: so is the program on it
    answer = json.loads(line)
    if "errno" in answer:
        raise OSError(answer["errno"])
    return answer.get("ok")


def serial_file(number):
    """Return the file behind a UART."""
    return open(_fds["uart%d" % number], "r+b")
