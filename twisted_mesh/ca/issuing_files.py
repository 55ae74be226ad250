"""The issuing CAs on disk: the active one, its successor, and those that are retired.

``issuing.crt`` says which generation is active, and one rename replaces it. Beside it lie
``issuing-N.crt`` and ``private/issuing-N.key``: prepared if N is later than the active generation,
retired if it is earlier. A key is known by its certificate, not by its name alone: each certificate
finds its key whatever write was the last before a crash.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from attrs import define
from cryptography import x509

from pki.errors import ANY_ERROR, HOSTILE_INPUT, PkiError
from pki.issuing.authority import Authority
from pki.issuing.profile import generation_of
from pki.issuing.root_line import RootLine
from pki.keys import KeptKey, MemoryKey, key_id, spki_der
from pki.svid.x509svid import certificates_pem, is_certified, load_certificates, uri_names
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateDirectory, StateError, read_file, write_whole
from twisted_mesh.state.key_files import KeyFiles, remove_file
from twisted_mesh.state.key_owner import owner_of

_log = logger("ca")
_NUMBERED = re.compile(r"issuing-([1-9][0-9]{0,8})\.crt", re.ASCII)
ACTIVE = "issuing"


class WrongState(StateError):
    """The files of the state directory do not fit each other, or not these options."""


@define(eq=False, repr=False)
class IssuingFiles:
    """The files of the issuing CAs below the roots of ``line``, each with its certificate below the served one.

    What it raises is :class:`StateError`, and names the file.
    """

    state: StateDirectory
    keys: KeyFiles
    line: RootLine

    def load(self, now: datetime) -> tuple[Authority, tuple[Authority, ...]]:
        """The active one, and the others, the latest generation first.

        One of the others that cannot be used is told and left alone: the active one can do without.
        """
        certificate = read_certificate(self.state.ca / "issuing.crt")
        active = self._authority(certificate, ACTIVE)
        others = []
        for generation in sorted(self._numbers(), reverse=True):
            name = f"{ACTIVE}-{generation}"
            try:
                found = read_certificate(self.state.ca / f"{name}.crt")
                if _spki(found) == _spki(certificate):
                    continue  # a copy of the active one: a switch was cut short
                if generation_of(found.subject) != generation:
                    raise WrongState(f"{self.state.ca / name}.crt is of another generation")
                others.append(self._authority(found, name))
            except PkiError as error:
                _tell_unusable(error)
        self._tidy(active)
        self.follow(active, others)
        return active, tuple(others)

    def follow(self, active: Authority, others: Iterable[Authority]) -> None:
        """Have each file hold the certificate by which its CA is served now."""
        for authority in (active, *others):
            name = ACTIVE if authority is active else _name(authority)
            path = self.state.ca / f"{name}.crt"
            if path.exists() and read_certificate(path) != authority.certificate:
                self._write_certificate(name, authority)

    def next_number(self) -> int:
        """The generation that comes next; also one that cannot be used has used up its number."""
        active = read_certificate(self.state.ca / "issuing.crt")
        return 1 + max(generation_of(active.subject), *self._numbers(), 0)

    def request_of(self, generation: int) -> bytes | None:
        """The CSR of a generation that waits for a root elsewhere; None where none was made."""
        path = self._request_path(generation)
        return read_file(path, "the CSR") if path.exists() else None

    def has_request(self) -> bool:
        """Whether a CSR waits for its certificate."""
        return any(self.state.ca.glob(f"{ACTIVE}-*.csr"))

    def keep_request(self, generation: int, csr: bytes) -> None:
        """Show the same CSR from now on."""
        write_whole(self._request_path(generation), csr, 0o644)

    def forget_request(self, generation: int) -> None:
        """It was answered."""
        remove_file(self._request_path(generation))

    def forget_drawn(self, generation: int) -> list[KeptKey]:
        """Delete the file of the key that was drawn for a generation and has no certificate, and its CSR; the key."""
        if (self.state.ca / f"{ACTIVE}-{generation}.crt").exists():
            return []
        self.forget_request(generation)
        return self._forgotten(f"{ACTIVE}-{generation}")

    def _request_path(self, generation: int) -> Path:
        return self.state.ca / f"{ACTIVE}-{generation}.csr"

    def keep_certificate(self, prepared: Authority) -> None:
        """From here on the next generation is there; its key was kept before."""
        self._write_certificate(_name(prepared), prepared)

    def switch(self, active: Authority, successor: Authority) -> None:
        """Make ``successor`` the active one. Done again after a failure, it ends where it should."""
        # First a second copy of the active one's files, so that both keys have a file at each moment.
        self.keys.write(f"{_name(active)}.key", _kept_key(active))
        self._write_certificate(_name(active), active)
        self.keys.write(f"{ACTIVE}.key", _kept_key(successor))
        self._write_certificate(ACTIVE, successor)
        self._remove(_name(successor))

    def forget(self, retired: Authority) -> None:
        """Delete its key. The certificate too: it has ended, and nobody asks for it any more."""
        self._remove(_name(retired))

    def have(self, key_ids: Collection[str]) -> bool:
        """Whether there are certificates of these besides the active one's."""
        return any(True for _ in self._named(key_ids))

    def forget_keys(self, key_ids: Collection[str]) -> list[KeptKey]:
        """Delete the files of these, and their certificates, wherever they lie; the active one's stay. The keys."""
        return [key for name in list(self._named(key_ids)) for key in self._forgotten(name)]

    def _forgotten(self, name: str) -> list[KeptKey]:
        """Remove the files; the key, for whoever deletes it where it is, if that is somewhere else."""
        found = []
        with suppress(StateError):
            found = [self.keys.kept(f"{name}.key")]
        self._remove(name)
        return found

    def _named(self, key_ids: Collection[str]) -> Iterator[str]:
        for generation in self._numbers():
            name = f"{ACTIVE}-{generation}"
            certificate = read_certificate(self.state.ca / f"{name}.crt")
            if key_id(certificate.public_key()) in key_ids:
                yield name

    def _remove(self, name: str) -> None:
        # The certificate first: a key that is left over is a key without use.
        remove_file(self.state.ca / f"{name}.crt")
        self.keys.remove(f"{name}.key")

    def _tidy(self, active: Authority) -> None:
        """Remove the second copy of the active one's files, which a crash has left."""
        name = _name(active)
        if not self.keys.exists(f"{name}.key") and not (self.state.ca / f"{name}.crt").exists():
            return
        try:
            if is_certified(self.keys.kept(f"{ACTIVE}.key"), active.certificate):
                self._remove(name)
        except StateError:
            pass  # only the copy has the key: the next switch puts that right

    def _numbers(self) -> list[int]:
        matches = (_NUMBERED.fullmatch(path.name) for path in self.state.ca.glob("issuing-*.crt"))
        return [int(match[1]) for match in matches if match]

    def _write_certificate(self, name: str, authority: Authority) -> None:
        write_whole(self.state.ca / f"{name}.crt", certificates_pem([authority.certificate]), 0o644)

    def _authority(self, certificate: x509.Certificate, name: str) -> Authority:
        path = self.state.ca / f"{name}.crt"
        key = self._key(certificate, name)
        try:
            served = self.served(certificate)
            return Authority(served, key, self.line.chain_of(served))
        except ANY_ERROR:  # a wrong key, another root, a broken signature: one remedy for all
            owner = "" if is_certified(key, certificate) else owner_of(key, self.state.ca)
            raise WrongState(
                f"{path} does not fit {self.keys.path(name)}.key and {self.state.root_certificate}{owner}: "
                "restore all three from one backup"
            ) from None

    def served(self, certificate: x509.Certificate) -> x509.Certificate:
        """The certificate of the same key below the root that chains lead to, where there is one.

        Raises :class:`WrongState` for one that none of our roots has signed.
        """
        if self.line.root_of(certificate) is None:
            raise WrongState("no root of ours has signed that issuing CA")
        for candidate in (certificate, *self.line.certificates_of(_spki(certificate))):
            if self.line.root_of(candidate) == self.line.served:
                return candidate
        return certificate

    def _key(self, certificate: x509.Certificate, name: str) -> KeptKey:
        """The certificate's key. In the midst of a switch it is found under its number only."""
        numbered = f"{ACTIVE}-{generation_of(certificate.subject)}.key"
        try:
            key = self.keys.kept(f"{name}.key")
            if is_certified(key, certificate) or not self.keys.exists(numbered):
                return key
        except StateError:
            if not self.keys.exists(numbered):
                raise
        return self.keys.kept(numbered)


def read_certificate(path: Path) -> x509.Certificate:
    """The one certificate of a file. Raises :class:`StateError`, and :class:`pki.errors.Malformed`."""
    found = load_certificates(read_file(path, "the certificate"), str(path))
    if len(found) != 1:
        raise WrongState(f"{path} holds {len(found)} certificates instead of one")
    try:
        uri_names(found[0])
    except HOSTILE_INPUT:
        raise WrongState(
            f"{path} holds a certificate that cannot be decoded: restore it from a backup"
        ) from None
    return found[0]


def _spki(certificate: x509.Certificate) -> bytes:
    return spki_der(certificate.public_key())


def _name(authority: Authority) -> str:
    return f"{ACTIVE}-{generation_of(authority.certificate.subject)}"


def _kept_key(authority: Authority) -> KeptKey:
    if not isinstance(authority.key, MemoryKey | StoredKey):
        raise WrongState(f"the key of {authority.name} has no file")
    return authority.key


def _tell_unusable(error: PkiError) -> None:
    _log.warn(
        "An issuing CA that is not the active one cannot be used: {reason}",
        event="issuing-unusable",
        reason=str(error),
    )
