"""A CA above ours by itself: what endpoints demand of each, and of a root that is brought from elsewhere."""

from collections.abc import Iterator
from datetime import datetime

from attrs import evolve
from cryptography import x509

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Problem, printable
from pki.issuing.profile import generation_of
from pki.issuing.remedies import Remedy
from pki.issuing.root_line import RootLine
from pki.keys import key_id
from pki.spiffe import TrustDomain
from pki.svid.certificate import certificate_problems, is_self_issued, issuer_problems
from pki.svid.path import issued_by
from pki.svid.x509svid import extension, issuer_of, subject_of, uri_names
from pki.validity import rfc3339

#: What is against a certificate and has better words here, or in a product's terms.
_REMEDIES = {
    Code.NOT_A_CA: Remedy.CONSTRAINTS,
    Code.PATH_TOO_LONG: Remedy.ABOVE,
    Code.WRONG_USAGE: Remedy.EXTENDED,
    Code.WEAK_KEY: Remedy.STRENGTH,
    Code.WEAK_SIGNATURE: Remedy.STRENGTH,
    Code.PROFILE_VIOLATION: Remedy.CONSTRAINTS,
    Code.UNKNOWN_EXTENSION: Remedy.EXTENSIONS,
}


def is_ours(root: x509.Certificate, trust_domain: TrustDomain) -> bool:
    """Whether a root was made for that trust domain alone: a foreign one names none."""
    try:
        return uri_names(root) == [str(trust_domain.id)]
    except HOSTILE_INPUT:
        return False


def root_problems(
    root: x509.Certificate, trust_domain: TrustDomain, now: datetime
) -> list[Problem]:
    """Why a root that is brought in cannot stand above an issuing CA of ours; empty where it can."""
    try:
        uris = uri_names(root)
        constraints = extension(root, x509.BasicConstraints)
    except HOSTILE_INPUT:
        return [problem_of(root, Code.MALFORMED, "its extensions cannot be decoded", Remedy.ANEW)]
    problems = []
    if not is_self_issued(root) or not issued_by(root, root):
        problems.append(
            problem_of(
                root,
                Code.NOT_A_ROOT,
                f"it is no root: {issuer_of(root) or 'nobody'} has issued it",
                Remedy.ROOT,
            )
        )
    if uris and uris != [str(trust_domain.id)]:
        problems.append(
            problem_of(
                root,
                Code.WRONG_TRUST_DOMAIN,
                f"it is the root of {printable(', '.join(uris), 200)}, and this CA is that of {trust_domain.id}",
                Remedy.ROOT,
            )
        )
    if constraints is not None and constraints.path_length == 0:
        problems.append(
            problem_of(
                root,
                Code.PATH_TOO_LONG,
                "its path length is 0, so that no CA may stand below it",
                Remedy.ABOVE,
            )
        )
    problems += standing_problems(root, 0, now)
    return list(dict.fromkeys(problems))


def brought_problems(
    root: x509.Certificate, line: RootLine, trust_domain: TrustDomain, now: datetime
) -> list[Problem]:
    """Why a root that was made elsewhere cannot follow the present one; empty where it can."""
    problems = root_problems(root, trust_domain, now)
    key = _key_id(root)
    if root in line.roots:
        detail = "it is believed already"
        problems.append(problem_of(root, Code.CONFLICT, detail, Remedy.ANOTHER))
    elif key in {_key_id(present) for present in line.roots}:
        detail = "it has the key of a root that is believed already"
        problems.append(problem_of(root, Code.CONFLICT, detail, Remedy.ANOTHER))
    elif root.subject in {present.subject for present in line.roots}:
        detail = "it has the name of the present root, so that paths would be ambiguous"
        problems.append(problem_of(root, Code.CONFLICT, detail, Remedy.GENERATION))
    elif is_ours(root, trust_domain) and generation_of(root.subject) != line.next_generation:
        detail = f"it is of generation {generation_of(root.subject)}, and the next one is {line.next_generation}"
        problems.append(problem_of(root, Code.CONFLICT, detail, Remedy.GENERATION))
    if former := next((one for one in line.former if one.key_id == key), None):
        detail = (
            f"a root with that key was believed until {rfc3339(former.at)}, and was {former.how}"
        )
        problems.append(problem_of(root, Code.CONFLICT, detail, Remedy.ANOTHER))
    return problems


def _key_id(cert: x509.Certificate) -> str:
    try:
        return key_id(cert.public_key())
    except HOSTILE_INPUT:
        return ""


def standing_problems(cert: x509.Certificate, cas_below: int, now: datetime) -> Iterator[Problem]:
    """Of one CA, by itself and as an issuer, as endpoints judge it."""
    try:
        narrowed = extension(cert, x509.NameConstraints)
    except HOSTILE_INPUT:
        narrowed = None
    if narrowed is not None:
        yield problem_of(
            cert,
            Code.UNKNOWN_EXTENSION,
            "it has name constraints, and endpoints refuse every chain with such: they do not judge them",
            Remedy.NAME_CONSTRAINTS,
        )
    for problem in (*certificate_problems(cert, now), *issuer_problems(cert, cas_below)):
        if narrowed is not None and x509.NameConstraints.oid.dotted_string in problem.detail:
            continue
        remedy = _REMEDIES.get(problem.code)
        if "subject key identifier" in problem.detail:
            remedy = Remedy.IDENTIFIERS
        yield problem if remedy is None else in_their_words(problem, remedy)


def problem_of(cert: x509.Certificate, code: Code, detail: str, remedy: Remedy) -> Problem:
    """What is wrong with a certificate, and the remedy in the words of those who may have made it."""
    return Problem(code, detail, str(remedy), remedy.rule, subject_of(cert))


def in_their_words(problem: Problem, remedy: Remedy) -> Problem:
    """The same problem with that remedy."""
    return evolve(problem, remedy=str(remedy))
