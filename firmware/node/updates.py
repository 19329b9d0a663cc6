"""What the application has to do with updates, beside measuring. Loaded only where there is one."""

import gc
import json
import sys

from choice import content
from starts import FOLDER, VERSION

CHECK_BYTES = 24576  # of heap: the code that checks an update, and a number of 3072 bits to the power of 65537


class Updates:
    """The updates of a node of these parts."""

    def __init__(self, sensors, mono, link, config, now_ms, restart, starts):
        self._sensors = sensors
        self._mono = mono
        self._link = link
        self._config = config
        self._now_ms = now_ms
        self._restart = restart
        self._starts = starts

    def go_on(self, is_trial):
        """Go on where the last start left it; return (trial or None, what the status says of the last update)."""
        try:
            words = json.loads(content(FOLDER + "/update"))
            state = words["state"]
        except (ValueError, KeyError, TypeError):  # its note rots
            words, state = None, ""
        trial = None
        if is_trial:
            trial = self._tried(words or {"version": VERSION})
        elif state == "trial":
            from trial import settled

            words = settled(words, VERSION, self._starts.last_error())
        elif state == "loading":
            from pull import resumed

            self._link.pull = resumed(self._working, self._ended)
        sys.modules.pop("updates", None)
        return trial, words

    def take(self, asked):
        """Begin to fetch an update; return why not, None if it is so. Raises OSError."""
        gc.collect()
        if gc.mem_free() < CHECK_BYTES:  # it is checked at a start, before all else; the status says what came of it
            asked.update(now_ms=self._now_ms(), worked=self._working(), way=self._config["way"])
            asked["devices"] = [{"driver": device["driver"]} for device in self._config["devices"]]
            with open(FOLDER + "/asked", "w") as file:
                json.dump(asked, file)
            return self._restart(asked)
        from pull import begun

        came = begun(asked, self._config, self._now_ms(), self._working, self._ended)
        if isinstance(came, str):
            return came
        self._link.pull = came
        self._link.say_status()

    def back(self, asked):
        """Go back to the version before; return why not, None if it is so. Raises OSError."""
        from slot import go_back

        return go_back("by command", asked.get("version")) or self._restart(asked)

    def _tried(self, words):
        from trial import Trial

        trial = Trial(self._sensors, self._mono, words, self._link.say_status)
        confirm = self._link.confirm

        def acknowledged():
            confirm()
            trial.acknowledged = True

        self._link.confirm = acknowledged
        return trial

    def _working(self):
        return [sensor.name for sensor in self._sensors if sensor.state == "ok"]

    def _ended(self):
        self._link.say_status()
        self._restart(None)
