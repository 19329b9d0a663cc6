"""From the configuration to the application that it asks for: a node that stores and hands on (app), or a beacon."""

import asyncio
import gc

import board
import machine
from choice import Choice

from bega_protocols.errors import ConfigError

# Allocated, and the heap is swept: one that first fills up is torn; 16384 took 4 kB more to run in.
COLLECT_BYTES = 4096


def start(starts):
    """Run until the power goes; raises what a defect or a failing flash raises.

    A configuration that cannot be is said, and left to the technician at the console.
    """
    gc.collect()
    gc.threshold(COLLECT_BYTES)
    choice = None
    try:
        choice = Choice(board)
        if choice.values["way"] == "beacon":
            from beacon import Beacon as Application  # it stores nothing, hands on nothing and obeys nobody
        else:
            from app import Node as Application
        asyncio.run(Application(choice, starts).run())
    except ConfigError as error:
        print("bega: configuration: %s" % error)
        if choice and choice.is_trial():  # a driver refuses it: back to the node's own
            starts.note_error("configuration: %s" % error)
            machine.reset()
