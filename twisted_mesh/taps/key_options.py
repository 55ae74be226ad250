"""Where a CA's keys are: the options that name stores, and what gets into them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pki.audit.log import LOG_ALGORITHM
from pki.errors import Malformed
from pki.keys import KeyAlgorithm
from twisted_mesh.interfaces import IReactor
from twisted_mesh.keystores.ground import StoreGround
from twisted_mesh.keystores.pins import Pins
from twisted_mesh.keystores.spec import KeySpec, parse_store
from twisted_mesh.keystores.stores import KeyStores, stores_of
from twisted_mesh.taps.service_options import ServiceOptions

#: Of a key in a store whose URI names no algorithm.
_DEFAULTS = {
    "root-key": KeyAlgorithm.EC_P384,
    "issuing-key": KeyAlgorithm.EC_P256,
    "audit-key": LOG_ALGORITHM,
}


class KeyOptions(ServiceOptions):
    """``--root-key``, ``--issuing-key``, ``--audit-key``, ``--key-store``, ``--token-pin-file``, ``--token-pin-fd``."""

    def __init__(self) -> None:
        super().__init__()
        self["key-store"] = []

    def opt_key_store(self, uri: str) -> None:
        """another place where keys of this CA still are: pkcs11:… or signer:… (repeatable)"""
        self["key-store"].append(parse_store(uri, "--key-store")[0])

    def understand_keys(self) -> None:
        """Turn words into :class:`KeySpec`; no store is opened. Raises :class:`Malformed`."""
        for name, default in _DEFAULTS.items():
            known = (LOG_ALGORITHM,) if name == "audit-key" else tuple(KeyAlgorithm)
            if self[name] is not None:
                self[name] = KeySpec.parse(self[name], f"--{name}", default, known)
        path, descriptor = self["token-pin-file"], self["token-pin-fd"]
        if path is not None and descriptor is not None:
            raise Malformed(
                "--token-pin-file and --token-pin-fd say the same thing: give one of them"
            )
        self["token-pin-file"] = Path(path) if path is not None else None
        if descriptor is not None:
            if not (descriptor.isascii() and descriptor.isdigit() and len(descriptor) <= 5):
                raise Malformed("--token-pin-fd takes the number of an open file descriptor")
            self["token-pin-fd"] = int(descriptor)

    def key_stores(
        self,
        reactor: IReactor,
        directory: Path,
        signed: Callable[[str, str, float], None],
    ) -> KeyStores:
        """The stores that the options name, none of them started. Raises :class:`pki.errors.PkiError`.

        A PIN in a descriptor is read now: after twistd's fork there is none any more.
        """
        specs = [spec for name in _DEFAULTS if (spec := self[name]) is not None]
        if not self["key-store"] and not any(spec.is_stored for spec in specs):
            return KeyStores()
        from twisted_mesh.custody import open_store

        pins = Pins(self["token-pin-file"], os.environ.get("CREDENTIALS_DIRECTORY"))
        pins.take(self["token-pin-fd"])
        ground = StoreGround(
            reactor, pins, directory, requires_pq=bool(self.get("require-pq", False))
        )
        return stores_of(specs, self["key-store"], lambda uri: open_store(uri, ground), signed)


def key_parameters() -> list[list[Any]]:
    """The rows of ``optParameters``."""
    return [
        [
            "root-key",
            None,
            "rsa-4096",
            f"the root's key: {', '.join(KeyAlgorithm)}; or where it is made, pkcs11:… or signer:…",
        ],
        ["issuing-key", None, "ec-p256", "the issuing CA's key, likewise"],
        [
            "audit-key",
            None,
            None,
            "where the key is made that signs the audit log: pkcs11:… or signer:… (default: in a file)",
        ],
        ["token-pin-file", None, None, "the PIN of the tokens whose URIs name no pin-source"],
        ["token-pin-fd", None, None, "the same, from this file descriptor"],
    ]
