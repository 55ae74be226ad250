"""The JWT keys on disk: one file says which there are, and the private halves lie beside the CA's other keys.

They are files, as the issuing keys are, and no rows of the record: the passphrase seals them there, and the file that
says which there are is replaced whole, so that no crash leaves half of a step. What is in the record can be put back to
an earlier day by a restore, and a key that was retired must not come back with it; for the same reason no backup has
them. A CA that was restored elsewhere makes new ones.
"""

from collections.abc import Collection, Mapping
from datetime import timedelta
from pathlib import Path

import msgspec
from attrs import define

from pki.errors import PkiError
from pki.jwt_svid.jwks import JwtAuthority, authorities_of
from pki.jwt_svid.rotation import KeyState, KeyTerm, Line
from pki.keys import KeyAlgorithm, MemoryKey, key_id
from pki.validity import parse_rfc3339, rfc3339_exactly
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateDirectory, StateError, read_file, write_whole
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.state.key_owner import owner_of

_log = logger("ca")
#: With an underscore, which no file of a backup has in its name.
_PREFIX = "jwt_"
_DIGITS = 16
_FORMAT = 1


class _Key(msgspec.Struct, forbid_unknown_fields=True):
    jwk: dict[str, str]
    algorithm: str
    published_at: str
    active_at: str | None
    retired_at: str | None
    longest: int
    """Seconds."""
    hurried: bool


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    root: str
    """:func:`pki.keys.key_id` of the root of that CA."""
    sequence: int
    keys: list[_Key]


@define(eq=False, repr=False)
class JwtFiles:
    """What it raises is :class:`StateError`, and names the file."""

    state: StateDirectory
    keys: KeyFiles
    root: str
    """:func:`pki.keys.key_id` of the CA's root: keys of another CA are nobody's here."""
    former: Collection[str] = ()
    """The same of its other roots, and of those that it had."""

    def load(self) -> tuple[Line, Mapping[str, MemoryKey]]:
        """The keys there are, and the private halves by kid, of those that sign or will.

        One whose private half is gone signs nothing any more, and what it has signed stays good. What a crash has
        left of a key that was never published is removed.
        """
        line, private = self._line(), dict[str, MemoryKey]()
        for key in line.keys:
            if key.state is KeyState.RETIRED:
                continue
            if self.keys.exists(_name(key.kid)):
                private[key.kid] = self._private(key)
                continue
            _log.warn(
                "The private half of the JWT key {kid} is gone from {path}: another signs from now on",
                event="jwt-key-gone",
                kid=key.kid,
                path=str(self.keys.path(_name(key.kid))),
            )
        self.keys.seal()
        wanted = {_name(kid) for kid in private}
        for path in sorted(self.keys.directory.glob(f"{_PREFIX}*.key")):
            if path.name not in wanted:
                self.keys.remove(path.name)
        return line, private

    def save(self, line: Line) -> None:
        """From here on these are the keys."""
        document = _Document(
            _FORMAT, self.root, line.sequence, [_written(key) for key in line.keys]
        )
        data = msgspec.json.format(msgspec.json.encode(document), indent=1)
        write_whole(self._path, data + b"\n", 0o600)

    def keep(self, kid: str, key: MemoryKey) -> None:
        """Keep the private half of a key that is about to be published."""
        self.keys.write(_name(kid), key)

    def remove(self, kid: str) -> None:
        """Delete a private half, if it is there."""
        self.keys.remove(_name(kid))

    @property
    def _path(self) -> Path:
        return self.state.ca / "jwt-keys"

    def _line(self) -> Line:
        if not self._path.exists():
            return Line()
        try:
            document = msgspec.json.decode(read_file(self._path, "the JWT keys"), type=_Document)
            if document.format != _FORMAT:
                raise StateError(
                    f"{self._path} was written by a later version of this program: upgrade twisted-mesh"
                )
            if document.root != self.root and document.root not in self.former:
                _log.warn(
                    "{path} lists JWT keys of another CA: new ones are made",
                    event="jwt-keys-foreign",
                    path=str(self._path),
                )
                return Line()
            return Line(tuple(map(_read, document.keys)), document.sequence)
        except StateError:
            raise
        except (msgspec.DecodeError, ValueError, OverflowError, PkiError):
            raise StateError(
                f"{self._path} is damaged: move it away, and new JWT keys are made at the next start; tokens that are "
                "out are refused then"
            ) from None

    def _private(self, key: KeyTerm) -> MemoryKey:
        name = _name(key.kid)
        private = self.keys.load(name, MemoryKey.from_pem)
        if key_id(private.public_key) != key.kid:
            raise StateError(
                f"{self.keys.path(name)} is not the JWT key {key.kid}{owner_of(private, self.state.ca)}: remove it, "
                "and another is made at the next start"
            )
        return private


def _name(kid: str) -> str:
    return f"{_PREFIX}{kid[:_DIGITS]}.key"


def _written(key: KeyTerm) -> _Key:
    return _Key(
        key.authority.to_jwk(),
        str(key.algorithm),
        rfc3339_exactly(key.published_at),
        None if key.active_at is None else rfc3339_exactly(key.active_at),
        None if key.retired_at is None else rfc3339_exactly(key.retired_at),
        int(key.longest.total_seconds()),
        key.is_hurried,
    )


def _read(said: _Key) -> KeyTerm:
    """Raises ValueError and :class:`PkiError`."""
    found: tuple[JwtAuthority, ...] = authorities_of([said.jwk])
    (authority,) = found
    if authority.kid != key_id(authority.public_key):
        raise ValueError("a JWT key of ours is called by its fingerprint")
    return KeyTerm(
        authority,
        KeyAlgorithm(said.algorithm),
        parse_rfc3339(said.published_at),
        None if said.active_at is None else parse_rfc3339(said.active_at),
        None if said.retired_at is None else parse_rfc3339(said.retired_at),
        timedelta(seconds=said.longest),
        said.hurried,
    )
