"""A site for a table on which none was made: its authority is good on this machine alone, and reports say so."""

from __future__ import annotations

import fcntl
from pathlib import Path

from bega.clock import Clock, wall_ms
from bega_firmware.authority import make_issuing, make_root
from bega_firmware.ca_folder import ROOT_CERTIFICATE, create
from bega_firmware.data_folder import data_folder
from bega_firmware.site import Beacon, Broker, Site, Uplink, Wifi, read_site, save_site, save_wifi_key, site_path

NAME = "bench"
AUTHORITY = "bench-ca"
SAYS = (
    "There is no site {asked} on this machine: a bench site was used. The node works on this table alone. Before it "
    "hangs anywhere: `bega site new`, `bega node wipe`, and setup again."
)


def bench_site(clock: Clock = wall_ms) -> Site:
    """Return the bench's own site, made at the first call. Raises ConfigError."""
    path = site_path(NAME)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f"{NAME}.lock").open("w") as lock:  # ten setups begin at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _make(path, data_folder() / AUTHORITY, clock())
    return read_site(NAME)


def _make(path: Path, authority: Path, now_ms: int) -> None:
    if not (authority / ROOT_CERTIFICATE).exists():
        root = make_root("Bench", now_ms)
        create(authority, root, make_issuing("Bench", 1, root, now_ms), None)
    site = Site(
        name=NAME,
        path=path,
        city=NAME,
        gateway=f"gw-{NAME}",
        brokers=(Broker(host="127.0.0.1"),),
        wifi=Wifi(ssid=NAME),
        uplink=Uplink(),
        beacon=Beacon(),
        ca=authority,
    )
    save_wifi_key(site, "")  # an open network: whoever has a real one makes a site
    save_site(site)
