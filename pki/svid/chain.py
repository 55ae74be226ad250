"""The verdict on a presented chain: built within the leaf's own trust domain, every reason at once.

OpenSSL keeps one pool of roots for all trust domains, so any of them could mint the others' names;
here the leaf's SPIFFE ID chooses the one bundle that may vouch for it (X509-SVID section 5,
path validation by RFC 5280 section 6).
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Problem
from pki.keys import is_broken, key_id, weaknesses
from pki.spiffe import SpiffeId
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import (
    Purpose,
    extension,
    issuer_of,
    leaf_problems,
    spiffe_id_of,
    subject_of,
    validity_of,
)
from pki.validity import rfc3339, spoken_duration

_MAX_PRESENTED = 10
_MAX_DEPTH = 6
_MAX_SIGNATURES = 32

_UNDERSTOOD = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
}

_PEER_EKUS = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
_ANY_EKU = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE

Path = tuple[x509.Certificate, ...]


@frozen
class Verdict:
    """What was decided about a peer."""

    spiffe_id: SpiffeId | None
    """The name that the leaf claims; believe it only if :attr:`ok`."""
    path: Path
    """Leaf first. It ends in a root of the trust domain, unless a problem says that it does not."""
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether the peer is who it claims to be."""
        return not self.problems and self.spiffe_id is not None

    def holds_at(self, now: datetime) -> bool:
        """Whether the verdict, once good, is still good as far as the clock is concerned."""
        return all(validity_of(cert).contains(now) for cert in self.path)


def judge(
    presented: Sequence[x509.Certificate],
    bundles: BundleSet,
    revocations: RevocationSet,
    *,
    now: datetime,
    purpose: Purpose,
    known_issuers: Collection[bytes] = (),
) -> Verdict:
    """Judge a chain, leaf first, as it came over the wire.

    ``known_issuers`` are subject key identifiers of CAs that are known to be ours: they tell a peer
    that forgot its intermediates (``incomplete-chain``) from one of another CA. Never raises.
    """
    if not presented:
        return Verdict(None, (), (_no_certificate(),))
    if len(presented) > _MAX_PRESENTED:
        detail = f"{len(presented)} certificates were presented, {_MAX_PRESENTED} is the most"
        return Verdict(None, (), (Problem(Code.MALFORMED, detail, "present the chain only"),))
    leaf = presented[0]
    problems = leaf_problems(leaf, purpose)
    spiffe_id = spiffe_id_of(leaf)
    if spiffe_id is None:
        path: Path = (leaf,)
    elif (bundle := bundles.get(spiffe_id.trust_domain)) is None:
        path = (leaf,)
        problems.append(_unknown_trust_domain(leaf, spiffe_id, bundles))
    else:
        path, unanchored = _best_path(presented, bundle, now, known_issuers)
        problems += unanchored
    for position, cert in enumerate(path):
        issuer = path[position + 1] if position + 1 < len(path) else None
        problems += certificate_problems(cert, now)
        problems += _revoked(cert, issuer, revocations)
        if position:
            problems += _issuer_problems(cert, position - 1)
    return Verdict(spiffe_id, path, tuple(dict.fromkeys(problems)))


def certificate_problems(cert: x509.Certificate, now: datetime) -> list[Problem]:
    """What is wrong with one certificate by itself: its dates, its key, its signature's hash, its extensions."""
    problems = list(_dates(cert, now))
    try:
        problems += weaknesses(cert.public_key())
        if is_broken(cert):
            problems.append(
                Problem(
                    Code.WEAK_SIGNATURE,
                    "it is signed with SHA-1 or MD5",
                    "issue it anew",
                    "RFC 9155",
                    subject_of(cert),
                )
            )
        for found in cert.extensions:
            if found.critical and found.oid not in _UNDERSTOOD:
                problems.append(
                    Problem(
                        Code.UNKNOWN_EXTENSION,
                        f"critical extension {found.oid.dotted_string} is not understood here",
                        "issue it without, or not critical",
                        "RFC 5280 section 4.2",
                        subject_of(cert),
                    )
                )
    except HOSTILE_INPUT:
        problems.append(
            Problem(
                Code.MALFORMED,
                "its key or extensions cannot be decoded",
                "issue it anew",
                "RFC 5280",
                subject_of(cert),
            )
        )
    return problems


def issued_by(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether ``issuer``'s name and key made ``cert``."""
    if not _names_match(cert, issuer):
        return False
    try:
        cert.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    except HOSTILE_INPUT:
        return False
    return True


def _names_match(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        return cert.issuer == issuer.subject
    except HOSTILE_INPUT:
        return False


def _no_certificate() -> Problem:
    return Problem(
        Code.NO_CERTIFICATE,
        "the peer presented no certificate",
        "present an SVID of this mesh: curl takes --cert and --key",
        "TLS 1.3, RFC 8446 section 4.4.2",
        "peer",
    )


def _unknown_trust_domain(
    leaf: x509.Certificate, spiffe_id: SpiffeId, bundles: BundleSet
) -> Problem:
    known = ", ".join(str(bundle.trust_domain) for bundle in bundles) or "none"
    return Problem(
        Code.UNKNOWN_TRUST_DOMAIN,
        f"no bundle is held for {spiffe_id.trust_domain} (held: {known})",
        "present an SVID of a trust domain that is held here, or federate with it",
        "X509-SVID section 5",
        subject_of(leaf),
    )


def _best_path(
    presented: Sequence[x509.Certificate],
    bundle: TrustBundle,
    now: datetime,
    known_issuers: Collection[bytes],
) -> tuple[Path, list[Problem]]:
    """A path to a root with no fault if there is one, else the least faulty, else as far as it goes."""
    paths = list(_paths(presented, bundle))
    if not paths:
        return _unanchored(presented, bundle, known_issuers)

    if len(paths) == 1:
        return paths[0], []

    def faults(path: Path) -> int:
        return sum(
            len(certificate_problems(cert, now)) + len(_issuer_problems(cert, depth))
            for depth, cert in enumerate(path[1:])
        )

    return min(paths, key=faults), []


def _paths(presented: Sequence[x509.Certificate], bundle: TrustBundle) -> Iterator[Path]:
    """Every path from the leaf to a root, depth first, within a budget of signature checks."""
    budget = _MAX_SIGNATURES
    # The root may be among what was presented, and is no other candidate then.
    candidates = (*bundle.roots, *(cert for cert in presented[1:] if cert not in bundle.roots))
    stack: list[Path] = [(presented[0],)]
    while stack:
        path = stack.pop()
        for candidate in candidates:
            if candidate in path or not _names_match(path[-1], candidate):
                continue
            budget -= 1
            if budget < 0:
                return
            if not issued_by(path[-1], candidate):
                continue
            if candidate in bundle.roots:
                yield (*path, candidate)
            elif len(path) < _MAX_DEPTH:
                stack.append((*path, candidate))


def _unanchored(
    presented: Sequence[x509.Certificate], bundle: TrustBundle, known_issuers: Collection[bytes]
) -> tuple[Path, list[Problem]]:
    path: Path = (presented[0],)
    while len(path) < _MAX_DEPTH:
        issuer = next((c for c in presented[1:] if c not in path and issued_by(path[-1], c)), None)
        if issuer is None:
            break
        path = (*path, issuer)
    last = path[-1]
    if len(path) == 1 and _is_ours(last, bundle, known_issuers):
        return path, [
            Problem(
                Code.INCOMPLETE_CHAIN,
                f"the peer did not present its issuer {issuer_of(last)}",
                "send the intermediates along: curl takes them in the --cert file, openssl s_client with -cert_chain",
                "RFC 8446 section 4.4.2",
                subject_of(last),
            )
        ]
    return path, [
        Problem(
            Code.UNKNOWN_AUTHORITY,
            f"the certificate is signed by an unknown authority, {issuer_of(last) or 'without a name'}: "
            f"it does not lead to a root of {bundle.trust_domain}",
            "request an SVID from this mesh's CA, or refresh the trust bundle",
            "RFC 5280 section 6.1",
            subject_of(last),
        )
    ]


def _is_ours(leaf: x509.Certificate, bundle: TrustBundle, known_issuers: Collection[bytes]) -> bool:
    """Whether a leaf without its issuer looks like one of this trust domain's. Only words depend on it."""
    try:
        if known_issuers:
            identifier = extension(leaf, x509.AuthorityKeyIdentifier)
            return identifier is not None and identifier.key_identifier in known_issuers
        organization = leaf.issuer.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
        return bool(organization) and any(
            root.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME) == organization
            and root.subject != leaf.issuer
            for root in bundle.roots
        )
    except HOSTILE_INPUT:
        return False


def _dates(cert: x509.Certificate, now: datetime) -> Iterator[Problem]:
    validity = validity_of(cert)
    rule = "RFC 5280 section 4.1.2.5"
    if now > validity.not_after:
        yield Problem(
            Code.EXPIRED,
            f"the certificate expired at {rfc3339(validity.not_after)}, {spoken_duration(now - validity.not_after)} "
            f"ago; here it is {rfc3339(now)}",
            "renew it; if it is fresh, compare the two machines' clocks",
            rule,
            subject_of(cert),
        )
    if now < validity.not_before:
        yield Problem(
            Code.NOT_YET_VALID,
            f"the certificate is valid from {rfc3339(validity.not_before)}, and here it is {rfc3339(now)}",
            "compare the two machines' clocks",
            rule,
            subject_of(cert),
        )


def _revoked(
    cert: x509.Certificate, issuer: x509.Certificate | None, revocations: RevocationSet
) -> Iterator[Problem]:
    if issuer is None or not len(revocations):
        return
    found = revocations.find(_key_id_of(issuer), cert.serial_number)
    if found:
        yield found.problem(subject_of(cert))


#: Keys of issuers and their key ids, by the signature on the issuer's certificate.
_key_ids: dict[bytes, tuple[object, str]] = {}
_MOST_KEY_IDS = 64


def _key_id_of(issuer: x509.Certificate) -> str:
    """The issuer's :func:`pki.keys.key_id`, remembered: to encode and hash a key costs more than the look-up.

    A signature is quick to look up by, and proves nothing: anybody can write the signature of one
    certificate into another. So a key id is taken from memory only where the key is the same too.
    """
    key = issuer.public_key()
    known = _key_ids.get(issuer.signature)
    if known is not None and known[0] == key:
        return known[1]
    if len(_key_ids) >= _MOST_KEY_IDS:
        _key_ids.clear()
    made = key_id(key)
    _key_ids[issuer.signature] = key, made
    return made


def _issuer_problems(cert: x509.Certificate, cas_below: int) -> list[Problem]:
    """Whether ``cert`` may issue, with so many CAs between it and the leaf (RFC 5280 section 6.1.4)."""

    def problem(code: Code, detail: str, section: str) -> Problem:
        return Problem(
            code,
            detail,
            "have the chain issued by a CA of the mesh",
            f"RFC 5280 section {section}",
            subject_of(cert),
        )

    try:
        constraints = extension(cert, x509.BasicConstraints)
        usage = extension(cert, x509.KeyUsage)
        extended = extension(cert, x509.ExtendedKeyUsage)
    except HOSTILE_INPUT:
        return [problem(Code.MALFORMED, "its extensions cannot be decoded", "4.2")]
    problems = []
    if constraints is None or not constraints.ca:
        problems.append(problem(Code.NOT_A_CA, "it issued a certificate and is no CA", "4.2.1.9"))
    elif constraints.path_length is not None and cas_below > constraints.path_length:
        problems.append(
            problem(
                Code.PATH_TOO_LONG,
                f"{cas_below} CAs stand below it, {constraints.path_length} may",
                "4.2.1.9",
            )
        )
    if usage is None or not usage.key_cert_sign:
        problems.append(
            problem(
                Code.NOT_A_CA, "its key usage does not allow it to sign certificates", "4.2.1.3"
            )
        )
    if extended is not None and not set(extended) >= _PEER_EKUS and _ANY_EKU not in extended:
        problems.append(
            problem(
                Code.WRONG_USAGE, "its extended key usage rules out mutual TLS below it", "4.2.1.12"
            )
        )
    return problems
