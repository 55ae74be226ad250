"""What is taken into the log: chains of certificates that a CA of ours has made, and that lead to a root we know."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki.ct.entry import LogEntry, SignedEntry, of_certificate, of_precertificate
from pki.ct.errors import NotAcceptedHere
from pki.errors import HOSTILE_INPUT, Malformed, Problem, printable
from pki.keys import is_strong
from pki.spiffe import SpiffeId
from pki.svid.certificate import issuer_problems
from pki.svid.path import issued_by
from pki.svid.x509svid import spiffe_id_of, subject_of

#: Certificates in a chain, and bytes in one of them, at most.
MOST_CERTIFICATES, LARGEST_CERTIFICATE = 8, 48 * 1024
#: Clocks differ by so much.
_SKEW = timedelta(minutes=5)
_POISON = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.3")
_SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")


@frozen(eq=False)
class Admitted:
    """A chain that was judged, and has no place yet."""

    signed: SignedEntry = field(repr=False)
    pre_certificate: bytes = field(repr=False)
    """As it came; empty for a certificate."""
    issuers: Mapping[bytes, bytes] = field(repr=False)
    """The chain above it up to the root, by fingerprint, in that order."""
    spiffe_id: SpiffeId
    not_after: int
    """Seconds since 1970."""
    digest: bytes = field(init=False, repr=False)
    """The same for the same entry, whenever and by whomever it is submitted."""

    @digest.default
    def _digest(self) -> bytes:
        return self.signed.digest

    def at(self, position: int, timestamp: int) -> LogEntry:
        """The entry that it becomes there and then; ``timestamp`` in milliseconds."""
        chain = tuple(self.issuers)
        return LogEntry(timestamp, self.signed, position, self.pre_certificate, chain)


def admit(
    ders: Sequence[bytes],
    *,
    is_precertificate: bool,
    submitter: SpiffeId,
    roots: Sequence[x509.Certificate],
    now: datetime,
) -> Admitted:
    """Judge a chain, leaf first, the root at its end or left out.

    Raises :class:`NotAcceptedHere`, which says the rule that is broken.
    """
    chain = [_certificate(der, at) for at, der in enumerate(_bounded(ders))]
    leaf = chain[0]
    spiffe_id = _demand_leaf(leaf, submitter, now, is_precertificate=is_precertificate)
    path = _path(chain, roots, now)
    try:
        signed = of_precertificate(leaf, path[1]) if is_precertificate else of_certificate(leaf)
    except Malformed as error:
        raise NotAcceptedHere(str(error)) from None
    return Admitted(
        signed,
        ders[0] if is_precertificate else b"",
        dict(map(_named, path[1:])),
        spiffe_id,
        int(leaf.not_valid_after_utc.timestamp()),
    )


def _bounded(ders: Sequence[bytes]) -> Sequence[bytes]:
    if not 2 <= len(ders) <= MOST_CERTIFICATES:
        raise NotAcceptedHere(
            f"a chain has its leaf, the CA that issued that, and what is above it: {len(ders)} certificates are none, "
            f"and {MOST_CERTIFICATES} the most"
        )
    if largest := next((len(der) for der in ders if len(der) > LARGEST_CERTIFICATE), 0):
        raise NotAcceptedHere(
            f"a certificate has {largest} bytes, and {LARGEST_CERTIFICATE} is the most here"
        )
    return ders


@lru_cache(maxsize=64)
def _ca(der: bytes) -> x509.Certificate:
    """The few that stand above all others."""
    return _decoded(der)


@lru_cache(maxsize=64)
def _named(issuer: x509.Certificate) -> tuple[bytes, bytes]:
    """Fingerprint and DER of one of these."""
    der = issuer.public_bytes(Encoding.DER)
    return sha256(der).digest(), der


def _decoded(der: bytes) -> x509.Certificate:
    found = x509.load_der_x509_certificate(der)
    if found.public_bytes(Encoding.DER) != der:
        raise ValueError("there is more than one way to write it")
    return found


def _certificate(der: bytes, at: int) -> x509.Certificate:
    try:
        return _ca(der) if at else _decoded(der)
    except HOSTILE_INPUT:
        raise NotAcceptedHere(
            f"certificate {at + 1} of the chain cannot be decoded: send the DER of each in base64, the leaf first"
        ) from None


def _demand_leaf(
    leaf: x509.Certificate, submitter: SpiffeId, now: datetime, *, is_precertificate: bool
) -> SpiffeId:
    try:
        found = {one.oid: one for one in leaf.extensions}
        spiffe_id = spiffe_id_of(leaf)
        constraints = found.get(x509.BasicConstraints.oid)
        is_ca = constraints is not None and constraints.value.ca
        begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    except HOSTILE_INPUT:
        raise NotAcceptedHere("the leaf's extensions cannot be decoded") from None
    poison = found.get(_POISON)
    if is_precertificate:
        if poison is None or not poison.critical:
            raise NotAcceptedHere(
                "the leaf has no poison (RFC 6962 section 3.1), so it is a certificate: submit it to add-chain"
            )
        if _SCT_LIST in found:
            raise NotAcceptedHere("a precertificate that has receipts already is none")
    elif poison is not None:
        raise NotAcceptedHere("the leaf is a precertificate: submit it to add-pre-chain")
    if is_ca:
        raise NotAcceptedHere("the leaf is a CA, and this log is of workloads' certificates")
    if spiffe_id is None:
        raise NotAcceptedHere("the leaf does not name exactly one SPIFFE ID with a path")
    if spiffe_id.trust_domain != submitter.trust_domain:
        raise NotAcceptedHere(
            f"{printable(str(spiffe_id), 300)} is not of the trust domain of {submitter}, who submits it"
        )
    if begins > now + _SKEW:
        raise NotAcceptedHere(
            f"the leaf is valid from {begins:%Y-%m-%d %H:%M:%SZ}, and here it is {now:%H:%M:%SZ}: compare the clocks"
        )
    if ends < now - _SKEW:
        raise NotAcceptedHere(
            f"the leaf was valid until {ends:%Y-%m-%d %H:%M:%SZ}, and here it is {now:%Y-%m-%d %H:%M:%SZ}"
        )
    return spiffe_id


def _path(
    chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now: datetime
) -> Sequence[x509.Certificate]:
    """From the leaf to a root of ours, every signature of it verified."""
    path = list(chain)
    if path[-1] not in roots:
        above = [root for root in roots if _is_known_link(path[-1], root)]
        if not above:
            raise NotAcceptedHere(
                f"{subject_of(path[-1])} is below none of the roots that this log knows: add its root to --roots, if "
                "that is yours"
            )
        path.append(above[0])
    if len(path) < 3:
        raise NotAcceptedHere(
            "the leaf was issued by a root itself: a certificate of the mesh has an issuing CA above it"
        )
    for at, (cert, issuer) in enumerate(pairwise(path)):
        known = _is_known_link if at else issued_by
        if not known(cert, issuer):
            raise NotAcceptedHere(
                f"{subject_of(issuer)} has not issued {subject_of(cert)}: send the chain in its order"
            )
        if at == 0 and not is_strong(cert):
            raise NotAcceptedHere("the leaf is signed over a hash that is not good enough")
        _demand_issuer(issuer, at, now)
    return path


@lru_cache(maxsize=64)
def _is_known_link(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    return issued_by(cert, issuer)


@lru_cache(maxsize=64)
def _ca_problems(issuer: x509.Certificate, cas_below: int) -> Sequence[Problem]:
    return issuer_problems(issuer, cas_below)


def _demand_issuer(issuer: x509.Certificate, cas_below: int, now: datetime) -> None:
    problems = _ca_problems(issuer, cas_below)
    if problems:
        raise NotAcceptedHere(f"{subject_of(issuer)} may not issue: {problems[0].detail}")
    if not issuer.not_valid_before_utc - _SKEW <= now <= issuer.not_valid_after_utc + _SKEW:
        raise NotAcceptedHere(
            f"{subject_of(issuer)} is valid from {issuer.not_valid_before_utc:%Y-%m-%d %H:%M:%SZ} until "
            f"{issuer.not_valid_after_utc:%Y-%m-%d %H:%M:%SZ}, and here it is {now:%Y-%m-%d %H:%M:%SZ}"
        )
