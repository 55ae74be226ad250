"""Whether a certificate is valid for a mail address (RFC 5280 section 4.2.1.6)."""

import re

from attrs import frozen
from cryptography import x509

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Malformed, Problem, discreet, printable
from pki.svid.x509svid import extension, subject_of

_MAILBOX = re.compile(r"([^@\s<>]{1,64})@([^@\s<>]{1,253})", re.ASCII)
_SHOWN = 10


@frozen
class MailAddress:
    """A mailbox. ``MailAddress.parse(str(x)) == x``; the host counts in either case, what stands before it as it is."""

    local: str
    host: str

    @classmethod
    def parse(cls, text: str) -> "MailAddress":
        """``name@host``. Raises :class:`Malformed`."""
        match = _MAILBOX.fullmatch(text)
        if match is None or not text.isascii():
            raise Malformed(
                f"{discreet(text, 120)!r} is no mail address: write it like somebody@example.org, "
                "a host of other letters as xn--…"
            )
        return cls(match[1], match[2].lower())

    def __str__(self) -> str:
        return f"{self.local}@{self.host}"


def mail_problem(cert: x509.Certificate, address: str) -> Problem | None:
    """Why ``cert`` is not valid for a mail address; None if it is. Never raises."""
    try:
        names = extension(cert, x509.SubjectAlternativeName)
    except HOSTILE_INPUT:
        return _mismatch(
            cert,
            f"the names in the certificate cannot be decoded: {printable(address, 120)} may be one",
        )
    held = names.get_values_for_type(x509.RFC822Name) if names else []
    try:
        wanted = MailAddress.parse(address)
    except Malformed as error:
        return _mismatch(cert, str(error))
    if any(_is(name, wanted) for name in held):
        return None
    shown = ", ".join(printable(name, 120) for name in held[:_SHOWN]) or "no mail address"
    if len(held) > _SHOWN:
        shown += f" and {len(held) - _SHOWN} more"
    return _mismatch(cert, f"certificate is valid for {shown}, not {wanted}")


def _is(name: str, wanted: MailAddress) -> bool:
    try:
        return MailAddress.parse(name) == wanted
    except Malformed:
        return False


def _mismatch(cert: x509.Certificate, detail: str) -> Problem:
    return Problem(
        Code.NAME_MISMATCH,
        detail,
        "ask for an address that its certificate carries, or have one issued with it",
        "RFC 5280 section 4.2.1.6",
        subject_of(cert),
    )
