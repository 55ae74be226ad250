"""Paths from a leaf to the roots, found within a budget of time that a stranger cannot stretch.

Names, key identifiers and keys are compared before any signature is verified, and every signature
is paid for by what it costs (RFC 5280 section 6.1; RFC 4158 on building paths).
"""

from collections.abc import Iterator, Sequence
from enum import Enum, auto
from functools import lru_cache

from attrs import define, field
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from pki.errors import HOSTILE_INPUT
from pki.keys import verify_cost
from pki.svid.certificate import encoded_parts, identifier_objection, names_match

_MAX_DEPTH = 6
_MOST_PATHS = 8
#: Microseconds of one core, about what a handshake takes. In it are three signatures of P-384, one more than a path of
#: the mesh has; or as many of other kinds as a path may have.
BUDGET = 1_600
#: For a look at one certificate above another.
_LOOK = 2
#: For what else it costs to verify and judge a certificate, whatever the key: it is decoded, copied and looked through.
CHECK = 100

Path = tuple[x509.Certificate, ...]


class Link(Enum):
    """How a certificate stands to one that has the name of its issuer."""

    SIGNED = auto()
    UNPROVEN = auto()
    """The issuer's key is weak at a glance. It is not verified, and a path with such a key is refused for it."""
    CONTRADICTED = auto()
    """The certificate identifies another key, or another certificate of the issuer."""
    FOREIGN = auto()
    """The signature is not of the issuer's key."""
    UNAFFORDABLE = auto()
    """The budget was spent before."""


@define(eq=False, repr=False)
class PathSearch:
    """One search: its budget is for everything that is verified in it."""

    presented: Sequence[x509.Certificate]
    """Leaf first."""
    roots: Sequence[x509.Certificate]
    left: int = BUDGET
    """Microseconds that may still be spent."""
    is_exhausted: bool = field(default=False, init=False)
    furthest: Path = field(init=False)
    """The longest path that was found, whether or not it leads to a root."""
    _signed: dict[tuple[int, bytes], bool] = field(factory=dict, init=False)
    """By certificate and issuer's key: CAs that certify each other in circles have few keys."""
    _costs: dict[int, int | None] = field(factory=dict, init=False)
    """What it costs to verify with the key of a certificate, by the certificate's identity."""
    _encoded: dict[int, tuple[bytes, bytes, bytes]] = field(factory=dict, init=False)
    """Issuer, subject and key, by the certificate's identity."""
    _candidates: tuple[x509.Certificate, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.furthest = (self.presented[0],)
        # The root may be among what was presented, and is no other candidate then.
        others = (cert for cert in self.presented[1:] if cert not in self.roots)
        self._candidates = (*self.roots, *dict.fromkeys(others))

    def paths(self) -> list[Path]:
        """Paths from the leaf to a root, depth first: as many as can be paid for, and no more than a few."""
        found: list[Path] = []
        stack: list[Path] = [self.furthest]
        while stack and len(found) < _MOST_PATHS:
            path = stack.pop()
            for candidate, link in reversed(list(self.above(path))):
                if link not in (Link.SIGNED, Link.UNPROVEN):
                    continue
                longer = (*path, candidate)
                if candidate in self.roots:
                    found.append(longer)
                elif len(path) < _MAX_DEPTH:
                    stack.append(longer)
                    if len(longer) > len(self.furthest):
                        self.furthest = longer
        return found

    def above(self, path: Path) -> Iterator[tuple[x509.Certificate, Link]]:
        """What has the name of the issuer of the path's end, and how the two stand to each other."""
        for candidate in self._candidates:
            if not self._pays(_LOOK):
                return
            if candidate not in path and self._parts(path[-1])[0] == self._parts(candidate)[1]:
                yield candidate, self._link(path[-1], candidate)

    def is_signed(self, cert: x509.Certificate, issuer: x509.Certificate) -> bool:
        """Whether ``issuer``'s key signed ``cert``; False also where that cannot be paid for."""
        if self.is_exhausted:
            return False  # no key is decoded for nothing
        return self._is_decodable(issuer) and self._verified(cert, issuer) is Link.SIGNED

    def _link(self, cert: x509.Certificate, issuer: x509.Certificate) -> Link:
        if identifier_objection(cert, issuer):
            return Link.CONTRADICTED
        return self._verified(cert, issuer) if self._is_decodable(issuer) else Link.FOREIGN

    def _verified(self, cert: x509.Certificate, issuer: x509.Certificate) -> Link:
        cost = self._costs[id(issuer)]
        if cost is None:
            return Link.UNPROVEN
        asked = id(cert), self._parts(issuer)[2]
        if asked not in self._signed:
            # It is paid for also where it is known: a verdict does not depend on what was asked before.
            if not self._pays(CHECK + cost):
                return Link.UNAFFORDABLE
            is_below_a_root = issuer in self.roots and cert is not self.presented[0]
            self._signed[asked] = (_is_certified if is_below_a_root else signed_by)(cert, issuer)
        return Link.SIGNED if self._signed[asked] else Link.FOREIGN

    def _is_decodable(self, cert: x509.Certificate) -> bool:
        """Whether its key can be read; what it is and costs is then known."""
        if id(cert) not in self._costs:
            try:
                self._costs[id(cert)] = verify_cost(cert.public_key())
            except HOSTILE_INPUT:
                return False
        return True

    def _parts(self, cert: x509.Certificate) -> tuple[bytes, bytes, bytes]:
        if id(cert) not in self._encoded:
            self._encoded[id(cert)] = encoded_parts(cert)
        return self._encoded[id(cert)]

    def _pays(self, cost: int) -> bool:
        if cost > self.left:
            self.is_exhausted = True
            return False
        self.left -= cost
        return True


def with_issuers(
    path: Sequence[x509.Certificate],
) -> Iterator[tuple[x509.Certificate, x509.Certificate]]:
    """Each certificate of a path that leads to a root, with the one that issued it: the root, with itself."""
    return zip(path, (*path[1:], *path[-1:]), strict=True)


def issued_by(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether ``issuer``'s name and key made ``cert``, whatever it costs to find out."""
    return names_match(cert, issuer) and signed_by(cert, issuer)


def _is_certified(cert: x509.Certificate, root: x509.Certificate) -> bool:
    """:func:`signed_by`, remembered where it is so: below a root that is believed there are few such CAs."""
    try:
        _demand_certified(cert, root)
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=64)
def _demand_certified(cert: x509.Certificate, root: x509.Certificate) -> None:
    """Raises InvalidSignature, which is not remembered, so that no stranger pushes out what is known."""
    if not signed_by(cert, root):
        raise InvalidSignature


def signed_by(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether ``issuer``, which has the name that ``cert`` gives its issuer, has the key that signed it."""
    try:
        cert.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    except HOSTILE_INPUT:
        return False
    return True
