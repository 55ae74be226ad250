"""What ``--root-key``, ``--issuing-key`` and ``--audit-key`` say: an algorithm, and where such keys are made.

``ec-p384`` is a key in a file. ``pkcs11:token=mesh?module-path=/usr/lib/module.so&algorithm=ec-p384`` (RFC 7512) and
``signer:unix:/run/mesh-signer.sock?algorithm=ec-p384`` name a store; with ``object=`` or ``id=`` of a token, or
``key=`` of a signer, a key that is there already.
"""

import re
from collections.abc import Collection
from typing import Self
from urllib.parse import unquote

from attrs import evolve, field, frozen

from pki.errors import Malformed, discreet
from pki.keys import KeyAlgorithm
from pki.keys.reference import SCHEMES

#: One line of printable ASCII, as URIs are.
_URI = re.compile(r"[!-~]{1,2000}", re.ASCII)
#: Of a token's URI, what names an object and no token.
_OF_OBJECTS = ("object", "id", "type")


@frozen
class KeySpec:
    """Which key is wanted. ``str`` shows it without what only this machine is told, like the path of a module."""

    algorithm: KeyAlgorithm
    store: str | None = field(default=None)
    """The URI of the store, with its query; None for a file."""
    key: str | None = None
    """The URI of a key that is there already, as references have it; None where one is made."""

    @classmethod
    def parse(
        cls,
        text: str,
        option: str,
        default: KeyAlgorithm,
        known: Collection[KeyAlgorithm] = tuple(KeyAlgorithm),
    ) -> Self:
        """``default`` is the algorithm of a key in a store that names none. Raises :class:`Malformed`."""
        if text.partition(":")[0] not in SCHEMES:
            return cls(KeyAlgorithm.parse(text, option, known))
        store, asked = parse_store(text, option)
        algorithm = default
        if (name := asked.get("algorithm")) is not None:
            algorithm = KeyAlgorithm.parse(name, f"{option}'s algorithm=", known)
        return cls(algorithm, store, _key_of(text, asked))

    @property
    def is_stored(self) -> bool:
        """Whether the key is in a store and not in a file."""
        return self.store is not None

    def in_file(self) -> Self:
        """The same algorithm, in a file."""
        return evolve(self, store=None, key=None)

    def __str__(self) -> str:
        if self.store is None:
            return str(self.algorithm)
        return f"{self.algorithm} in {without_query(self.key or self.store)}"


def parse_store(text: str, option: str) -> tuple[str, dict[str, str]]:
    """The URI of a store, without what names a key in it; and what its query asks. Raises :class:`Malformed`."""
    if not _URI.fullmatch(text):
        raise Malformed(f"{option} takes a URI, which is one line of printable ASCII")
    scheme, _, rest = text.partition(":")
    if scheme not in SCHEMES:
        raise Malformed(
            f"{option} takes a URI that begins with {' or '.join(f'{s}:' for s in SCHEMES)}"
        )
    place, _, query = rest.partition("?")
    if "pin-value" in unquote(text):
        raise Malformed(
            f"{option} has a pin-value: whoever lists processes reads it, so that this PIN is known now. Change it, "
            "and name a file (--token-pin-file, or pin-source=file:/PATH)"
        )
    asked: dict[str, str] = {}
    kept = []
    for attribute in filter(None, query.split("&")):
        name, _, value = attribute.partition("=")
        if name in asked:
            raise Malformed(f"{option} has {discreet(name, 50)} twice")
        asked[name] = unquote(value)
        if name not in ("algorithm", "key"):
            kept.append(attribute)
    if scheme == "pkcs11":
        place = ";".join(a for a in place.split(";") if a.partition("=")[0] not in _OF_OBJECTS)
    return f"{scheme}:{place}{'?' * bool(kept)}{'&'.join(kept)}", asked


def without_query(uri: str) -> str:
    """A URI for people: what only this machine is told, how to get there, is left out."""
    return uri.partition("?")[0]


def _key_of(text: str, asked: dict[str, str]) -> str | None:
    scheme, _, rest = text.partition(":")
    if scheme == "signer":
        return f"signer:{asked['key']}" if asked.get("key") else None
    attributes = rest.partition("?")[0].split(";")
    if any(a.partition("=")[0] in ("object", "id") for a in attributes):
        return f"{scheme}:{';'.join(attributes)}"
    return None
