"""The verdict on a presented chain: built within the leaf's own trust domain, every reason at once.

OpenSSL keeps one pool of roots for all trust domains, so any of them could mint the others' names;
here the leaf's SPIFFE ID chooses the one bundle that may vouch for it (X509-SVID section 5,
path validation by RFC 5280 section 6).
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property, lru_cache

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Problem
from pki.keys import key_id
from pki.spiffe import SpiffeId
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.certificate import (
    certificate_problems,
    date_problems,
    encoded_parts,
    identifier_objection,
    is_self_issued,
    issuer_problems,
    lasting_problems,
    named_key,
    names_the_key,
    oversized,
    unidentified_issuer,
)
from pki.svid.path import Link, Path, PathSearch, with_issuers
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
from pki.validity import Validity

_MAX_PRESENTED = 10
_ALWAYS = Validity(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


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
        return self._validity.contains(now)

    @cached_property
    def _validity(self) -> Validity:
        """While all certificates of the path are valid."""
        spans = [validity_of(cert) for cert in self.path]
        return Validity(
            max((span.not_before for span in spans), default=_ALWAYS.not_before),
            min((span.not_after for span in spans), default=_ALWAYS.not_after),
        )


def judge(
    presented: Sequence[x509.Certificate],
    bundles: BundleSet,
    revocations: RevocationSet,
    *,
    now: datetime,
    purpose: Purpose,
    known_issuers: Collection[bytes] = (),
    beside: Sequence[x509.Certificate] = (),
) -> Verdict:
    """Judge a chain, leaf first, as it came over the wire.

    ``known_issuers`` are subject key identifiers of CAs that are known to be ours: they tell a peer
    that forgot its intermediates (``incomplete-chain``) from one of another CA. ``beside`` are certificates of CAs
    that are at hand though the peer has not sent them, and no roots: where what it has sent leads to no root, another
    certificate of a CA that it has sent may (RFC 5280 section 6.1: a path is built of whatever is at hand). Never
    raises.
    """
    if not presented:
        return Verdict(None, (), (_no_certificate(),))
    if (too_many := crowd_problem(len(presented))) is not None:
        return Verdict(None, (), (too_many,))
    if too_large := oversized(presented):
        return Verdict(None, (), (Problem(Code.MALFORMED, too_large, "present the chain only"),))
    leaf = presented[0]
    problems = leaf_problems(leaf, purpose)
    spiffe_id = spiffe_id_of(leaf)
    path: Path = (leaf,)
    anchored = False
    if spiffe_id is not None:
        bundle = bundles.get(spiffe_id.trust_domain)
        if bundle is None:
            problems.append(_unknown_trust_domain(leaf, spiffe_id, bundles))
        else:
            search = PathSearch(presented, bundle.roots)
            path, anchored, unanchored = _best_path(search, bundle, revocations, now, known_issuers)
            if not anchored and (others := _of_the_same(presented[1:], beside)):
                # Of the same budget: what a stranger can have us look for does not grow by it.
                search = PathSearch((leaf, *others), bundle.roots, search.left)
                found, anchored, objections = _best_path(
                    search, bundle, revocations, now, known_issuers
                )
                if anchored:
                    path, unanchored = found, objections
            problems += unanchored
    below = dict(issuers_in(path))
    for position, cert in enumerate(path):
        issuer = path[position + 1] if position + 1 < len(path) else None
        problems += date_problems(cert, now, is_issuer=position > 0)
        if position and anchored:
            lasting, about_issuing = _judged_as_issuer(cert, below[cert])
        else:
            lasting = tuple(lasting_problems(cert, thorough=anchored))
            about_issuing = tuple(issuer_problems(cert, below[cert])) if position else ()
        problems += lasting
        # A root that is not believed any more is revoked by its own name.
        revoker = cert if issuer is None and anchored else issuer
        problems += _revoked(cert, revoker, revocations, is_issuer=position > 0)
        problems += about_issuing
        if issuer is not None:
            problems += unidentified_issuer(cert)
    return Verdict(spiffe_id, path, tuple(dict.fromkeys(problems)))


@lru_cache(maxsize=64)
def _judged_as_issuer(
    cert: x509.Certificate, cas_below: int
) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """What is wrong with a CA by itself, dates aside, and as an issuer.

    Remembered: all leaves stand below the same few CAs, and only those are asked about that a root vouches for.
    """
    return tuple(lasting_problems(cert)), tuple(issuer_problems(cert, cas_below))


def _of_the_same(
    sent: Sequence[x509.Certificate], beside: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """Those of the CAs that were sent, by name and key: who sends no issuer has to be told so, and gets none."""
    if not beside:
        return []
    known = {encoded_parts(cert)[1:] for cert in sent}
    return [cert for cert in beside if encoded_parts(cert)[1:] in known]


def crowd_problem(sent: int) -> Problem | None:
    """What is wrong with so many certificates from one peer, of whatever use they are; None if nothing is."""
    if sent <= _MAX_PRESENTED:
        return None
    detail = f"{sent} certificates were presented, {_MAX_PRESENTED} is the most"
    return Problem(Code.MALFORMED, detail, "present the chain only")


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
    search: PathSearch,
    bundle: TrustBundle,
    revocations: RevocationSet,
    now: datetime,
    known_issuers: Collection[bytes],
) -> tuple[Path, bool, list[Problem]]:
    """A path to a root with no fault if there is one, else the least faulty, else as far as it goes.

    With it whether it leads to a root, and if not, why.
    """
    paths = search.paths()
    if not paths:
        return search.furthest, False, [_unanchored(search, bundle, known_issuers)]

    def faults(path: Path) -> int:
        return sum(
            len(certificate_problems(cert, now)) + len(issuer_problems(cert, cas_below))
            for cert, cas_below in issuers_in(path)
        ) + len(revoked_in(path, revocations))

    return paths[0] if len(paths) == 1 else min(paths, key=faults), True, []


def issuers_in(path: Path) -> Iterator[tuple[x509.Certificate, int]]:
    """What stands above the leaf, each with the number of CAs below it that are not self-issued."""
    cas_below = 0
    for cert in path[1:]:
        yield cert, cas_below
        cas_below += not is_self_issued(cert)


def broken_link(search: PathSearch) -> Problem | None:
    """What is wrong with the signature that the furthest path ends with; None where nothing is known against it."""
    last = search.furthest[-1]
    for candidate, link in search.above(search.furthest):
        if link is Link.FOREIGN and names_the_key(last, candidate):
            return Problem(
                Code.BAD_SIGNATURE,
                f"its signature is not of the key of {subject_of(candidate)}, which it identifies: "
                "it was damaged, or is forged",
                "fetch or issue the certificate anew",
                "RFC 5280 section 6.1.3 (a) (1)",
                subject_of(last),
            )
        if link is Link.CONTRADICTED and search.is_signed(last, candidate):
            return Problem(
                Code.ISSUER_MISMATCH,
                f"{subject_of(candidate)} signed it, and its authority key identifier names "
                f"{identifier_objection(last, candidate)}",
                "have it issued anew, with the identifier of its issuer's certificate",
                "RFC 5280 section 4.2.1.1",
                subject_of(last),
            )
    return None


def _unanchored(
    search: PathSearch, bundle: TrustBundle, known_issuers: Collection[bytes]
) -> Problem:
    """Why the furthest path leads to no root."""
    path = search.furthest
    last = path[-1]
    named = list(search.above(path))
    broken = broken_link(search)
    if broken is not None:
        return broken
    if len(path) == 1 and _is_ours(last, bundle, known_issuers, was_sent=bool(named)):
        return Problem(
            Code.INCOMPLETE_CHAIN,
            f"the peer did not present its issuer {issuer_of(last)}",
            "send the intermediates along: curl takes them in the --cert file, openssl s_client with -cert_chain",
            "RFC 8446 section 4.4.2",
            subject_of(last),
        )
    for candidate, link in named:
        if link in (Link.FOREIGN, Link.CONTRADICTED) and not search.is_exhausted:
            return _namesake(last, candidate, bundle)
    return Problem(
        Code.UNKNOWN_AUTHORITY,
        f"the certificate is signed by an unknown authority, {issuer_of(last) or 'without a name'}: "
        f"it does not lead to a root of {bundle.trust_domain}"
        + (", as far as was looked" if search.is_exhausted else ""),
        "request an SVID from this mesh's CA, or refresh the trust bundle",
        "RFC 5280 section 6.1",
        subject_of(last),
    )


def _namesake(last: x509.Certificate, candidate: x509.Certificate, bundle: TrustBundle) -> Problem:
    """That a path ends at a CA of a name that is known, and with another key: only keys tell the two apart."""
    where = "held here" if candidate in bundle.roots else "that was sent along"
    if is_self_issued(last):
        which = f"the other one is sha256:{_fingerprint(last)}"
    else:
        named = named_key(last)
        which = f"it names the key {named.hex()}" if named else "it names no key"
    return Problem(
        Code.UNKNOWN_AUTHORITY,
        f"the certificate is signed by an unknown authority, of the name {issuer_of(last)} and another key than the "
        f"one {where}, which is sha256:{_fingerprint(candidate)}; {which}",
        "compare the fingerprints with what each CA prints at its start, and use certificates and roots of one mesh",
        "RFC 5280 section 6.1",
        subject_of(last),
    )


def _fingerprint(cert: x509.Certificate) -> str:
    return cert.fingerprint(SHA256()).hex()


def _is_ours(
    leaf: x509.Certificate,
    bundle: TrustBundle,
    known_issuers: Collection[bytes],
    *,
    was_sent: bool,
) -> bool:
    """Whether a leaf without its issuer looks like one of this trust domain's. Only words depend on it.

    ``was_sent``: there is a certificate of its issuer's name, so by name alone nothing is missing.
    """
    try:
        if known_issuers:
            identifier = extension(leaf, x509.AuthorityKeyIdentifier)
            return identifier is not None and identifier.key_identifier in known_issuers
        organization = leaf.issuer.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
        return (
            not was_sent
            and bool(organization)
            and any(
                root.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME) == organization
                and root.subject != leaf.issuer
                for root in bundle.roots
            )
        )
    except HOSTILE_INPUT:
        return False


def revoked_in(path: Sequence[x509.Certificate], revocations: RevocationSet) -> tuple[Problem, ...]:
    """What of a path that leads to a root is revoked, the root itself too."""
    own = (*_revoked(path[0], path[1], revocations, is_issuer=False),) if path[1:] else ()
    return (*own, *revoked_above(path, revocations))


def revoked_above(
    path: Sequence[x509.Certificate], revocations: RevocationSet
) -> tuple[Problem, ...]:
    """The same of what stands above the leaf: no fault of whoever holds that."""
    return tuple(
        problem
        for cert, issuer in with_issuers(path[1:])
        for problem in _revoked(cert, issuer, revocations, is_issuer=True)
    )


def _revoked(
    cert: x509.Certificate,
    issuer: x509.Certificate | None,
    revocations: RevocationSet,
    *,
    is_issuer: bool,
) -> Iterator[Problem]:
    if issuer is None or not len(revocations):
        return
    found = revocations.find(_key_id_of(issuer), cert.serial_number)
    if found:
        yield found.problem(subject_of(cert), is_issuer=is_issuer)


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
