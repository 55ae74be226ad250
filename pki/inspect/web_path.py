"""Verdicts by the rules of the web (RFC 5280, CA/Browser Forum BR), whoever issued the certificate.

The path is found and verified by cryptography's verifier. Further rules are asked for inside its search, so that
a path that breaks one is passed over for another that does not; what was wrong is then told in our own words.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Problem, printable
from pki.inspect.web_rules import WebPurpose, above_problems, rule_problems, rules_out
from pki.keys import key_id
from pki.svid.certificate import (
    date_problems,
    is_self_issued,
    lasting_problems,
)
from pki.svid.chain import broken_link
from pki.svid.path import Path, PathSearch
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import issuer_of, subject_of

_RULE = "RFC 5280 section 6.1"
#: cryptography's own default, and the most that it can count to.
_DEPTH = 8
_DEEPEST = 255
#: Microseconds for a search of what was wrong: a system has a hundred roots and more.
_SEARCH = 100_000
#: What the verifier knows of keys of CAs.
_WEB_KEYS = (RSAPublicKey, EllipticCurvePublicKey)


@frozen
class WebVerdict:
    """What was decided about a certificate."""

    path: Path
    """Leaf first. It ends in a root that was given, unless a problem says that it does not."""
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether it is good for what it was judged for."""
        return not self.problems


@frozen
class _Asked:
    """What is to be judged, and for what."""

    presented: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]
    now: datetime
    purpose: WebPurpose
    max_depth: int | None


def judge_web(
    presented: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    revocations: RevocationSet,
    *,
    now: datetime,
    purpose: WebPurpose,
    max_depth: int | None = None,
) -> WebVerdict:
    """Judge a chain, leaf first, whose other certificates come in any order.

    Names are for whoever matches them, but for name constraints. ``max_depth`` is how many intermediates may be
    in the path that are not self-issued. A certificate is valid through all of its last second. Never raises.
    """
    second = now.replace(microsecond=0)
    asked = _Asked(tuple(presented), tuple(roots), second, purpose, max_depth)
    path, said = _verified(asked)
    if path is None:
        path, problems = _refusal(asked, said)
    else:
        # A CA that may not be where it is issues nothing that is good, though its own path holds.
        problems = [p for p in _problems(path, asked) if p.code is Code.PATH_TOO_LONG]
    problems += _revoked(path, revocations)
    once = {(problem.code, problem.subject, problem.detail): problem for problem in problems}
    return WebVerdict(path, tuple(once.values()))


def web_problems(
    presented: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now: datetime
) -> list[Problem]:
    """Why the chain, leaf first, is not that of a server, whatever its name; empty where it is.

    Whether it has the name that was asked for is for whoever matches names. Never raises.
    """
    verdict = judge_web(presented, roots, RevocationSet(), now=now, purpose=WebPurpose.SERVER)
    return list(verdict.problems)


def depth_problem(path: Path, max_depth: int | None) -> Problem | None:
    """That more intermediates are in the path than may be, self-issued ones aside; None where they are not."""
    count = _depth(path)
    if max_depth is None or count <= max_depth:
        return None
    return Problem(
        Code.PATH_TOO_LONG,
        f"{count} intermediates stand between it and the root, {max_depth} may (--max-depth)",
        "have it issued by a CA nearer to the root, or allow more",
        "RFC 5280 section 6.1.1",
        subject_of(path[0]),
    )


def _depth(path: Path) -> int:
    return sum(not is_self_issued(cert) for cert in path[1:-1])


def _verified(asked: _Asked) -> tuple[Path | None, str]:
    """The path that cryptography's verifier finds; else why there is none, in its words.

    It counts self-issued intermediates as others, so what it would refuse for that is counted here.
    """
    depth = max(_DEPTH, min(asked.max_depth or 0, _DEEPEST))
    path, said = _verified_within(asked, depth, _ca_policy(asked), _leaf_policy(asked))
    if asked.max_depth is not None and path is not None and depth_problem(path, asked.max_depth):
        return _verified_within(asked, asked.max_depth, _ca_policy(asked), _leaf_policy(asked))
    return path, said


def _verified_within(
    asked: _Asked, depth: int, ca_policy: ExtensionPolicy, leaf_policy: ExtensionPolicy
) -> tuple[Path | None, str]:
    leaf, *others = asked.presented
    try:
        # The one for servers wants a name, and names are matched by others, however many.
        verifier = (
            PolicyBuilder()
            .store(Store(list(asked.roots)))
            .time(asked.now)
            .max_chain_depth(depth)
            .extension_policies(ca_policy=ca_policy, ee_policy=leaf_policy)
            .build_client_verifier()
        )
        return tuple(verifier.verify(leaf, others).chain), ""
    except VerificationError as refusal:
        return None, _plain(str(refusal))
    except HOSTILE_INPUT as error:
        return None, printable(str(error), 300)


def _plain(said: str) -> str:
    """The verifier's words without how it came to them."""
    for preface in ("validation failed: ", "candidates exhausted: ", "fatal error: "):
        said = said.removeprefix(preface)
    return printable(said.split(" (encountered processing ")[0], 300)


def _ca_policy(asked: _Asked) -> ExtensionPolicy:
    """Which extensions of whom may be what, for everything above the leaf."""
    any_way = Criticality.AGNOSTIC
    return (
        ExtensionPolicy.webpki_defaults_ca()
        .may_be_present(x509.ExtendedKeyUsage, any_way, _fits(asked))
        .may_be_present(x509.SubjectKeyIdentifier, any_way, _keeps_to(asked, is_leaf=False))
    )


def _leaf_policy(asked: _Asked) -> ExtensionPolicy:
    """The same for the leaf. Which of its names and usages are critical is among our own rules: SVIDs may differ."""
    any_way = Criticality.AGNOSTIC
    return (
        _lenient(asked.purpose)
        .may_be_present(x509.ExtendedKeyUsage, any_way, None)
        .may_be_present(x509.SubjectAlternativeName, any_way, None)
        .may_be_present(x509.SubjectKeyIdentifier, any_way, _keeps_to(asked, is_leaf=True))
    )


def _lenient(purpose: WebPurpose) -> ExtensionPolicy:
    if purpose.is_end_of_tls:
        return ExtensionPolicy.webpki_defaults_ee()
    return ExtensionPolicy.permit_all()


_Validator = Callable[[Policy, x509.Certificate, x509.ExtensionType | None], None]


def _keeps_to(asked: _Asked, *, is_leaf: bool) -> _Validator:
    """Asked once for each certificate of a path. Raises ValueError, which the verifier takes for no."""

    def validate(_: Policy, cert: x509.Certificate, __: x509.ExtensionType | None) -> None:
        broken = rule_problems(cert, asked.purpose, is_leaf=is_leaf, is_root=cert in asked.roots)
        if broken:
            raise ValueError(broken[0].detail)

    return validate


def _fits(asked: _Asked) -> _Validator:
    """Whether a CA's extended key usage allows what stands below it."""

    def validate(_: Policy, cert: x509.Certificate, __: x509.ExtensionType | None) -> None:
        if rules_out(cert, asked.purpose):
            raise ValueError(f"the extended key usage of a CA rules out a {asked.purpose}")

    return validate


def _refusal(asked: _Asked, said: str) -> tuple[Path, list[Problem]]:
    """Why there is no good path: what is wrong with the best one that there is."""
    leaf = asked.presented[0]
    search = PathSearch(asked.presented, asked.roots, _SEARCH)
    paths: list[Path] = [(leaf,)] if leaf in asked.roots else search.paths()
    if not paths:
        path = search.furthest
        return path, [*_problems(path, asked), _unanchored(search)]
    problems, path = min(
        ((_problems(path, asked), path) for path in paths), key=lambda found: len(found[0])
    )
    if (too_deep := depth_problem(path, asked.max_depth)) is not None:
        problems.append(too_deep)
    if problems:
        # What of our own rules is broken must not hide that a CA above it may not issue for its names.
        lenient = ExtensionPolicy.permit_all()
        _, said = _verified_within(asked, _DEEPEST, ExtensionPolicy.webpki_defaults_ca(), lenient)
    if "name constraint" in said:
        problems.append(_constrained(leaf, said))
    if not problems and not _is_beyond_the_verifier(path, asked.purpose):
        problems.append(_refused(leaf, said))
    return path, problems


def _is_beyond_the_verifier(path: Path, purpose: WebPurpose) -> bool:
    """Whether the path is good, and refused for keys alone, which the web does not know and we do.

    Then nothing in it may be of a kind that only the verifier judges, such as name constraints.
    """
    return (
        not purpose.is_end_of_tls
        and not all(isinstance(cert.public_key(), _WEB_KEYS) for cert in path[1:])
        and not any(lasting_problems(cert) for cert in path)
    )


def _problems(path: Path, asked: _Asked) -> list[Problem]:
    """What is wrong with each certificate of a path by itself, and as the issuer of what is below."""
    found: list[Problem] = []
    cas_below = 0
    for position, cert in enumerate(path):
        found += date_problems(cert, asked.now, is_issuer=position > 0)
        found += rule_problems(
            cert, asked.purpose, is_leaf=position == 0, is_root=cert in asked.roots
        )
        if position:
            found += above_problems(cert, cas_below, asked.purpose)
            cas_below += not is_self_issued(cert)
        elif asked.purpose is WebPurpose.CA and all(p.code is not Code.NOT_A_CA for p in found):
            cas_below += not is_self_issued(cert)
    return found


def _unanchored(search: PathSearch) -> Problem:
    """Why the furthest path leads to no root."""
    last = search.furthest[-1]
    broken = broken_link(search)
    if broken is not None:
        return broken
    return Problem(
        Code.UNKNOWN_AUTHORITY,
        f"the certificate is signed by an unknown authority, {issuer_of(last) or 'without a name'}: "
        "it does not lead to a root that is trusted here"
        + (", as far as was looked" if search.is_exhausted else ""),
        "name its roots (--roots), and see that its intermediates are there",
        _RULE,
        subject_of(last),
    )


def _constrained(leaf: x509.Certificate, said: str) -> Problem:
    return Problem(
        Code.BAD_CERTIFICATE,
        f"the name constraints of a CA above it rule it out, or are none that can be judged: {said}",
        "have it issued by a CA that may issue for them",
        "RFC 5280 section 4.2.1.10",
        subject_of(leaf),
    )


def _refused(leaf: x509.Certificate, said: str) -> Problem:
    return Problem(
        Code.BAD_CERTIFICATE,
        f"the rules of the web refuse it: {said}",
        "look at it with pki-inspect lint --profile web",
        _RULE,
        subject_of(leaf),
    )


def _revoked(path: Path, revocations: RevocationSet) -> Iterator[Problem]:
    for position, (cert, issuer) in enumerate(pairwise(path)):
        found = revocations.find(key_id(issuer.public_key()), cert.serial_number)
        if found:
            yield found.problem(subject_of(cert), is_issuer=position > 0)
