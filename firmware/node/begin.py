"""From the configuration to the application that it asks for: a node that stores and hands on (app), or a beacon."""

import asyncio
import gc
import sys

import machine
from choice import Choice

from bega_protocols.errors import ConfigError

# Allocated, and the heap is swept: one that first fills up is torn; 16384 took 4 kB more to run in.
COLLECT_BYTES = 4096


def start(starts, is_trial):
    """Run until the power goes; raises what a defect or a failing flash raises.

    A configuration that cannot be is said, and left to the technician at the console.
    """
    gc.collect()
    gc.threshold(COLLECT_BYTES)
    choice = None
    try:
        import board  # in here, as wherever it is read: let go of below, and loaded again when that is needed

        choice = Choice(board)
        if choice.values["way"] == "beacon":
            from beacon import Beacon  # it stores nothing, hands on nothing and obeys nobody

            application = Beacon(choice, starts)
        else:
            from app import Node

            application = Node(choice, starts, is_trial)
        del board, sys.modules["board"]  # 3 kB of tables, of which nothing is needed any more
        asyncio.run(application.run())
    except ConfigError as error:
        print("bega: configuration: %s" % error)
        if is_trial or (choice and choice.is_trial()):  # back to what did not refuse it
            starts.note_error("configuration: %s" % error)
            machine.reset()
