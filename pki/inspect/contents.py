"""What a file holds, block by block: a damaged one hides none of the others."""

import re
from collections.abc import Iterator

from attrs import frozen

from pki.der import SEQUENCE, Block, blocks
from pki.errors import Malformed
from pki.inspect.ber import Node, definite, nodes
from pki.pem import ANSWER, CERTIFICATE, CRL, PRIVATE_KEY, REQUEST

_BEGIN = re.compile(rb"(?=-----BEGIN)")
_LABEL = re.compile(rb"-----BEGIN[ \t]*([A-Z0-9 ]{1,64}?)[ \t]*-----")
#: OpenSSL's own kind: a certificate, and then what it trusts it for.
TRUSTED = "TRUSTED CERTIFICATE"
_SHOWN = (CERTIFICATE, REQUEST, CRL, ANSWER)


@frozen
class Held:
    """One thing in a file."""

    label: str
    """As PEM labels it; empty where not even that can be read."""
    der: bytes
    """Empty for a private key, and for what cannot be read."""
    why: str = ""
    """Why it cannot be read; else empty."""


def held(data: bytes) -> tuple[Held, ...]:
    """What is in a PEM or DER file, in its order, at least one thing that can be read or one that cannot.

    Raises :class:`Malformed` where it is no PEM and no DER.
    """
    try:
        return tuple(_whole(block) for block in blocks(data))
    except Malformed as error:
        is_der = data[:1] == bytes((SEQUENCE,))
        found = tuple(_from_der(data) if is_der else _from_pem(data))
        if not any(part.label in _SHOWN for part in found) if is_der else len(found) < 2:
            raise error from None
        return found


def _whole(block: Block) -> Held:
    return Held(block.label, block.der)


def _from_pem(data: bytes) -> Iterator[Held]:
    """Each block as if it were alone."""
    for part in _BEGIN.split(data):
        if not part.startswith(b"-----BEGIN"):
            continue
        try:
            yield from map(_whole, blocks(part))
        except Malformed as error:
            label = _LABEL.match(part)
            yield Held(label[1].decode() if label else "", b"", str(error))


def _from_der(data: bytes) -> Iterator[Held]:
    """Each element of those that follow each other."""
    at = 0
    try:
        for node in nodes(data):
            yield _labelled(node)
            at += len(node.whole)
    except Malformed as error:
        yield Held("", b"", f"{len(data) - at} bytes from byte {at} on are no DER: {error}")


def _labelled(node: Node) -> Held:
    label = _label_of(node.whole)
    if label is None:
        try:
            label = _label_of(definite(node))
        except Malformed:
            label = None
    if label is None:
        return Held("", b"", f"what begins at byte {node.at} is nothing that is known here")
    # As it came: what its digests are over.
    return Held(label, b"" if label == PRIVATE_KEY else node.whole)


def _label_of(der: bytes) -> str | None:
    try:
        (block,) = blocks(der)
    except (Malformed, ValueError):
        return None
    return block.label
