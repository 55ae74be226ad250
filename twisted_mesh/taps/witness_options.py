"""The options of ``mesh-witness``."""

import re
from pathlib import Path
from socket import gethostname
from typing import ClassVar

from pki.errors import Malformed, discreet
from pki.svid.spki_pin import SpkiHash
from pki.validity import parse_duration
from twisted_mesh.ct.log_file import LogFile, logs_key
from twisted_mesh.http.https_client import WebUrl
from twisted_mesh.taps.service_options import ServiceOptions

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}", re.ASCII)


class Options(ServiceOptions):
    """Options of ``twistd mesh-witness``."""

    program = "mesh-witness"
    synopsis = (
        "[options]\n\nExample: twistd -n mesh-witness --ct-logs logs.json --listen 8460\n"
        "         twistd -n mesh-ctlog --witness https://HOST:8460#KEY,sha256/PIN"
    )
    longdesc = (
        "Cosigns checkpoints of certificate transparency logs (C2SP tlog-witness): only what extends what it has seen. "
        "What contradicts that is kept as evidence, which anybody can verify."
    )
    optParameters: ClassVar = [
        ["listen", None, "8460", "where logs ask, over TLS 1.3 (host:port; loopback by default)"],
        [
            "ct-logs",
            None,
            None,
            "the logs that are cosigned: a list in a file, reread when it changes",
        ],
        [
            "ct-logs-key",
            None,
            None,
            "whose signature that list must have, in FILE.sig: a PEM file, or sha256/BASE64",
        ],
        [
            "name",
            None,
            None,
            "what the witness is called in its cosignatures (default HOST/mesh-witness)",
        ],
        ["interval", None, "60s", "how often other witnesses are asked (--compare)"],
        ["key-passphrase-file", None, None, "encrypt key files with the passphrase in this file"],
        ["key-passphrase-fd", None, None, "the same, from this file descriptor"],
        ["status", None, None, "health and metrics in plaintext at this address of this machine"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["compare"] = []
        self["dns"] = []

    def opt_compare(self, place: str) -> None:
        """another witness, https://HOST:PORT[#sha256/PIN], whose heads are compared with ours (repeatable)"""
        url, _, pin = place.partition("#")
        pins = (SpkiHash.parse(pin),) if pin else ()
        self["compare"].append((WebUrl.parse(url.rstrip("/"), "--compare"), pins))

    def postOptions(self) -> None:
        """Turn words into values. Raises :class:`PkiError` and :class:`usage.UsageError` in one sentence."""
        super().postOptions()
        if not self["ct-logs"]:
            raise Malformed(
                "--ct-logs FILE says which logs are cosigned: mesh-ctlog writes its entry for it"
            )
        path = Path(self["ct-logs"])
        key = logs_key(self["ct-logs-key"], path) if self["ct-logs-key"] else None
        self["ct-logs"] = LogFile(path, key)
        name = self["name"] or f"{gethostname()}/mesh-witness"
        if not _NAME.fullmatch(name):
            raise Malformed(
                f"--name {discreet(name, 80)!r} is none of a witness: a host, and perhaps a path, without spaces and +"
            )
        self["name"] = name
        self["interval"] = self._interval(self["interval"])
        passphrase, descriptor = self["key-passphrase-file"], self["key-passphrase-fd"]
        if passphrase is not None and descriptor is not None:
            raise Malformed(
                "--key-passphrase-file and --key-passphrase-fd say the same thing: give one of them"
            )
        self["key-passphrase-file"] = Path(passphrase) if passphrase is not None else None
        if descriptor is not None:
            if not (descriptor.isascii() and descriptor.isdigit() and len(descriptor) <= 5):
                raise Malformed("--key-passphrase-fd takes the number of an open file descriptor")
            self["key-passphrase-fd"] = int(descriptor)

    @staticmethod
    def _interval(text: str) -> float:
        seconds = parse_duration(text).total_seconds()
        if seconds < 1:
            raise Malformed("--interval is at least 1s")
        return seconds
