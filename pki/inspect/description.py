"""What there is to say of one certificate, CSR, CRL or OCSP response, as data."""

from datetime import datetime, timedelta

from attrs import frozen

from pki.inspect.extensions import Extension
from pki.inspect.public_key import PublicKeyFacts
from pki.validity import Validity

Fact = tuple[str, tuple[str, ...]]
Facts = tuple[Fact, ...]


@frozen
class ReceiptFacts:
    """A receipt (SCT) inside a certificate, held against a list of logs."""

    log: str
    """What the list calls it; empty for a log that is not in it."""
    log_id: str
    """In hex."""
    at: datetime
    index: int | None
    """Where its entry is; None for a log that does not say."""
    counts: bool | None
    """Whether it is good, and of a log that counts; None where it was not verified."""
    why: str
    """Why it does not count, or was not verified; else empty."""


@frozen
class Description:
    """One certificate, CSR or other thing. What does not apply, and what could not be read, is None or empty."""

    what: str
    """``root CA``, ``issuing CA``, ``X.509-SVID``, ``certificate`` or ``CSR``; for what is not shown, its name."""
    subject: str = ""
    issuer: str | None = None
    version: int | None = None
    serial: int | None = None
    signature_algorithm: str = ""
    signed_by_itself: bool | None = None
    """Of a CSR: whether its proof of possession holds. Of a self-issued certificate: whether its own key signed it."""
    not_checked: str = ""
    """Why :attr:`signed_by_itself` is None, where it was not checked."""
    not_before: datetime | None = None
    not_after: datetime | None = None
    time_left: timedelta | None = None
    """Until it ends; negative once it has."""
    until_valid: timedelta | None = None
    """Until it begins, where that is still to come."""
    public_key: PublicKeyFacts | None = None
    is_ca: bool | None = False
    """None: that cannot be read."""
    is_self_issued: bool = False
    spiffe_ids: tuple[str, ...] | None = ()
    """None: they cannot be read."""
    extensions: tuple[Extension, ...] = ()
    """Of a CSR: those that it asks for."""
    attributes: tuple[str, ...] = ()
    """Of a CSR: everything else that it carries, by name or OID."""
    sha256: str = ""
    sha1: str = ""
    remarks: tuple[str, ...] = ()
    """What is odd about its form: a part that cannot be decoded, an extension that appears twice."""
    unreadable: tuple[str, ...] = ()
    """Those remarks that are about what cannot be read, and is therefore not shown."""
    receipts: tuple[ReceiptFacts, ...] = ()
    """Those inside a certificate, where a list of logs was given to verify them by."""
    facts: Facts = ()
    """All there is to say of a CRL or an OCSP response but its extensions; of nothing else."""

    @property
    def is_shown(self) -> bool:
        """Whether it is of a kind that is described at all, and was read: a private key never is."""
        return self.public_key is not None or bool(self.facts)

    @property
    def validity(self) -> Validity | None:
        """From when to when it holds, where both can be read."""
        if self.not_before is None or self.not_after is None:
            return None
        return Validity(self.not_before, self.not_after)
