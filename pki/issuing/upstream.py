"""What is installed above our leaves: an issuing CA's certificate, what stands between it and a root, and the root.

They come from an offline root of ours, or from a CA of somebody else's, whose products each have their own words for
what is missing. Held to what every endpoint demands of a chain (:mod:`pki.svid.chain`), before it is put to use.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Self

from attrs import evolve, frozen
from cryptography import x509

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Problem, Refused, printable
from pki.issuing.ca_above import (
    in_their_words,
    is_ours,
    problem_of,
    root_problems,
    standing_problems,
)
from pki.issuing.ca_request import pin_of
from pki.issuing.lint import Draftee, lint
from pki.issuing.profile import BACKDATE, ISSUING
from pki.issuing.remedies import Remedy
from pki.issuing.root_line import fingerprint_of
from pki.issuing.rotation import LEAST_LIVES
from pki.keys import key_identifier, spki_der, verify_cost
from pki.spiffe import TrustDomain
from pki.svid.certificate import (
    is_self_issued,
    unidentified_issuer,
)
from pki.svid.path import BUDGET, CHECK, Path, PathSearch
from pki.svid.x509svid import extension, issuer_of, subject_of, validity_of
from pki.validity import rfc3339, spoken_duration

#: Files that are installed are few and ours, so a path may be searched for longer than a stranger's.
_PATIENCE = 100 * BUDGET
Rule = Callable[[x509.Certificate, "Wanted"], Iterator[Problem]]


@frozen(eq=False, repr=False)
class Wanted:
    """What the certificate of an issuing CA is held against."""

    trust_domain: TrustDomain
    subject: x509.Name
    """That of the CSR."""
    spki: bytes
    """The key's SubjectPublicKeyInfo: that of the CSR."""
    longest_leaf: timedelta
    """How long what it issues may live."""
    now: datetime


@frozen(eq=False, repr=False)
class IssuingChain:
    """An issuing CA's certificate that may be put to use, and what leads from it to a root."""

    certificates: tuple[x509.Certificate, ...]
    """Ours first, then those of others above it; the root is not among them. Leaves send all of them along."""
    root: x509.Certificate

    @classmethod
    def among(
        cls,
        found: Sequence[x509.Certificate],
        roots: Sequence[x509.Certificate],
        wanted: Wanted,
    ) -> tuple[Self, ...]:
        """The chains among ``found``, in any order, up to ``roots``, which are believed: one for each root.

        Raises :class:`Refused` with everything that an endpoint, OpenSSL or the CA itself would refuse one for.
        """
        chains: list[Self] = []
        problems: list[Problem] = []
        for ours in _ours(found, wanted):
            problems += _own_problems(ours, wanted)
            path = _path(ours, found, roots, problems)
            if not path:
                continue
            problems += _above_problems(path, wanted)
            if is_ours(path[-1], wanted.trust_domain):
                problems += _lints(ours, path[-1])
            if any(chain.root == path[-1] for chain in chains):
                detail = f"two different certificates lead to {subject_of(path[-1])}"
                problems.append(
                    Problem(Code.CONFLICT, detail, "install one of them", subject="chain")
                )
            chains.append(cls(path[:-1], path[-1]))
        if problems:
            raise Refused(dict.fromkeys(problems))
        return tuple(chains)

    @property
    def certificate(self) -> x509.Certificate:
        """That of our own issuing CA."""
        return self.certificates[0]


def _ours(found: Sequence[x509.Certificate], wanted: Wanted) -> list[x509.Certificate]:
    """Those that are for our key. Raises :class:`Refused` where there is none."""
    ours = [cert for cert in dict.fromkeys(found) if _spki_of(cert) == wanted.spki]
    if ours:
        return ours
    others = ", ".join(f"{subject_of(cert)} ({pin_of(_spki_of(cert))})" for cert in found)
    raise Refused(
        [
            Problem(
                Code.CREDENTIALS_DO_NOT_FIT,
                f"none of these is for the key {pin_of(wanted.spki)}, which waits for its certificate: "
                f"{others or 'there is no certificate'}",
                "have the CSR certified that mesh-ctl ca root csr shows now, and bring what is made of it",
                subject="chain",
            )
        ]
    )


def _spki_of(cert: x509.Certificate) -> bytes:
    try:
        return spki_der(cert.public_key())
    except HOSTILE_INPUT:
        return b""


def _path(
    ours: x509.Certificate,
    found: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    problems: list[Problem],
) -> Path:
    """From ours to a root that is believed, both included; empty where there is none, and why is a problem."""
    others = [cert for cert in found if _spki_of(cert) != _spki_of(ours)]
    search = PathSearch((ours, *others), roots, _PATIENCE)
    if paths := search.paths():
        return min(paths, key=len)
    last = search.furthest[-1]
    believed = "; ".join(f"{subject_of(root)} {fingerprint_of(root)}" for root in roots)
    if is_self_issued(last):
        what = f"it ends in the root {subject_of(last)} {fingerprint_of(last)}, which is not believed here"
        remedy = (
            "if that is the one that you want, bring it in first: mesh-ctl ca root prepare --root-cert FILE; "
            "if not, have the CSR certified by the right one"
        )
    else:
        what = f"nothing that was given or is believed has signed {subject_of(last)} as {issuer_of(last)}"
        remedy = (
            "name the files of all CAs in between, too; if its root is missing, bring that in first: "
            "mesh-ctl ca root prepare --root-cert FILE; if it is the right name and another key, it is of another CA"
        )
    detail = f"{what} (believed: {believed or 'none'})"
    problems.append(
        Problem(Code.UNKNOWN_AUTHORITY, detail, remedy, "RFC 5280 section 6.1", subject_of(last))
    )
    return ()


def _own_problems(ours: x509.Certificate, wanted: Wanted) -> Iterator[Problem]:
    """What is wrong with our own certificate beyond what is demanded of every CA."""
    for rule in _OWN_RULES:
        try:
            yield from rule(ours, wanted)
        except HOSTILE_INPUT:
            yield problem_of(ours, Code.MALFORMED, "it cannot be decoded", Remedy.ANEW)


def _subject(ours: x509.Certificate, wanted: Wanted) -> Iterator[Problem]:
    if ours.subject != wanted.subject:
        detail = f"its subject is not that of the CSR, {wanted.subject.rfc4514_string()}"
        yield problem_of(ours, Code.PROFILE_VIOLATION, detail, Remedy.SUBJECT)


def _names(ours: x509.Certificate, wanted: Wanted) -> Iterator[Problem]:
    """X509-SVID section 3.2: a CA need not be named, and if it is, by its trust domain alone."""
    names = extension(ours, x509.SubjectAlternativeName)
    told = [name.value if isinstance(name.value, str) else str(name) for name in names or ()]
    if told not in ([], [str(wanted.trust_domain.id)]):
        shown = printable(", ".join(told), 200)
        others = [name for name in told if name.startswith("spiffe://")]
        code = Code.WRONG_TRUST_DOMAIN if others else Code.UNSUPPORTED_NAME
        yield problem_of(
            ours,
            code,
            f"it is named {shown}, and may be named {wanted.trust_domain.id} or not at all",
            Remedy.NAMES,
        )


def _length(ours: x509.Certificate, _: Wanted) -> Iterator[Problem]:
    constraints = extension(ours, x509.BasicConstraints)
    if (
        constraints is not None
        and constraints.ca
        and constraints.path_length != ISSUING.path_length
    ):
        length = constraints.path_length
        told = "it has no path length" if length is None else f"its path length is {length}"
        detail = f"{told}, and is to be 0: no CA stands below an issuing CA"
        yield problem_of(ours, Code.PATH_TOO_LONG, detail, Remedy.LENGTH)


def _usages(ours: x509.Certificate, _: Wanted) -> Iterator[Problem]:
    usage = extension(ours, x509.KeyUsage)
    if usage is None or not usage.crl_sign:
        yield problem_of(
            ours,
            Code.NOT_A_CRL_ISSUER,
            "it may not sign CRLs, and has to publish them",
            Remedy.USAGES,
        )


def _identifier(ours: x509.Certificate, wanted: Wanted) -> Iterator[Problem]:
    """What leaves name their issuer by must not depend on who has certified it."""
    told = extension(ours, x509.SubjectKeyIdentifier)
    if told is not None and told.digest != key_identifier(wanted.spki):
        detail = "its subject key identifier is not the SHA-1 of its key, as the CSR asks for"
        yield problem_of(ours, Code.PROFILE_VIOLATION, detail, Remedy.IDENTIFIERS)


def _life(ours: x509.Certificate, wanted: Wanted) -> Iterator[Problem]:
    validity, least = validity_of(ours), LEAST_LIVES * wanted.longest_leaf
    left = validity.not_after - wanted.now
    if validity.contains(wanted.now) and left < least:
        yield problem_of(
            ours,
            Code.TTL_OUT_OF_RANGE,
            f"it holds for {spoken_duration(left)} more, and is to hold for {spoken_duration(least)} at least: "
            f"{LEAST_LIVES} times as long as the longest certificate",
            Remedy.LIFE,
        )


_OWN_RULES: tuple[Rule, ...] = (_subject, _names, _length, _usages, _identifier, _life)


def _above_problems(path: Path, wanted: Wanted) -> Iterator[Problem]:
    """What is demanded of every CA of a chain, our own first."""
    cas_below, cost = 0, 0
    for cert, issuer in zip(path, (*path[1:], None), strict=True):
        yield from standing_problems(cert, cas_below, wanted.now)
        cost += CHECK + (verify_cost(cert.public_key()) or 0)
        cas_below += not is_self_issued(cert)
        if issuer is None:
            continue
        for unidentified in unidentified_issuer(cert):
            yield in_their_words(unidentified, Remedy.IDENTIFIERS)
        end, limit = cert.not_valid_after_utc, issuer.not_valid_after_utc
        if end > limit:
            yield problem_of(
                cert,
                Code.ISSUER_EXPIRED,
                f"it holds until {rfc3339(end)}, and {subject_of(issuer)} above it until {rfc3339(limit)} only",
                Remedy.LIFE,
            )
    if cost > BUDGET:
        yield problem_of(
            path[0],
            Code.PATH_TOO_LONG,
            f"to verify this chain takes {cost} µs, and endpoints spend {BUDGET} on one: {len(path)} CAs with such "
            "keys are too many",
            Remedy.COST,
        )
    if not is_ours(path[-1], wanted.trust_domain):
        yield from root_problems(path[-1], wanted.trust_domain, wanted.now)


def _lints(ours: x509.Certificate, root: x509.Certificate) -> list[Problem]:
    """A root of ours signs by our profile only: all that the CA itself would hold its own draft to."""
    validity = validity_of(ours)
    profile = evolve(ISSUING, lifetime=validity.not_after - validity.not_before)
    draftee = Draftee(ours, root, profile, validity.not_before + BACKDATE)
    remedy = "sign the CSR with mesh-ctl ca root sign"
    return [evolve(problem, remedy=remedy) for problem in lint(draftee)]
