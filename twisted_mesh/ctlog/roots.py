"""The roots below which certificates are taken, as their files have them: roots rotate while the log runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from attrs import define, field, frozen
from cryptography import x509

from pki.codes import Code
from pki.errors import PkiError, Problem
from pki.spiffe import TrustDomain
from pki.svid.x509svid import load_certificates, subject_of
from twisted_mesh.ctlog.errors import CtLogStateError
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import read_trusted

_log = logger("ctlog")
_LARGEST = 4 * 1024 * 1024


@frozen
class RootFile:
    """Where roots are. ``RootFile.parse(str(x)) == x``."""

    path: Path
    trust_domain: TrustDomain | None = None
    """Whose they are; None where they are those of every accepted CA."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """``FILE`` or ``TRUST-DOMAIN=FILE``. Raises :class:`PkiError`."""
        domain, equals, path = text.partition("=")
        if not equals or "/" in domain:
            return cls(Path(text))
        return cls(Path(path), TrustDomain.parse(domain))

    def __str__(self) -> str:
        return f"{self.trust_domain}={self.path}" if self.trust_domain else str(self.path)


@define(eq=False, repr=False)
class AcceptedRoots:
    """What the files hold; a file that cannot be read leaves what it held before."""

    files: Sequence[RootFile]
    ca: Path
    """The directory of a CA beside us, whose roots they are where no file is named."""
    problem: Problem | None = field(default=None, init=False)
    _held: dict[RootFile, tuple[object, tuple[x509.Certificate, ...]]] = field(
        factory=dict, init=False
    )

    def look(self) -> bool:
        """Read again what has changed; whether anything has."""
        problems: list[str] = []
        before = self._roots()
        files = self._files()
        is_waiting = not self.files and not before and not files[0].path.exists()
        for gone in [file for file in self._held if file not in files]:
            del self._held[gone]
        for file in () if is_waiting else files:
            try:
                self._read(file)
            except PkiError as error:
                problems.append(str(error))
        if not self._roots() and not problems:
            problems.append(f"there are no roots yet, in {files[0].path}")
        self._tell("; ".join(problems), is_waiting=is_waiting)
        now = self._roots()
        if changed := now != before:
            _log.info(
                "Certificates are taken below {roots}",
                event="ctlog-roots",
                roots=", ".join(subject_of(root) for root in now) or "no root",
            )
        return changed

    def _tell(self, detail: str, *, is_waiting: bool) -> None:
        told = self.problem.detail if self.problem is not None else ""
        self.problem = None
        if not detail:
            return
        remedy = (
            "name a file with the CA's roots in PEM (--roots), which only we and root can write"
        )
        if is_waiting:
            remedy = (
                "start the CA on this state directory, and they are taken up without a restart; those of a CA "
                "elsewhere are named by --roots FILE"
            )
        self.problem = Problem(Code.UNKNOWN_TRUST_DOMAIN, detail, remedy)
        if detail == told:
            return
        if is_waiting:
            _log.info(
                "{detail}: {remedy}", event="ctlog-no-roots-yet", detail=detail, remedy=remedy
            )
        else:
            _log.error(
                "Roots cannot be read, and what was read before counts: {detail}",
                event="ctlog-roots-unreadable",
                detail=detail,
            )

    def of(self, trust_domain: TrustDomain) -> tuple[x509.Certificate, ...]:
        """Those below which certificates of that trust domain are taken."""
        return tuple(
            root
            for file, (_, roots) in self._held.items()
            if file.trust_domain in (None, trust_domain)
            for root in roots
        )

    def all(self) -> tuple[x509.Certificate, ...]:
        """Each once."""
        return self._roots()

    def _roots(self) -> tuple[x509.Certificate, ...]:
        return tuple(dict.fromkeys(root for _, roots in self._held.values() for root in roots))

    def _files(self) -> Sequence[RootFile]:
        if self.files:
            return self.files
        # Where they rotate, the CA keeps the other ones beside the one that chains lead to.
        return [
            RootFile(path) for path in (self.ca / "root.crt", *sorted(self.ca.glob("root-*.crt")))
        ]

    def _read(self, file: RootFile) -> None:
        """Raises :class:`PkiError`."""
        try:
            found = file.path.stat()
        except OSError as error:
            raise CtLogStateError(f"{file.path} cannot be read ({error.strerror})") from None
        state = (found.st_ino, found.st_mtime_ns, found.st_size)
        if file in self._held and self._held[file][0] == state:
            return
        data = read_trusted(file.path, "--roots", _LARGEST)
        roots = load_certificates(data, f"--roots {file.path}")
        self._held[file] = state, tuple(root for root in roots if root.issuer == root.subject)
