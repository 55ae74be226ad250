"""What a root that is offline has done, by its own audit log: the log is its whole record.

Each function that ends in ``_entry`` writes what :class:`RootActs` reads back.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime

from attrs import define, field, frozen
from cryptography import x509

from pki.audit.log import Act, BadEntry, Entry
from pki.errors import PkiError
from pki.issuing.ca_request import CaRequest
from pki.issuing.draft import Draft
from pki.serial import parse_serial, serial_hex
from pki.svid.revocation_set import Reason, Revocation
from pki.validity import parse_rfc3339, rfc3339


@frozen
class Certified:
    """A certificate of an issuing CA that the root has signed, or has begun to sign."""

    serial: int
    key_id: str
    """Of the issuing CA's key."""
    csr: str
    """The fingerprint of the CSR that it was made of."""
    issued_at: datetime
    expires_at: datetime


@define(eq=False, repr=False)
class RootActs:
    """Takes the log's entries in their order, and says what stands now."""

    root: str
    """The root's key id."""
    certified: dict[int, Certified] = field(factory=dict, init=False)
    revoked: dict[int, Revocation] = field(factory=dict, init=False)
    written_off: set[int] = field(factory=set, init=False)
    """Of the revoked, those whose signature was never kept: nobody can have them."""
    crl_number: int = field(default=0, init=False)
    """The highest that was used."""

    @classmethod
    def of(cls, root: str, entries: Iterable[Entry]) -> "RootActs":
        """What stands after all of them. Raises :class:`BadEntry`."""
        acts = cls(root)
        for entry in entries:
            acts.take(entry)
        return acts

    def take(self, entry: Entry) -> None:
        """One entry. Raises :class:`BadEntry` for one that this root cannot have written."""
        facts = entry.facts
        try:
            match entry.act:
                case Act.ISSUE:
                    serial = parse_serial(entry.object)
                    ends = parse_rfc3339(facts["expires_at"])
                    self.certified[serial] = Certified(
                        serial, facts["issuing"], facts["csr"], entry.at, ends
                    )
                case Act.REVOKE | Act.WRITE_OFF:
                    serial = parse_serial(entry.object)
                    at = parse_rfc3339(facts["revoked_at"])
                    ends = parse_rfc3339(facts["expires_at"])
                    told = Revocation(self.root, serial, at, Reason(facts["reason"]), ends)
                    self.revoked.setdefault(serial, told)
                    if entry.act is Act.WRITE_OFF:
                        self.written_off.add(serial)
                case Act.ADMINISTER if facts.get("step") == "root-crl-signed":
                    self.crl_number = max(self.crl_number, int(facts["number"]))
        except (KeyError, ValueError, PkiError):
            raise BadEntry(
                f"the entry of {rfc3339(entry.at)} is not one of an offline root's log"
            ) from None

    def of_key(self, key_id: str) -> Iterator[Certified]:
        """The certificates of one issuing CA that are not revoked, whether or not they have ended."""
        for certified in self.certified.values():
            if certified.key_id == key_id and certified.serial not in self.revoked:
                yield certified

    def was_revoked(self, key_id: str) -> bool:
        """Whether a certificate of that issuing CA was revoked, which somebody may have had."""
        return any(
            known.key_id == key_id and known.serial in self.revoked.keys() - self.written_off
            for known in self.certified.values()
        )


def issue_entry(at: datetime, actor: str, request: CaRequest, draft: Draft, root: str) -> Entry:
    """That a certificate is about to be signed."""
    facts = {
        "issuing": request.key_id,
        "csr": request.fingerprint,
        "subject": draft.subject,
        "issuer": root,
        "expires_at": rfc3339(draft.not_after),
    }
    return Entry(at, Act.ISSUE, actor, serial_hex(draft.serial), facts)


def revoke_entry(
    at: datetime, actor: str, revocation: Revocation, *, unfinished: bool = False
) -> Entry:
    """That one is revoked; ``unfinished``: because its signature was never kept."""
    facts = {
        "reason": str(revocation.reason),
        "revoked_at": rfc3339(revocation.revoked_at),
        "expires_at": rfc3339(revocation.expires_at),
    }
    act = Act.WRITE_OFF if unfinished else Act.REVOKE
    return Entry(at, act, actor, serial_hex(revocation.serial), facts)


def crl_entry(
    at: datetime, actor: str, root: str, number: int, *, next_update: datetime, entries: int
) -> Entry:
    """That a CRL of that number is about to be signed."""
    facts = {
        "step": "root-crl-signed",
        "number": str(number),
        "next_update": rfc3339(next_update),
        "entries": str(entries),
    }
    return Entry(at, Act.ADMINISTER, actor, root, facts)


def begin_entry(
    at: datetime,
    actor: str,
    root: str,
    certificate: x509.Certificate,
    *,
    step: str,
    fingerprint: str,
) -> Entry:
    """That the root was made here, or was brought here from the CA that had it."""
    facts = {
        "step": step,
        "fingerprint": fingerprint,
        "subject": certificate.subject.rfc4514_string(),
        "expires_at": rfc3339(certificate.not_valid_after_utc),
    }
    return Entry(at, Act.ADMINISTER, actor, root, facts)
