"""The messages of the SPIFFE Workload API, to and from protobuf; field numbers are those of its workloadapi.proto.

The descriptors are in a pool of our own: another module with the same messages, py-spiffe's for one, may be loaded in
the same process. Texts are as they stand on the wire; who reads them judges them.
"""

from collections.abc import Mapping, Sequence
from typing import Self

from attrs import field, frozen
from google.protobuf import struct_pb2
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import EncodeError

from pki.errors import Malformed
from twisted_mesh.workload.protobuf import Messages, write

_SERVICE = "SpiffeWorkloadAPI"
FETCH_X509_SVID = f"/{_SERVICE}/FetchX509SVID"
FETCH_X509_BUNDLES = f"/{_SERVICE}/FetchX509Bundles"
FETCH_JWT_SVID = f"/{_SERVICE}/FetchJWTSVID"
FETCH_JWT_BUNDLES = f"/{_SERVICE}/FetchJWTBundles"
VALIDATE_JWT_SVID = f"/{_SERVICE}/ValidateJWTSVID"
#: The header that every call carries exactly once (SPIFFE Workload Endpoint section 3), as a client sends it.
SECURITY_HEADER = ("workload.spiffe.io", "true")

_STRUCT = "google.protobuf.Struct"
#: Each message's fields in the order of their numbers, from 1 on.
_SCHEMA: Mapping[str, Sequence[tuple[str, str]]] = {
    "X509SVIDRequest": (),
    "X509SVIDResponse": (
        ("svids", "repeated X509SVID"),
        ("crl", "repeated bytes"),
        ("federated_bundles", "map of bytes"),
    ),
    "X509SVID": (
        ("spiffe_id", "string"),
        ("x509_svid", "bytes"),
        ("x509_svid_key", "bytes"),
        ("bundle", "bytes"),
        ("hint", "string"),
    ),
    "X509BundlesRequest": (),
    "X509BundlesResponse": (("crl", "repeated bytes"), ("bundles", "map of bytes")),
    "JWTSVIDRequest": (("audience", "repeated string"), ("spiffe_id", "string")),
    "JWTSVIDResponse": (("svids", "repeated JWTSVID"),),
    "JWTSVID": (("spiffe_id", "string"), ("svid", "string"), ("hint", "string")),
    "JWTBundlesRequest": (),
    "JWTBundlesResponse": (("bundles", "map of bytes"),),
    "ValidateJWTSVIDRequest": (("audience", "string"), ("svid", "string")),
    "ValidateJWTSVIDResponse": (("spiffe_id", "string"), ("claims", _STRUCT)),
}

#: What protobuf makes of it. Nothing of that leaves this module.
_MESSAGES = Messages(
    "the Workload API",
    {
        name: {field_name: (number, kind) for number, (field_name, kind) in enumerate(fields, 1)}
        for name, fields in _SCHEMA.items()
    },
    (struct_pb2.DESCRIPTOR,),
)


@frozen
class X509SvidRequest:
    """FetchX509SVID's; it has no field."""

    def encode(self) -> bytes:
        """As protobuf."""
        return b""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        _MESSAGES.read("X509SVIDRequest", data)
        return cls()


@frozen
class BundlesRequest:
    """FetchX509Bundles' and FetchJWTBundles'; it has no field."""

    def encode(self) -> bytes:
        """As protobuf."""
        return b""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        _MESSAGES.read("X509BundlesRequest", data)
        return cls()


@frozen
class X509SvidMessage:
    """One identity, with its trust domain's roots."""

    spiffe_id: str
    x509_svid: bytes
    """Leaf first, each in DER, one after the other."""
    x509_svid_key: bytes = field(repr=False)
    """PKCS #8 in DER, not encrypted."""
    bundle: bytes
    """Roots in DER, one after the other."""
    hint: str = ""


@frozen
class X509SvidResponse:
    """All that a caller may have at one moment."""

    svids: Sequence[X509SvidMessage] = ()
    crl: Sequence[bytes] = ()
    """In DER."""
    federated_bundles: Mapping[str, bytes] = field(factory=dict)
    """By the SPIFFE ID of each foreign trust domain."""

    def encode(self) -> bytes:
        """As protobuf."""
        message = _MESSAGES.new(
            "X509SVIDResponse", crl=self.crl, federated_bundles=dict(self.federated_bundles)
        )
        for svid in self.svids:
            message.svids.add(
                spiffe_id=svid.spiffe_id,
                x509_svid=svid.x509_svid,
                x509_svid_key=svid.x509_svid_key,
                bundle=svid.bundle,
                hint=svid.hint,
            )
        return write(message)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        message = _MESSAGES.read("X509SVIDResponse", data)
        svids = [
            X509SvidMessage(
                each.spiffe_id, each.x509_svid, each.x509_svid_key, each.bundle, each.hint
            )
            for each in message.svids
        ]
        return cls(svids, list(message.crl), dict(message.federated_bundles))


@frozen
class X509BundlesResponse:
    """Whom a caller may believe at one moment, for X.509."""

    crl: Sequence[bytes] = ()
    bundles: Mapping[str, bytes] = field(factory=dict)
    """By the SPIFFE ID of each trust domain, its own among them: roots in DER, one after the other."""

    def encode(self) -> bytes:
        """As protobuf."""
        return write(_MESSAGES.new("X509BundlesResponse", crl=self.crl, bundles=dict(self.bundles)))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        message = _MESSAGES.read("X509BundlesResponse", data)
        return cls(list(message.crl), dict(message.bundles))


@frozen
class JwtSvidRequest:
    """For whom a token is wanted, and of which identity; empty: of all."""

    audience: Sequence[str] = ()
    spiffe_id: str = ""

    def encode(self) -> bytes:
        """As protobuf."""
        return write(
            _MESSAGES.new("JWTSVIDRequest", audience=self.audience, spiffe_id=self.spiffe_id)
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        message = _MESSAGES.read("JWTSVIDRequest", data)
        return cls(list(message.audience), message.spiffe_id)


@frozen
class JwtSvidMessage:
    """One token."""

    spiffe_id: str
    svid: str = field(repr=False)
    hint: str = ""


@frozen
class JwtSvidResponse:
    """The tokens that were asked for."""

    svids: Sequence[JwtSvidMessage] = ()

    def encode(self) -> bytes:
        """As protobuf."""
        message = _MESSAGES.new("JWTSVIDResponse")
        for svid in self.svids:
            message.svids.add(spiffe_id=svid.spiffe_id, svid=svid.svid, hint=svid.hint)
        return write(message)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        message = _MESSAGES.read("JWTSVIDResponse", data)
        return cls([JwtSvidMessage(each.spiffe_id, each.svid, each.hint) for each in message.svids])


@frozen
class JwtBundlesResponse:
    """Whom a caller may believe at one moment, for JWTs."""

    bundles: Mapping[str, bytes] = field(factory=dict)
    """By the SPIFFE ID of each trust domain, its own among them: JWKS documents."""

    def encode(self) -> bytes:
        """As protobuf."""
        return write(_MESSAGES.new("JWTBundlesResponse", bundles=dict(self.bundles)))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        return cls(dict(_MESSAGES.read("JWTBundlesResponse", data).bundles))


@frozen
class ValidateJwtSvidRequest:
    """Which token is to be judged, for which audience."""

    audience: str
    svid: str = field(repr=False)

    def encode(self) -> bytes:
        """As protobuf."""
        return write(
            _MESSAGES.new("ValidateJWTSVIDRequest", audience=self.audience, svid=self.svid)
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        message = _MESSAGES.read("ValidateJWTSVIDRequest", data)
        return cls(message.audience, message.svid)


@frozen
class ValidateJwtSvidResponse:
    """What a good token says. Numbers are floating: a google.protobuf.Struct knows no others."""

    spiffe_id: str
    claims: Mapping[str, object] = field(factory=dict)

    def encode(self) -> bytes:
        """As protobuf. Raises :class:`Malformed` for claims that protobuf cannot carry."""
        message = _MESSAGES.new("ValidateJWTSVIDResponse", spiffe_id=self.spiffe_id)
        try:
            ParseDict(dict(self.claims), message.claims)
            return write(message)
        except (ParseError, EncodeError, ValueError, TypeError, ArithmeticError, RecursionError):
            raise Malformed("the token's claims are nested too deeply, or are no JSON") from None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        message = _MESSAGES.read("ValidateJWTSVIDResponse", data)
        return cls(message.spiffe_id, MessageToDict(message.claims))
