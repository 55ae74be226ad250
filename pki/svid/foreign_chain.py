"""The verdict on a certificate of another PKI, which names a machine or a person and is no SVID (RFC 5280 section 6).

As strict as the verdict on an SVID, and by the same rules: what narrows a CA down and is not judged here, such as name
constraints, is refused, and a search is paid for out of one budget.
"""

from collections.abc import Sequence
from datetime import datetime

from attrs import evolve, frozen
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Problem
from pki.svid.certificate import (
    date_problems,
    issuer_problems,
    lasting_problems,
    oversized,
    unidentified_issuer,
)
from pki.svid.chain import broken_link, crowd_problem, issuers_in
from pki.svid.path import Path, PathSearch
from pki.svid.x509svid import extension, issuer_of, subject_of

_CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
_ANEW = "have it issued anew by a CA that keeps to RFC 5280"


@frozen
class ForeignVerdict:
    """Which paths are good, and if none is, why."""

    paths: tuple[Path, ...]
    """Leaf first, a configured root last."""
    problems: tuple[Problem, ...] = ()
    """Of the least faulty path; none where some path is good."""


def judge_foreign(
    presented: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    *,
    now: datetime,
    any_usage: bool = False,
) -> ForeignVerdict:
    """Judge a chain, leaf first, of somebody who is to be known by it as a TLS client would be.

    ``any_usage``: whatever its extended key usage says, also nothing. Never raises.
    """
    if not presented:
        return _refused(Problem(Code.NO_CERTIFICATE, "there is no certificate", "show one"))
    if (crowd := crowd_problem(len(presented))) is not None:
        return _refused(crowd)
    if too_large := oversized(presented):
        return _refused(Problem(Code.MALFORMED, too_large, "show the chain only"))
    usages = () if any_usage else _CLIENT
    of_leaf = _leaf_problems(presented[0], usages)
    if of_leaf:
        return _refused(*of_leaf)
    search = PathSearch(presented, roots)
    found = search.paths()
    if not found:
        return _refused(_unanchored(search))
    verdicts = [(path, _path_problems(path, now, usages)) for path in found]
    good = tuple(path for path, problems in verdicts if not problems)
    if good:
        return ForeignVerdict(good)
    return _refused(*min((problems for _, problems in verdicts), key=len))


def _refused(*problems: Problem) -> ForeignVerdict:
    return ForeignVerdict((), tuple(dict.fromkeys(problems)))


def _leaf_problems(
    leaf: x509.Certificate, usages: Sequence[x509.ObjectIdentifier]
) -> list[Problem]:
    """Why the leaf itself is nobody's identity; what else may be wrong with it, any certificate may have."""

    def problem(code: Code, detail: str, section: str) -> Problem:
        return Problem(code, detail, _ANEW, f"RFC 5280 section {section}", subject_of(leaf))

    try:
        constraints = extension(leaf, x509.BasicConstraints)
        usage = extension(leaf, x509.KeyUsage)
        extended = extension(leaf, x509.ExtendedKeyUsage)
    except HOSTILE_INPUT:
        return [problem(Code.MALFORMED, "its extensions cannot be decoded", "4.2")]
    found = []
    if (constraints and constraints.ca) or (usage and usage.key_cert_sign):
        found.append(
            problem(Code.WRONG_USAGE, "a CA's certificate is nobody's identity", "4.2.1.9")
        )
    if usage is None or not usage.digital_signature:
        found.append(
            problem(Code.WRONG_USAGE, "key usage does not allow digitalSignature", "4.2.1.3")
        )
    if usages and not set(extended or ()).issuperset(usages):
        found.append(
            problem(Code.WRONG_USAGE, "extended key usage does not allow clientAuth", "4.2.1.12")
        )
    return found


def _path_problems(
    path: Path, now: datetime, usages: Sequence[x509.ObjectIdentifier]
) -> list[Problem]:
    below = dict(issuers_in(path))
    found: list[Problem] = []
    for cert in path:
        found += date_problems(cert, now, is_issuer=cert in below)
        found += lasting_problems(cert)
        if cert in below:
            found += (
                evolve(problem, remedy=_ANEW)
                for problem in issuer_problems(cert, below[cert], usages)
            )
        if cert is not path[-1]:
            found += unidentified_issuer(cert)
    return found


def _unanchored(search: PathSearch) -> Problem:
    if (broken := broken_link(search)) is not None:
        return broken
    last = search.furthest[-1]
    return Problem(
        Code.UNKNOWN_AUTHORITY,
        f"it does not lead to a root that is configured: {issuer_of(last) or 'an issuer without a name'} is none"
        + (", as far as was looked" if search.is_exhausted else ""),
        "send the intermediate CAs along, and configure their root",
        "RFC 5280 section 6.1",
        subject_of(last),
    )
