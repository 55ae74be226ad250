"""Requests and answers about where the CA's keys are. As :mod:`twisted_mesh.api.messages` has them."""

from typing import Annotated

import msgspec
from msgspec import Struct


class ProveKeys(Struct, frozen=True):
    """``POST /api/v1/ca/keys``."""

    nonce: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32,64}$")]
    """What each key is to sign, in hex; drawn by who asks, just then."""


class KeyRow(Struct, frozen=True, omit_defaults=True):
    """One key of the CA's: where it is, and that it is there. Words are absent, and flags null, where nobody says."""

    purpose: str
    """``root``, ``issuing`` (which issues now), ``prepared``, ``retired`` or ``audit``."""
    name: str
    """The subject of its certificate, or the name of the log."""
    key_id: str
    algorithm: str
    kind: str
    """``file``, ``pkcs11``, ``signer``, or ``away`` for a root's key that was taken away."""
    signature: str | None = None
    """Over :func:`pki.keys.probe.probe` of the nonce, in base64; null where there is none."""
    problem: str = ""
    """Why there is none."""
    certificate: str = ""
    """In PEM; what the signature verifies by."""
    verifier: str = ""
    """Of the log's key, in place of a certificate (C2SP signed-note)."""
    uri: str = ""
    store: str = ""
    manufacturer: str = ""
    model: str = ""
    serial: str = ""
    label: str = ""
    id: str = ""
    extractable: bool | None = None
    ever_extractable: bool | None = None
    sensitive: bool | None = None
    made_there: bool | None = None
    own_pin: str = ""
    """The key that the CA proves itself by at the signer (``mesh-signer --client-pin``)."""


class KeyRows(Struct, frozen=True):
    """Every key of the CA's that outlives a day, but for those of JWT-SVIDs."""

    keys: list[KeyRow]


class RotateIssuing(Struct, frozen=True):
    """``POST /api/v1/ca/rotate-issuing``; there is nothing to say."""


class IssuingRotated(Struct, frozen=True):
    """What issues now."""

    issuing: str
    """:func:`pki.keys.key_id` of its key."""
    subject: str
    not_after: str
    replaced: str
    """The key id of the one before, which is retired."""
    key: KeyRow
    """Where its key is."""
