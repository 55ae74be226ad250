"""The options of ``mesh-ctlog``."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from pki.errors import Malformed, discreet
from twisted_mesh.ctlog.place import LogPlace
from twisted_mesh.ctlog.roots import RootFile
from twisted_mesh.ctlog.submitters import AcceptedCa
from twisted_mesh.ctlog.witness_address import WitnessAddress
from twisted_mesh.limits.rate_limit import Rate
from twisted_mesh.taps.service_options import ServiceOptions

DEFAULT_LISTEN = "127.0.0.1:6962"


class Options(ServiceOptions):
    """Options of ``twistd mesh-ctlog``."""

    program = "mesh-ctlog"
    synopsis = (
        "[options]\n\nExample: twistd -n mesh-ctlog --accept-ca spiffe://mesh.local/mesh/ca\n"
        "         twistd -n mesh-ctlog --listen 0.0.0.0:6962 --url https://log.example:6962/2026/ "
        "--accept-ca spiffe://mesh.local/mesh/ca=sha256/… --roots roots.pem"
    )
    longdesc = (
        "A log of the certificates that CAs issue: append-only, open to everybody who reads, and in another process "
        "than the CA, or on another team's machine. A CA gets a receipt (SCT) for each precertificate that it submits; "
        "endpoints with --require-sct believe no certificate without."
    )
    optParameters: ClassVar = [
        ["listen", None, DEFAULT_LISTEN, "where it is called, over TLS 1.3 with a key of its own"],
        [
            "url",
            None,
            None,
            "the log's URL for those who submit, and its name for life (default https://localhost:PORT/)",
        ],
        [
            "monitoring-url",
            None,
            None,
            "where another web server serves the log's directory public (default: --url)",
        ],
        [
            "store",
            None,
            "",
            "where record and tile files are kept: a directory, or sqlite:///FILE for the record alone (default: "
            "<state>/ctlog)",
        ],
        ["description", None, None, "what people call it, in lists of logs (default: its name)"],
        ["submission-rate", None, "1000:5000", "chains a second of one CA, and at once"],
        ["read-rate", None, "1000:5000", "requests a second of one address that reads"],
        ["key-passphrase-file", None, None, "encrypt key files with the passphrase in this file"],
        ["key-passphrase-fd", None, None, "the same, from this file descriptor"],
        ["status", None, None, "health and metrics in plaintext at this address of this machine"],
    ]
    optFlags: ClassVar = [
        ["read-only", None, "the log is retired: it is served, and takes nothing more"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["accept-ca"] = []
        self["roots"] = []
        self["dns"] = []
        self["witness"] = []

    def opt_accept_ca(self, text: str) -> None:
        """ID[=sha256/PIN]: a CA that may submit, by the key that it prints; without PIN one in the same state
        directory (repeatable)"""
        self["accept-ca"].append(AcceptedCa.parse(text))

    def opt_roots(self, text: str) -> None:
        """[TRUST-DOMAIN=]FILE: roots in PEM below which certificates are taken; read again when it changes
        (repeatable; default: those of the CA in the same state directory)"""
        self["roots"].append(RootFile.parse(text))

    def opt_witness(self, text: str) -> None:
        """https://HOST:PORT#KEY[,sha256/PIN]: a witness that is asked to cosign checkpoints, with the key that it
        prints, and the pin of its TLS (repeatable)"""
        self["witness"].append(WitnessAddress.parse(text))

    def postOptions(self) -> None:
        """Turn words into values. Raises :class:`PkiError` and :class:`usage.UsageError` in one sentence."""
        super().postOptions()
        for name in ("url", "monitoring-url"):
            if self[name] is not None:
                self[name] = _url(self[name], f"--{name}")
        place = LogPlace.parse(self["store"])
        self["store"] = place.at(lambda path: self._from_here(path, "--store"))
        self["submission-rate"] = Rate.parse(self["submission-rate"])
        self["read-rate"] = Rate.parse(self["read-rate"])
        self["roots"] = [
            RootFile(self._from_here(file.path, "--roots"), file.trust_domain)
            for file in self["roots"]
        ]
        path, descriptor = self["key-passphrase-file"], self["key-passphrase-fd"]
        if path is not None and descriptor is not None:
            raise Malformed(
                "--key-passphrase-file and --key-passphrase-fd say the same thing: give one of them"
            )
        self["key-passphrase-file"] = Path(path) if path is not None else None
        if descriptor is not None:
            if not (descriptor.isascii() and descriptor.isdigit() and len(descriptor) <= 5):
                raise Malformed("--key-passphrase-fd takes the number of an open file descriptor")
            self["key-passphrase-fd"] = int(descriptor)

    @property
    def accepted(self) -> Sequence[AcceptedCa]:
        """Who may submit."""
        found: Sequence[AcceptedCa] = self["accept-ca"]
        return found


def _url(text: str, option: str) -> str:
    """With a slash at its end. Raises :class:`Malformed`."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        url, port = urlsplit(""), None
    plain = text.isascii() and text.isprintable() and " " not in text and "+" not in text
    usable = url.hostname and port != 0 and not (url.query or url.fragment or "@" in url.netloc)
    if url.scheme != "https" or not usable or not plain or len(text) > 200:
        raise Malformed(
            f"{option} {discreet(text, 100)!r} is no URL of a log: write https://HOST[:PORT]/PATH/, and no more"
        )
    return f"{text.rstrip('/')}/"


def host_of(url: str) -> str:
    """The host of a URL that is one."""
    return urlsplit(url).hostname or ""


def prefix_of(url: str) -> str:
    """The path of a URL, with a slash at both ends."""
    return f"{urlsplit(url).path.rstrip('/')}/"
