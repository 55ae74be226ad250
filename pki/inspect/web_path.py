"""Whether a server's certificate holds by the rules of the web (RFC 5280, CA/Browser Forum), for who is no workload."""

from collections.abc import Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Problem, printable
from pki.svid.certificate import date_problems, names_match
from pki.svid.x509svid import extension, issuer_of, subject_of

_RULE = "RFC 5280 section 6.1"
_LONGEST_PATH = 10


def web_problems(
    presented: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now: datetime
) -> list[Problem]:
    """Why the chain, leaf first, is not that of a server, whatever its name; empty where it is.

    Whether it has the name that was asked for is for whoever matches names. Never raises.
    """
    leaf, *others = presented
    if problems := list(date_problems(leaf, now)):
        return problems
    try:
        policy = PolicyBuilder().store(Store(list(roots))).time(now)
        policy.build_server_verifier(_own_name(leaf)).verify(leaf, others)
    except VerificationError as refusal:
        return [_why(presented, roots, printable(str(refusal), 300))]
    except HOSTILE_INPUT as error:
        return [_refused(leaf, printable(str(error), 300))]
    return []


def _own_name(leaf: x509.Certificate) -> x509.DNSName | x509.IPAddress:
    """A name that it has, for a verifier that wants one."""
    for name in extension(leaf, x509.SubjectAlternativeName) or ():
        if isinstance(name, x509.IPAddress) and isinstance(name.value, IPv4Address | IPv6Address):
            return x509.IPAddress(name.value)
        if isinstance(name, x509.DNSName):
            return x509.DNSName(name.value.replace("*", "a", 1))
    return x509.DNSName("without.invalid")


def _why(
    presented: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], said: str
) -> Problem:
    """A path by names alone tells whether it is the authority that is not known, or something else."""
    path = [presented[0]]
    while len(path) < _LONGEST_PATH:
        below = path[-1]
        if any(root == below or names_match(below, root) for root in roots):
            return _refused(presented[0], said)
        above = [c for c in presented[1:] if c not in path and names_match(below, c)]
        if not above:
            break
        path.append(above[0])
    last = path[-1]
    return Problem(
        Code.UNKNOWN_AUTHORITY,
        f"the certificate is signed by an unknown authority, {issuer_of(last) or 'without a name'}: "
        "it does not lead to a root that is trusted here",
        "name its roots (--roots), or see that it sends its intermediates",
        _RULE,
        subject_of(last),
    )


def _refused(leaf: x509.Certificate, said: str) -> Problem:
    return Problem(
        Code.BAD_CERTIFICATE,
        f"the rules of the web refuse it: {said}",
        "look at it with pki-inspect lint --profile web",
        _RULE,
        subject_of(leaf),
    )
