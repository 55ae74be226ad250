"""Where a Workload API is (SPIFFE Workload Endpoint section 4): ``unix:///run/agent.sock``."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from attrs import frozen

from pki.errors import Malformed, discreet, printable
from twisted_mesh.runtime.socket_path import too_long

#: What names it where nobody says it.
VARIABLE = "SPIFFE_ENDPOINT_SOCKET"
_SCHEME = "workload:"


class BadWorkloadAddress(Malformed):
    """This is no address of a Workload API that we can use."""


@frozen
class WorkloadAddress:
    """A unix socket; ``str`` gives it as the specification writes it."""

    path: str

    @classmethod
    def of_source(cls, option: str, environ: Mapping[str, str] = os.environ) -> "WorkloadAddress":
        """``--source``: ``workload:ADDRESS``, or ``workload:`` for the one in the environment.

        Raises :class:`BadWorkloadAddress`.
        """
        if not option.startswith(_SCHEME):
            raise BadWorkloadAddress(
                f"--source {discreet(option, 100)!r} is not known: write workload:unix:///PATH, or workload: where "
                f"{VARIABLE} says the rest"
            )
        if text := option.removeprefix(_SCHEME):
            return cls.parse(text, "--source")
        if not (text := environ.get(VARIABLE, "")):
            raise BadWorkloadAddress(
                f"--source workload: takes the address from {VARIABLE}, which is not set: set it, or write "
                "workload:unix:///PATH"
            )
        return cls.parse(text, VARIABLE)

    @classmethod
    def parse(cls, text: str, what: str = "the address") -> "WorkloadAddress":
        """Raises :class:`BadWorkloadAddress`; ``what`` names where the text stands."""
        shown = f"{what} {discreet(text, 200)!r}"
        try:
            url = urlsplit(text)
        except ValueError:
            raise BadWorkloadAddress(f"{shown} is no address: write unix:///PATH") from None
        if url.scheme == "tcp":
            raise BadWorkloadAddress(
                f"{shown}: over TCP nothing says which process asks, so the Workload API is asked at a unix socket "
                "only: write unix:///PATH"
            )
        if url.scheme != "unix":
            raise BadWorkloadAddress(f"{shown} is no address of a Workload API: write unix:///PATH")
        if url.netloc or not url.path.startswith("/"):
            meant = f"unix:///{(url.netloc + url.path).lstrip('/')}"
            raise BadWorkloadAddress(
                f"{shown} is no whole path: three slashes, as in {printable(meant, 100)}"
            )
        if url.query or url.fragment or url.path == "/" or "?" in text or "#" in text:
            raise BadWorkloadAddress(f"{shown} is not a path and nothing else: write unix:///PATH")
        path = os.fsdecode(unquote_to_bytes(url.path))
        if "\0" in path or not text.isprintable():
            raise BadWorkloadAddress(f"{shown} has characters that no path has")
        if (objection := too_long(Path(path))) is not None:
            raise BadWorkloadAddress(
                f"{what}: {printable(objection, 400)}: name it by a shorter path, or a symbolic link"
            )
        return cls(path)

    def __str__(self) -> str:
        return f"unix://{self.path}"
