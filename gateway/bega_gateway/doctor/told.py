"""What a gateway that runs says of Home Assistant and of updates of its nodes. Pure: a status in."""

from __future__ import annotations

from collections.abc import Iterator

from bega_gateway.doctor.finding import WARNING, Finding
from bega_gateway.status import Status

YOUNG_S = 20.0  # a gateway that was just begun has had no time to connect
PLACE = "home_assistant"


def of_home_assistant(status: Status) -> Iterator[Finding]:
    """Yield why Home Assistant sees nothing, or will forget what it sees. No reading is lost over it."""
    told = status.home_assistant
    if told is None:
        return
    if told.connected_to is None and status.up_s > YOUNG_S:
        yield Finding(
            "home assistant not told",
            "the broker that Home Assistant listens to is not reached: it shows this gateway as unavailable",
            PLACE,
            f"{told.entities} entities wait to be told",
            "journalctl -u bega-gateway -n 50 | grep 'home assistant' says why; see home_assistant.broker, or uplink",
            False,
            WARNING,
        )
    if told.keeps is False:
        yield Finding(
            "retained messages not kept",
            "the broker does not keep what Home Assistant asks for when it starts: it forgets every device then",
            PLACE,
            f"a description that was just sent to {told.connected_to or 'it'} was not there to be read back",
            "use mosquitto; or let the gateway read homeassistant/device/<gateway>/# there: docs/home-assistant.md",
            False,
            WARNING,
        )


def of_updates(status: Status) -> Iterator[Finding]:
    """Yield which rollouts wait for somebody. No reading is lost: nodes that failed run what they ran before."""
    for update in status.updates:
        if update.is_stopped:
            counts = ", ".join(f"{count} {state}" for state, count in update.counts.items())
            yield Finding(
                "update stopped",
                f"the update {update.version} for {update.hardware} goes to no further node: {update.why}",
                "updates",
                f"of {update.nodes} nodes {counts}",
                "sudo bega update status names the nodes and why; then publish a higher version, or bega update resume",
                False,
                WARNING,
            )
