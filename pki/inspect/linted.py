"""Lints: a rule that a certificate, CSR or CRL keeps or breaks by itself or with its issuer, and when it is applied."""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Generic, TypeVar

from attrs import frozen
from cryptography import x509

from pki.codes import Code
from pki.errors import Problem
from pki.svid.x509svid import extension, subject_of

_T = TypeVar("_T")
_E = TypeVar("_E", bound=x509.ExtensionType)

ANEW = "have it issued anew, without that"


class LintProfile(StrEnum):
    """What a certificate is held to beside the rules for all."""

    SVID = "svid"
    """A workload's X.509-SVID, as the endpoints of a mesh take it."""
    CA = "ca"
    """A CA above such."""
    WEB = "web"
    """A server of the public web (CA/Browser Forum BR)."""
    ANY = "any"
    """RFC 5280 alone."""


class NotApplied(Exception):
    """A lint that cannot tell: why."""


@frozen
class Lint(Generic[_T]):
    """One rule."""

    name: str
    """Stable: it stands in JSON and in the reference."""
    profile: LintProfile
    """Whom it is applied to; ``any`` is everybody."""
    rule: str
    """Where it comes from, with its section."""
    look: Callable[[_T], Iterable[Problem]]
    """Every way in which it is broken. Raises :class:`NotApplied`, and what hostile DER makes cryptography raise."""


@frozen
class LintedCertificate:
    """A certificate, and its issuer's where that was given too."""

    cert: x509.Certificate
    issuer: x509.Certificate | None
    """Itself, where its own key has signed it."""
    is_self_issued: bool

    @property
    def subject(self) -> str:
        """For people."""
        return subject_of(self.cert)

    @property
    def is_ca(self) -> bool:
        """Whether it says that it is a CA. Raises as decoding does."""
        constraints = self.get(x509.BasicConstraints)
        return bool(constraints and constraints.ca)

    @property
    def critical(self) -> dict[x509.ObjectIdentifier, bool]:
        """Which extensions there are, and whether they are critical. Raises as decoding does."""
        return {found.oid: found.critical for found in self.cert.extensions}

    @property
    def known_issuer(self) -> x509.Certificate:
        """The issuer's certificate. Raises :class:`NotApplied` where there is none."""
        if self.issuer is None:
            raise NotApplied("its issuer's certificate is not among what was given")
        return self.issuer

    def get(self, kind: type[_E]) -> _E | None:
        """An extension's value; None where there is none. Raises as decoding does."""
        return extension(self.cert, kind)

    def broken(
        self,
        detail: str,
        section: str,
        remedy: str = ANEW,
        code: Code = Code.PROFILE_VIOLATION,
    ) -> Problem:
        """One finding. A section that begins with a digit is RFC 5280's."""
        rule = f"RFC 5280 section {section}" if section[:1].isdigit() else section
        return Problem(code, detail, remedy, rule, self.subject)


#: A lint of certificates.
CertificateLint = Lint[LintedCertificate]
