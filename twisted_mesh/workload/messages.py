"""The messages of the SPIFFE Workload API, to and from protobuf; field numbers are those of its workloadapi.proto.

The descriptors are in a pool of our own: another module with the same messages, py-spiffe's for one, may be loaded in
the same process. Texts are as they stand on the wire; who reads them judges them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from attrs import field, frozen
from google.protobuf import descriptor_pb2, struct_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import DecodeError, EncodeError
from google.protobuf.message_factory import GetMessageClass

from pki.errors import Malformed

_SERVICE = "SpiffeWorkloadAPI"
FETCH_X509_SVID = f"/{_SERVICE}/FetchX509SVID"
FETCH_X509_BUNDLES = f"/{_SERVICE}/FetchX509Bundles"
FETCH_JWT_SVID = f"/{_SERVICE}/FetchJWTSVID"
FETCH_JWT_BUNDLES = f"/{_SERVICE}/FetchJWTBundles"
VALIDATE_JWT_SVID = f"/{_SERVICE}/ValidateJWTSVID"
#: The header that every call carries exactly once (SPIFFE Workload Endpoint section 3), as a client sends it.
SECURITY_HEADER = ("workload.spiffe.io", "true")

_Field = descriptor_pb2.FieldDescriptorProto
_KINDS = {"string": _Field.TYPE_STRING, "bytes": _Field.TYPE_BYTES}
_STRUCT = "google.protobuf.Struct"
#: Each message's fields in the order of their numbers, from 1 on.
_SCHEMA: Mapping[str, Sequence[tuple[str, str]]] = {
    "X509SVIDRequest": (),
    "X509SVIDResponse": (
        ("svids", "repeated X509SVID"),
        ("crl", "repeated bytes"),
        ("federated_bundles", "map"),
    ),
    "X509SVID": (
        ("spiffe_id", "string"),
        ("x509_svid", "bytes"),
        ("x509_svid_key", "bytes"),
        ("bundle", "bytes"),
        ("hint", "string"),
    ),
    "X509BundlesRequest": (),
    "X509BundlesResponse": (("crl", "repeated bytes"), ("bundles", "map")),
    "JWTSVIDRequest": (("audience", "repeated string"), ("spiffe_id", "string")),
    "JWTSVIDResponse": (("svids", "repeated JWTSVID"),),
    "JWTSVID": (("spiffe_id", "string"), ("svid", "string"), ("hint", "string")),
    "JWTBundlesRequest": (),
    "JWTBundlesResponse": (("bundles", "map"),),
    "ValidateJWTSVIDRequest": (("audience", "string"), ("svid", "string")),
    "ValidateJWTSVIDResponse": (("spiffe_id", "string"), ("claims", _STRUCT)),
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    made = descriptor_pb2.FileDescriptorProto(
        name="workload.proto", syntax="proto3", dependency=["google/protobuf/struct.proto"]
    )
    for name, fields in _SCHEMA.items():
        message = made.message_type.add(name=name)
        for number, (field_name, kind) in enumerate(fields, 1):
            _add_field(message, field_name, number, kind)
    return made


def _add_field(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    if kind == "map":
        entry = message.nested_type.add(
            name="".join(word.capitalize() for word in name.split("_")) + "Entry"
        )
        entry.options.map_entry = True
        _add_field(entry, "key", 1, "string")
        _add_field(entry, "value", 2, "bytes")
        kind = f"repeated {message.name}.{entry.name}"
    single = kind.removeprefix("repeated ")
    made = message.field.add(
        name=name,
        number=number,
        type=_KINDS.get(single, _Field.TYPE_MESSAGE),
        label=_Field.LABEL_OPTIONAL if kind == single else _Field.LABEL_REPEATED,
    )
    if single not in _KINDS:
        made.type_name = f".{single}"


def _classes() -> Mapping[str, Any]:
    pool = DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(_file().SerializeToString())
    return {name: GetMessageClass(pool.FindMessageTypeByName(name)) for name in _SCHEMA}


#: The classes that protobuf makes of it. Nothing of them leaves this module.
_CLASSES = _classes()


def _read(name: str, data: bytes) -> Any:
    message = _CLASSES[name]()
    try:
        message.ParseFromString(data)
    except (DecodeError, ValueError, RecursionError):
        raise Malformed(f"this is no {name} of the Workload API") from None
    return message


def _write(message: Any) -> bytes:
    """Equal messages are equal bytes."""
    data: bytes = message.SerializeToString(deterministic=True)
    return data


@frozen
class X509SvidRequest:
    """FetchX509SVID's; it has no field."""

    def encode(self) -> bytes:
        """As protobuf."""
        return b""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        _read("X509SVIDRequest", data)
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
        _read("X509BundlesRequest", data)
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
        message = _CLASSES["X509SVIDResponse"](
            crl=self.crl, federated_bundles=dict(self.federated_bundles)
        )
        for svid in self.svids:
            message.svids.add(
                spiffe_id=svid.spiffe_id,
                x509_svid=svid.x509_svid,
                x509_svid_key=svid.x509_svid_key,
                bundle=svid.bundle,
                hint=svid.hint,
            )
        return _write(message)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        message = _read("X509SVIDResponse", data)
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
        return _write(_CLASSES["X509BundlesResponse"](crl=self.crl, bundles=dict(self.bundles)))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        message = _read("X509BundlesResponse", data)
        return cls(list(message.crl), dict(message.bundles))


@frozen
class JwtSvidRequest:
    """For whom a token is wanted, and of which identity; empty: of all."""

    audience: Sequence[str] = ()
    spiffe_id: str = ""

    def encode(self) -> bytes:
        """As protobuf."""
        return _write(_CLASSES["JWTSVIDRequest"](audience=self.audience, spiffe_id=self.spiffe_id))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        message = _read("JWTSVIDRequest", data)
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
        message = _CLASSES["JWTSVIDResponse"]()
        for svid in self.svids:
            message.svids.add(spiffe_id=svid.spiffe_id, svid=svid.svid, hint=svid.hint)
        return _write(message)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        message = _read("JWTSVIDResponse", data)
        return cls([JwtSvidMessage(each.spiffe_id, each.svid, each.hint) for each in message.svids])


@frozen
class JwtBundlesResponse:
    """Whom a caller may believe at one moment, for JWTs."""

    bundles: Mapping[str, bytes] = field(factory=dict)
    """By the SPIFFE ID of each trust domain, its own among them: JWKS documents."""

    def encode(self) -> bytes:
        """As protobuf."""
        return _write(_CLASSES["JWTBundlesResponse"](bundles=dict(self.bundles)))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        return cls(dict(_read("JWTBundlesResponse", data).bundles))


@frozen
class ValidateJwtSvidRequest:
    """Which token is to be judged, for which audience."""

    audience: str
    svid: str = field(repr=False)

    def encode(self) -> bytes:
        """As protobuf."""
        return _write(_CLASSES["ValidateJWTSVIDRequest"](audience=self.audience, svid=self.svid))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        message = _read("ValidateJWTSVIDRequest", data)
        return cls(message.audience, message.svid)


@frozen
class ValidateJwtSvidResponse:
    """What a good token says. Numbers are floating: a google.protobuf.Struct knows no others."""

    spiffe_id: str
    claims: Mapping[str, object] = field(factory=dict)

    def encode(self) -> bytes:
        """As protobuf. Raises :class:`Malformed` for claims that protobuf cannot carry."""
        message = _CLASSES["ValidateJWTSVIDResponse"](spiffe_id=self.spiffe_id)
        try:
            ParseDict(dict(self.claims), message.claims)
            return _write(message)
        except (ParseError, EncodeError, ValueError, TypeError, ArithmeticError, RecursionError):
            raise Malformed("the token's claims are nested too deeply, or are no JSON") from None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        message = _read("ValidateJWTSVIDResponse", data)
        return cls(message.spiffe_id, MessageToDict(message.claims))
