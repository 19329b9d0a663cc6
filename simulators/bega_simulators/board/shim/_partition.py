# esp32.Partition: rows of the table on the board's flash, and the pair of slots that an update and its rollback use.
import _flash
from _board import call, cut, file

_chip = file("flash")  # one for all: a file that is collected takes its descriptor along


class Partition(_flash.Partition):
    BOOT, RUNNING = 0, 1
    TYPE_APP, TYPE_DATA = 0, 1

    def __init__(self, id, block_size=4096):
        self._info = tuple(id if isinstance(id, list) else call("partition", which=id))
        super().__init__(_chip, self._info[2], self._info[3] // 4096, cut)

    @staticmethod
    def find(type=0, subtype=255, label=None):
        return [Partition(row) for row in call("partition_find", type=type, subtype=subtype, label=label)]

    @classmethod
    def mark_app_valid_cancel_rollback(cls):
        call("partition_valid")

    def info(self):
        return self._info

    def get_next_update(self):
        return Partition(call("partition_next", label=self._info[4]))

    def set_boot(self):
        call("partition_set_boot", label=self._info[4])
