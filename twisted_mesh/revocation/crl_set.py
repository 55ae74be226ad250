"""The CRLs that stand beside an identity: one of each CA of its trust domain, for whoever checks whole chains.

OpenSSL with ``CRL_CHECK_ALL``, as nginx and HAProxy use it, refuses everybody where one is missing or stale.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from attrs import frozen
from cryptography import x509

from pki.codes import Code
from pki.crl.crl import Crl, read_crl
from pki.errors import HOSTILE_INPUT, Problem, Refused
from pki.keys import key_id
from pki.svid.bundle import TrustBundle
from pki.svid.path import issued_by
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import X509Svid, load_certificates, subject_of, validity_of
from twisted_mesh.api.messages import PublishedCrls

_LINE = 64
_NEVER = datetime.max.replace(tzinfo=UTC, microsecond=0)


class CrlMissing(Refused):
    """A CA of our own chain has no CRL: whoever checks the chain would refuse everybody."""

    code = Code.FILES_BEHIND


@frozen(eq=False, repr=False)
class IssuerList:
    """The CRL of one CA."""

    issuer: x509.Certificate
    crl: Crl
    der: bytes


@frozen(eq=False, repr=False)
class CrlSet:
    """The CRLs of one trust domain, of one moment."""

    lists: tuple[IssuerList, ...]

    @property
    def next_update(self) -> datetime:
        """When the first of them ends; never, where there is none."""
        return min((one.crl.next_update for one in self.lists), default=_NEVER)

    def to_pem(self) -> bytes:
        """All of them, one after the other."""
        return b"".join(_pem(one.der) for one in self.lists)

    def lacks(self, revocations: RevocationSet, now: datetime) -> bool:
        """Whether something is known to be revoked that is not on the list of its issuer yet."""
        return any(
            one.crl.find(revocation.serial) is None and revocation.expires_at > now
            for one in self.lists
            for revocation in revocations.of(one.crl.issuer)
        )

    def misses(self, issuers: Iterable[x509.Certificate]) -> bool:
        """Whether there is no list of one of these yet: a CA that was just made has its first one in a moment."""
        listed = {one.crl.issuer for one in self.lists}
        return any(key_id(issuer.public_key()) not in listed for issuer in issuers)


def read_crls(
    answer: PublishedCrls,
    bundle: TrustBundle,
    svid: X509Svid,
    now: datetime,
    earlier: CrlSet | None = None,
) -> CrlSet:
    """What a CA answers, checked: each signed by a CA of ``bundle``'s, of now, and not older than in ``earlier``.

    CAs that have ended, or are of other roots, are passed over. Raises :class:`PkiError`, also where there is
    none of a CA in ``svid``'s chain.
    """
    seen = {one.crl.issuer: one.crl.number for one in earlier.lists} if earlier else {}
    lists = []
    for row in answer.crls:
        issuer = load_certificates(row.issuer.encode(), "the CA's answer")[0]
        if _is_ours(issuer, bundle, now):
            number = seen.get(key_id(issuer.public_key()))
            crl = read_crl(row.crl, issuer, now=now, seen=number)
            lists.append(IssuerList(issuer, crl, row.crl))
    problems = list(_missing(svid, bundle, {one.crl.issuer for one in lists}))
    if problems:
        raise CrlMissing(problems)
    return CrlSet(tuple(lists))


def _is_ours(issuer: x509.Certificate, bundle: TrustBundle, now: datetime) -> bool:
    try:
        if issuer in bundle.roots:
            return True
        return validity_of(issuer).contains(now) and any(
            issued_by(issuer, root) for root in bundle.roots
        )
    except HOSTILE_INPUT:
        return False


def _missing(svid: X509Svid, bundle: TrustBundle, there: set[str]) -> Iterator[Problem]:
    for issuer in _above(svid.intermediates, bundle):
        if key_id(issuer.public_key()) not in there:
            yield Problem(
                Code.FILES_BEHIND,
                f"the CA has no CRL of {subject_of(issuer)} now, without which others would refuse everybody",
                "its log and /readyz say why; the root's is made while the root's key is there",
                subject=subject_of(issuer),
            )


def _above(
    intermediates: Sequence[x509.Certificate], bundle: TrustBundle
) -> Iterator[x509.Certificate]:
    yield from intermediates
    top = intermediates[-1] if intermediates else None
    for root in bundle.roots:
        if top is None or issued_by(top, root):
            yield root


def _pem(der: bytes) -> bytes:
    text = b64encode(der)
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    return b"\n".join((b"-----BEGIN X509 CRL-----", *lines, b"-----END X509 CRL-----", b""))
