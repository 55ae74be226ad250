"""Trust bundles: the roots and JWT authorities of one trust domain, as PEM and as the SPIFFE bundle's JWKS.

Format: SPIFFE Trust Domain and Bundle, section 4; JWK members by RFC 7517 and RFC 7518.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Self, TypeGuard

from attrs import evolve, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Malformed
from pki.jwt_svid.jwks import JwtAuthority, authorities_of, write_jwks
from pki.keys import jwk_members, kind_of
from pki.spiffe import TrustDomain
from pki.svid.spki_pin import SpkiHash
from pki.svid.x509svid import (
    certificates_pem,
    extension,
    issuer_of,
    load_certificates,
    spiffe_id_of,
    subject_of,
)

#: The ``use`` of roots in a SPIFFE bundle.
X509_SVID = "x509-svid"
_MOST_ANNOUNCED = 64


class BadBundle(Malformed):
    """The document is not a SPIFFE bundle, or a root in it is no CA."""

    code = Code.BAD_BUNDLE


@frozen
class TrustBundle:
    """The roots of one trust domain. It may be empty: then nobody in that domain is believed."""

    trust_domain: TrustDomain
    roots: tuple[x509.Certificate, ...]
    sequence: int = 0
    """Grows with each change of the roots and of the JWT authorities."""
    refresh_hint: int | None = None
    """How often to fetch it again, in seconds."""
    jwt_authorities: tuple[JwtAuthority, ...] = ()
    """What verifies its JWT-SVIDs. For a verdict on a certificate they count nothing."""
    next_keys: tuple[str, ...] = ()
    """Pins (``sha256/BASE64``) of CA keys that are not in use yet. For a verdict they count nothing."""

    @classmethod
    def from_pem(
        cls, trust_domain: TrustDomain, data: bytes, what: str = "the trust bundle"
    ) -> Self:
        """The roots of a PEM or DER file, which ``what`` names.

        An issuing CA that stands beside its root is passed over: it is believed through it. Raises
        :class:`Malformed` or :class:`BadBundle`, which say what the file is in place of roots.
        """
        found = load_certificates(data, what)
        if objections := [said for said in map(_no_root, found) if said]:
            raise BadBundle(f"{what}: {objections[0]}: {_NAME_ROOTS}")
        roots = tuple(cert for cert in found if cert.issuer == cert.subject)
        names = {root.subject for root in roots}
        for cert in found:
            if cert.issuer != cert.subject and cert.issuer not in names:
                raise BadBundle(
                    f"{what}: {subject_of(cert)} is an issuing CA, which {issuer_of(cert)} has certified, and no root: "
                    f"{_NAME_ROOTS}"
                )
        return cls(trust_domain, roots)

    def to_pem(self) -> bytes:
        """The roots one after the other; :meth:`from_pem` reads them back."""
        return certificates_pem(self.roots)

    @classmethod
    def from_jwks(cls, trust_domain: TrustDomain, document: bytes | str) -> Self:
        """Keys that are of another use, damaged or inconsistent are passed over; the rest stay.

        Raises :class:`BadBundle` where the document as a whole is no bundle, where a key has several
        certificates, and where of keys for X.509 none is left: nobody would be believed, in silence.
        """
        try:
            bundle = json.loads(document)
        except (ValueError, RecursionError):
            raise BadBundle("the SPIFFE bundle is not JSON") from None
        return cls.from_jwks_object(trust_domain, bundle)

    @classmethod
    def from_jwks_object(cls, trust_domain: TrustDomain, bundle: object) -> Self:
        """As :meth:`from_jwks`, from the decoded document."""
        if not isinstance(bundle, dict) or not isinstance(bundle.get("keys"), list):
            raise BadBundle(
                "a SPIFFE bundle is a JSON object with a list of keys (RFC 7517 section 5)"
            )
        sequence = bundle.get("spiffe_sequence", 0)
        hint = bundle.get("spiffe_refresh_hint")
        for name, value in (
            ("spiffe_sequence", sequence),
            ("spiffe_refresh_hint", 0 if hint is None else hint),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise BadBundle(f"{name} is not a whole number")
        keys = [key for key in bundle["keys"] if _is_for_x509(key)]
        for key in keys:
            chain = key.get("x5c")
            if isinstance(chain, list) and len(chain) > 1:
                raise BadBundle(
                    f"a key of the SPIFFE bundle has {len(chain)} certificates in x5c: a root stands alone, each in a "
                    "key of its own (X509-SVID section 6.1)"
                )
        roots = [root for key in keys if (root := root_of_jwk(key)) is not None]
        if keys and not roots:
            raise BadBundle(
                f"none of the {len(keys)} keys for X.509 in the SPIFFE bundle holds a root that can be believed"
            )
        return cls(
            trust_domain,
            tuple(dict.fromkeys(roots)),
            sequence,
            hint,
            authorities_of(bundle["keys"]),
            announced_pins(bundle.get("mesh_next_keys")),
        )

    def for_others(self) -> Self:
        """As whoever may know no post-quantum keys is shown it: without such roots.

        RFC 7517 section 5 has a reader pass over keys of a kind that he does not know. go-spiffe drops the whole
        bundle for one.
        """
        known = [
            root
            for root in self.roots
            if (kind := kind_of(root.public_key())) is None or not kind.is_post_quantum
        ]
        return self if len(known) == len(self.roots) else evolve(self, roots=tuple(known))

    def to_jwks_object(self) -> dict[str, object]:
        """The SPIFFE bundle, to be encoded as JSON; :meth:`from_jwks_object` reads it back.

        Raises :class:`BadBundle` where a root has a key that no JWK of ours describes.
        """
        bundle: dict[str, object] = {
            "spiffe_sequence": self.sequence,
            "keys": [
                *(_jwk(root) for root in self.roots),
                *(authority.to_jwk() for authority in self.jwt_authorities),
            ],
        }
        if self.refresh_hint is not None:
            bundle["spiffe_refresh_hint"] = self.refresh_hint
        if self.next_keys:
            bundle["mesh_next_keys"] = list(self.next_keys)
        return bundle

    def to_jwks(self) -> bytes:
        """The SPIFFE bundle in JSON. Raises as :meth:`to_jwks_object`."""
        return json.dumps(self.to_jwks_object(), indent=1).encode()

    def to_jwt_bundle(self) -> bytes:
        """The JWKS of the JWT authorities alone, as the Workload API hands it out."""
        return write_jwks(self.jwt_authorities)


@frozen
class BundleSet:
    """A bundle for each trust domain that is believed. Domains are never merged."""

    bundles: Mapping[TrustDomain, TrustBundle] = field(factory=dict)

    @classmethod
    def of(cls, *bundles: TrustBundle) -> Self:
        """Each under its own trust domain; of two of one domain the last."""
        return cls({bundle.trust_domain: bundle for bundle in bundles})

    def get(self, trust_domain: TrustDomain) -> TrustBundle | None:
        """The bundle of that trust domain; None where nobody in it is believed."""
        return self.bundles.get(trust_domain)

    def with_bundle(self, bundle: TrustBundle) -> Self:
        """With this one in place of its trust domain's. What is believed of other domains stays."""
        return type(self)({**self.bundles, bundle.trust_domain: bundle})

    def without(self, trust_domain: TrustDomain) -> Self:
        """Without any bundle of that trust domain."""
        return type(self)({at: bundle for at, bundle in self.bundles.items() if at != trust_domain})

    def __iter__(self) -> Iterator[TrustBundle]:
        return iter(self.bundles.values())

    @property
    def all_roots(self) -> Sequence[x509.Certificate]:
        """The union: for OpenSSL's second veto only, never for a verdict."""
        return [root for bundle in self for root in bundle.roots]


_NAME_ROOTS = (
    "name the file with the root, which mesh-ca keeps as ca/root.crt in its state directory"
)


def announced_pins(told: object) -> tuple[str, ...]:
    """The pins of keys to come; what is none of ours is passed over, as with any member that a reader does not know."""
    if not isinstance(told, list):
        return ()
    pins = [one for one in told[:_MOST_ANNOUNCED] if isinstance(one, str)]
    return tuple(one for one in pins if SpkiHash.is_written(one))


def _no_root(cert: x509.Certificate) -> str:
    """Why a certificate can be no CA's at all; empty where it can."""
    try:
        constraints = extension(cert, x509.BasicConstraints)
        _ = cert.public_key(), cert.subject, cert.issuer
    except HOSTILE_INPUT:
        return (
            f"{subject_of(cert)} cannot be a root: its names, extensions or key cannot be decoded"
        )
    if constraints is not None and constraints.ca:
        return ""
    said = f"{subject_of(cert)} is no CA certificate, so it cannot be a root"
    spiffe_id = spiffe_id_of(cert)
    return said if spiffe_id is None else f"{said} (it is the workload {spiffe_id}'s)"


def _is_ca(cert: x509.Certificate) -> bool:
    try:
        constraints = extension(cert, x509.BasicConstraints)
        cert.public_key()
    except HOSTILE_INPUT:
        return False
    return constraints is not None and constraints.ca


def _jwk(root: x509.Certificate) -> dict[str, object]:
    """The JWK of a root. Raises :class:`BadBundle` for one that :func:`root_of_jwk` would pass over."""
    if not _is_ca(root):
        raise BadBundle(f"{subject_of(root)} is no CA certificate, so it cannot be a root")
    members = jwk_members(root.public_key())
    if members is None:
        raise BadBundle(
            f"the key of {subject_of(root)} is of a kind that the mesh does not use: "
            "take that root out of the bundle, or have it made anew"
        )
    der = root.public_bytes(serialization.Encoding.DER)
    return {"use": X509_SVID, **members, "x5c": [base64.b64encode(der).decode()]}


def _is_for_x509(jwk: object) -> TypeGuard[dict[str, object]]:
    return isinstance(jwk, dict) and jwk.get("use") == X509_SVID


def root_of_jwk(jwk: dict[str, object]) -> x509.Certificate | None:
    """The root that a JWK holds, whose key its members describe; None where it holds none that can be believed."""
    chain = jwk.get("x5c")
    if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
        return None
    try:
        root = x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
        members = jwk_members(root.public_key())
    except HOSTILE_INPUT:
        return None
    is_described = members and all(jwk.get(name) == value for name, value in members.items())
    return root if is_described and _is_ca(root) else None
