"""Updates for tests: bundles of versions that work and of some that do not, and a gateway that hands one over."""

import hashlib
import json
import struct
import time
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from bega.update_bundle import pack
from bega_firmware import build as builder
from bega_firmware.board import read_board
from tests.node_park import NODE, Commander

BOARD = "esp32_devkitc"
DEVICES = ["pms5003", "sht4x"]
OLD, NEW = "0.1.0", "0.2.0"


@cache
def private_key(number: int = 0) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 3072)


def modulus(number: int = 0) -> bytes:
    return private_key(number).public_key().public_numbers().n.to_bytes(384, "big")


def signature(text: bytes, number: int = 0) -> bytes:
    return private_key(number).sign(text, padding.PKCS1v15(), hashes.SHA256())


class Bundle:
    """A manifest, its signature, and the payload. Each can be made wrong before it is signed."""

    def __init__(self, files: dict[str, bytes], key: int = 0, **wrong: Any) -> None:
        self.payload, unpacked = pack(files)
        facts = json.loads(files["facts.json"])
        manifest = {
            "hardware": facts["hardware"],
            "version": facts["version"],
            "from": OLD,
            "size": len(self.payload),
            "unpacked": unpacked,
            "sha256": hashlib.sha256(self.payload).hexdigest(),
            "expires": int(time.time()) + 86400,
            "key": hashlib.sha256(modulus(key)).hexdigest()[:16],
            "devices": facts["devices"],
            "ways": facts["ways"],
            "mpy": facts["mpy"],
            **wrong,
        }
        self.version = manifest["version"]
        self.text = json.dumps(manifest)
        self.signature = signature(self.text.encode(), key)

    def asked(self) -> dict[str, Any]:
        return {"manifest": self.text, "signature": b64encode(self.signature).decode()}


def files_of(version: str, *changes: tuple[str, str, str]) -> dict[str, bytes]:
    """Return the slot of a version in whose sources (path, text) is replaced by another text."""
    real = builder.lean

    def lean(texts: dict[str, str], *more: Any) -> Any:
        for path, text, instead in changes:
            assert text in texts[path], (path, text)
            texts[path] = texts[path].replace(text, instead)
        return real(texts, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "lean", lean)
        built = builder.build(read_board(BOARD), DEVICES, ["broker"], version=version, keys=modulus())
    return builder.slot_files(built)


class Updater(Commander):
    """A gateway that hands a bundle over as it is asked to."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.bundle: Bundle | None = None
        self.wants: list[int] = []
        self.before_piece: Callable[[int], bool] = lambda at: True  # False: it is lost
        self._client.message_callback_add(f"node/{NODE}/want", self._take_want)
        while not self._client.is_connected():  # asked for earlier, nothing is subscribed to
            time.sleep(0.01)
        self._client.subscribe([(f"node/{NODE}/result", 1), (f"node/{NODE}/want", 1)])

    def update(self, id_: str, bundle: Bundle) -> None:
        self.bundle = bundle
        self.command("update", id_, **bundle.asked())

    def state(self) -> str | None:
        told = self.statuses and self.statuses[-1].get("update")
        return told["state"] if told else None

    def _take_want(self, client: object, userdata: object, message: Any) -> None:
        want = json.loads(message.payload)
        bundle = self.bundle
        if bundle is None:
            return
        self.wants.append(want["at"])
        if self.before_piece(want["at"]):
            octets = bundle.payload[want["at"] : want["at"] + want["most"]]
            self.publish("piece", bytes.fromhex(want["sha256"]) + struct.pack(">I", want["at"]) + octets)
