"""Log events: one name per subsystem, facts as fields, and a code that stays the same.

An event is ``log.info("constant text {fact}", event="certificate-issued", fact=…)``. The text is for
people, ``event`` and the fields are for programs; :mod:`twisted_mesh.observe` writes both and counts.
Later lines of a text are indented facts. Keys, tokens and request bodies are never fields.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from time import time
from typing import Any

from attrs import frozen
from cryptography import x509
from twisted.logger import Logger, LogLevel

from pki.errors import Problem, printable
from pki.serial import serial_pairs
from pki.svid.x509svid import subject_of

NAMESPACE = "mesh"


class _Logger(Logger):
    """Emits without asking first whether the level is one: Twisted's sorts all levels for that, each time."""

    def emit(self, level: Any, format: str | None = None, **facts: object) -> None:
        self._tell(level, format, facts)

    def info(self, format: str | None = None, **facts: object) -> None:
        self._tell(LogLevel.info, format, facts)

    def _tell(self, level: Any, text: str | None, event: dict[str, object]) -> None:
        event["log_logger"] = self
        event["log_level"] = level
        event["log_namespace"] = self.namespace
        event["log_source"] = self.source
        event["log_format"] = text
        event["log_time"] = time()
        self.observer(event)


def logger(subsystem: str) -> Logger:
    """``ca``, ``server``, ``client``, ``tls``: what people see as ``[CA]``."""
    return _Logger(namespace=f"{NAMESPACE}.{subsystem}")


@frozen
class TlsFacts:
    """What is known of an established connection; every value is ready to be shown."""

    version: str
    cipher: str
    group: str
    sni: str
    alpn: str
    chain: tuple[str, ...]
    serials: tuple[str, ...]

    @cached_property
    def fields(self) -> Mapping[str, object]:
        """What an event tells of a peer, made once for all connections that have come to the same."""
        return {
            "subject": self.chain[0],
            "issuer": self.chain[1],
            "serial": self.serials[0],
            "version": self.version,
            "cipher": self.cipher,
            "group": self.group,
            "sni": self.sni or "none",
            "alpn": self.alpn or "none",
            "chain": [*self.chain],
            "serials": [*self.serials],
        }

    @staticmethod
    def chain_of(path: tuple[x509.Certificate, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Subjects and serials."""
        return (
            tuple(subject_of(cert) for cert in path),
            tuple(serial_pairs(cert.serial_number) for cert in path),
        )


def codes(problems: Sequence[Problem]) -> str:
    """The codes of a refusal, the first first, each once."""
    return ", ".join(dict.fromkeys(problem.code for problem in problems))


def reasons(problems: Sequence[Problem]) -> str:
    """A refusal as one line: every code with its detail and remedy."""
    return printable("; ".join(str(problem) for problem in problems), 2000)
