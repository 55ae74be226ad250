"""Whose pins the CA's paths break: those that are served, and those that are to come."""

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from functools import lru_cache

from attrs import define
from cryptography import x509

from pki.codes import Code
from pki.errors import Problem, printable
from pki.issuing.authority import Authority
from pki.issuing.root_line import Phase
from pki.svid.pin_conflict import BrokenPin
from pki.svid.spki_pin import SpkiHash
from pki.validity import spoken_duration
from twisted_mesh.ca.authorities import Authorities, CurrentAuthorities
from twisted_mesh.ca.pin_reports import PinReports

Path = frozenset[SpkiHash]
"""The keys above a leaf, the root's too."""

#: So many are named at once.
_MOST_NAMED = 10
_of = lru_cache(maxsize=64)(SpkiHash.of)


def paths_to_come(authorities: Authorities) -> tuple[Path, ...]:
    """The paths that a rotation of the root leads to from where it is, in the order in which they will be served."""
    line = authorities.root_line
    if line.new is None or line.phase is Phase.SWITCHED:
        return ()
    if line.phase is Phase.ACTIVATED:
        return (_path(authorities, authorities.issuing, line.new),)
    roots = line.old, line.new
    if authorities.prepared is not None:
        return tuple(_path(authorities, authorities.prepared, root) for root in roots)
    issuing = frozenset(map(SpkiHash.parse, filter(None, [line.announced])))
    return tuple(issuing | {_of(root)} for root in roots)


def _path(authorities: Authorities, issuing: Authority, root: x509.Certificate) -> Path:
    """Below that root, which may not have certified it yet."""
    for certificate in authorities.certificates_of(issuing):
        path = authorities.root_line.path_of(certificate)
        if path[-1:] == (root,):
            return _keys(path)
    return _keys((issuing.certificate, root))


def _keys(certificates: Iterable[x509.Certificate]) -> Path:
    return frozenset(map(_of, certificates))


def named(broken: Sequence[BrokenPin]) -> str:
    """Whose they are, in bounded length."""
    more = ", …" if len(broken) > _MOST_NAMED else ""
    return printable(", ".join(map(str, broken[:_MOST_NAMED])) + more, 2000)


@define(eq=False, repr=False)
class PinnedPaths:
    """Asks what endpoints have told of their pins."""

    reports: PinReports
    current: CurrentAuthorities

    def of_now(self) -> tuple[BrokenPin, ...]:
        """Those that are broken by what issues now."""
        authorities = self.current.current
        return self._broken([_path(authorities, authorities.issuing, authorities.root)])

    def of_successor(self) -> tuple[BrokenPin, ...]:
        """Those that the prepared issuing CA would break."""
        authorities = self.current.current
        if authorities.prepared is None:
            return ()
        return self._broken([_path(authorities, authorities.prepared, authorities.root)])

    def problem(self, can_wait_for: timedelta | None) -> Problem | None:
        """What is to be told: a successor that is due and would break pins, or pins that are broken now.

        ``can_wait_for`` is how long the successor can still wait; None where it is not due.
        """
        remedy = "add the pins that mesh-ctl ca root status announces there, or put --peer-pin-mode to report there"
        if can_wait_for is not None and (broken := self.of_successor()):
            return Problem(
                Code.ROOT_BREAKS_PIN,
                "the next issuing CA is due, and its key is not among pins that are enforced; it waits for "
                f"{spoken_duration(can_wait_for)} more, and then it issues all the same: {named(broken)}",
                remedy,
            )
        if broken := self.of_now():
            return Problem(
                Code.ROOT_BREAKS_PIN,
                f"pins are enforced that the CA keys in use are not among: {named(broken)}",
                remedy,
            )
        return None

    def of_rotation(self, _: Collection[str] = ()) -> tuple[str, ...]:
        """Those that the steps of the root's rotation would break which are still to come, in words."""
        return tuple(map(str, self._broken(paths_to_come(self.current.current))))

    def _broken(self, paths: Iterable[Path]) -> tuple[BrokenPin, ...]:
        found = (broken for path in paths for broken in self.reports.broken_by(path))
        return tuple(dict.fromkeys(found))
