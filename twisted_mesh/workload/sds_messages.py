"""The messages of Envoy's SDS v3, to and from protobuf: as few fields as secrets need, numbered as Envoy numbers them.

The descriptors are in a pool of our own: Envoy's own modules for the same messages may be loaded in the same process.
"""

from collections.abc import Mapping
from typing import Any, Self

from attrs import field, frozen

from pki.errors import Malformed
from twisted_mesh.workload.protobuf import Messages, Schema, write

_SERVICE = "envoy.service.secret.v3.SecretDiscoveryService"
STREAM_SECRETS = f"/{_SERVICE}/StreamSecrets"
DELTA_SECRETS = f"/{_SERVICE}/DeltaSecrets"
FETCH_SECRETS = f"/{_SERVICE}/FetchSecrets"

_TLS = "envoy.extensions.transport_sockets.tls.v3"
_CORE = "envoy.config.core.v3"
_DISCOVERY = "envoy.service.discovery.v3"
_URL = "type.googleapis.com/"
#: What a request and an answer of SDS are about.
SECRET_URL = f"{_URL}{_TLS}.Secret"
#: The name of the validator that judges each peer by the bundle of its own trust domain.
SPIFFE_VALIDATOR = "envoy.tls.cert_validator.spiffe"

_ANY = "google.protobuf.Any"
_STATUS = "google.rpc.Status"
_SCHEMA: Schema = {
    _ANY: {"type_url": (1, "string"), "value": (2, "bytes")},
    _STATUS: {"code": (1, "int32"), "message": (2, "string")},
    f"{_CORE}.Node": {"id": (1, "string"), "cluster": (2, "string")},
    f"{_CORE}.DataSource": {"inline_bytes": (2, "bytes")},
    f"{_CORE}.TypedExtensionConfig": {"name": (1, "string"), "typed_config": (2, _ANY)},
    f"{_TLS}.TlsCertificate": {
        "certificate_chain": (1, f"{_CORE}.DataSource"),
        "private_key": (2, f"{_CORE}.DataSource"),
    },
    f"{_TLS}.CertificateValidationContext": {
        "custom_validator_config": (12, f"{_CORE}.TypedExtensionConfig")
    },
    # Envoy has it within the next one, which the wire does not tell.
    f"{_TLS}.TrustDomain": {
        "name": (1, "string"),
        "trust_bundle": (2, f"{_CORE}.DataSource"),
    },
    f"{_TLS}.SPIFFECertValidatorConfig": {"trust_domains": (1, f"repeated {_TLS}.TrustDomain")},
    f"{_TLS}.Secret": {
        "name": (1, "string"),
        "tls_certificate": (2, f"{_TLS}.TlsCertificate"),
        "validation_context": (4, f"{_TLS}.CertificateValidationContext"),
    },
    f"{_DISCOVERY}.DiscoveryRequest": {
        "version_info": (1, "string"),
        "node": (2, f"{_CORE}.Node"),
        "resource_names": (3, "repeated string"),
        "type_url": (4, "string"),
        "response_nonce": (5, "string"),
        "error_detail": (6, _STATUS),
    },
    f"{_DISCOVERY}.DiscoveryResponse": {
        "version_info": (1, "string"),
        "resources": (2, f"repeated {_ANY}"),
        "type_url": (4, "string"),
        "nonce": (5, "string"),
    },
    f"{_DISCOVERY}.DeltaDiscoveryRequest": {
        "node": (1, f"{_CORE}.Node"),
        "type_url": (2, "string"),
        "resource_names_subscribe": (3, "repeated string"),
        "resource_names_unsubscribe": (4, "repeated string"),
        "initial_resource_versions": (5, "map of string"),
        "response_nonce": (6, "string"),
        "error_detail": (7, _STATUS),
    },
    f"{_DISCOVERY}.Resource": {
        "version": (1, "string"),
        "resource": (2, _ANY),
        "name": (3, "string"),
    },
    f"{_DISCOVERY}.DeltaDiscoveryResponse": {
        "system_version_info": (1, "string"),
        "resources": (2, f"repeated {_DISCOVERY}.Resource"),
        "type_url": (4, "string"),
        "nonce": (5, "string"),
        "removed_resources": (6, "repeated string"),
    },
}
#: What protobuf makes of it. Nothing of that leaves this module.
_MESSAGES = Messages("Envoy's SDS v3", _SCHEMA)


def _words(message: Any) -> str | None:
    """Of a refusal; None where there is none."""
    if not message.HasField("error_detail"):
        return None
    said: str = message.error_detail.message
    return said or f"status {message.error_detail.code}, without a word"


@frozen
class Request:
    """A DiscoveryRequest: all names that are wanted from now on, and what became of the last answer."""

    names: tuple[str, ...] = ()
    version: str = ""
    """Of the last answer that was applied."""
    nonce: str = ""
    """Of the answer that this is about; empty for the first request."""
    error: str | None = None
    """Why that answer was not applied; None where it was."""
    type_url: str = SECRET_URL
    node: str = ""
    """Who it says it is; only the first request need say so."""

    def encode(self) -> bytes:
        """As protobuf."""
        message = _MESSAGES.new(
            "DiscoveryRequest",
            version_info=self.version,
            resource_names=self.names,
            type_url=self.type_url,
            response_nonce=self.nonce,
        )
        _tell(message, self.node, self.error)
        return write(message)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        message = _MESSAGES.read("DiscoveryRequest", data)
        return cls(
            tuple(message.resource_names),
            message.version_info,
            message.response_nonce,
            _words(message),
            message.type_url,
            message.node.id,
        )


@frozen
class DeltaRequest:
    """A DeltaDiscoveryRequest: which names more, and which no more; and perhaps what became of an answer."""

    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(factory=dict)
    """What is there from a stream before this one; the first request alone says it."""
    nonce: str = ""
    error: str | None = None
    type_url: str = SECRET_URL
    node: str = ""

    def encode(self) -> bytes:
        """As protobuf."""
        message = _MESSAGES.new(
            "DeltaDiscoveryRequest",
            type_url=self.type_url,
            resource_names_subscribe=self.subscribe,
            resource_names_unsubscribe=self.unsubscribe,
            initial_resource_versions=dict(self.versions),
            response_nonce=self.nonce,
        )
        _tell(message, self.node, self.error)
        return write(message)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        message = _MESSAGES.read("DeltaDiscoveryRequest", data)
        return cls(
            tuple(message.resource_names_subscribe),
            tuple(message.resource_names_unsubscribe),
            dict(message.initial_resource_versions),
            message.response_nonce,
            _words(message),
            message.type_url,
            message.node.id,
        )


def _tell(message: Any, node: str, error: str | None) -> None:
    if node:
        message.node.id = node
    if error is not None:
        message.error_detail.code = 13
        message.error_detail.message = error


@frozen
class Secret:
    """One secret under one name, ready to be sent."""

    name: str
    version: str
    """The same for the same content, whoever asks and whenever."""
    data: bytes = field(repr=False)
    """The encoded Secret."""


@frozen
class Response:
    """A DiscoveryResponse: the secrets that are new."""

    version: str
    nonce: str
    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    """Encoded."""

    def encode(self) -> bytes:
        """As protobuf."""
        message = _MESSAGES.new(
            "DiscoveryResponse", version_info=self.version, type_url=SECRET_URL, nonce=self.nonce
        )
        for data in self.secrets:
            message.resources.add(type_url=SECRET_URL, value=data)
        return write(message)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        message = _MESSAGES.read("DiscoveryResponse", data)
        _must_be_secrets(message.type_url, *(each.type_url for each in message.resources))
        secrets = tuple(each.value for each in message.resources)
        return cls(message.version_info, message.nonce, secrets)


@frozen
class DeltaResponse:
    """A DeltaDiscoveryResponse: the secrets that are new, and the names that nothing stands behind (any more)."""

    version: str
    """Of everything on this stream; for people."""
    nonce: str
    secrets: tuple[Secret, ...] = ()
    removed: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """As protobuf."""
        message = _MESSAGES.new(
            "DeltaDiscoveryResponse",
            system_version_info=self.version,
            type_url=SECRET_URL,
            nonce=self.nonce,
            removed_resources=self.removed,
        )
        for secret in self.secrets:
            added = message.resources.add(name=secret.name, version=secret.version)
            added.resource.type_url = SECRET_URL
            added.resource.value = secret.data
        return write(message)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        message = _MESSAGES.read("DeltaDiscoveryResponse", data)
        _must_be_secrets(message.type_url, *(each.resource.type_url for each in message.resources))
        secrets = tuple(
            Secret(each.name, each.version, each.resource.value) for each in message.resources
        )
        return cls(
            message.system_version_info, message.nonce, secrets, tuple(message.removed_resources)
        )


def _must_be_secrets(*urls: str) -> None:
    if any(url != SECRET_URL for url in urls):
        raise Malformed("this answer is not about secrets of SDS v3")


@frozen
class Content:
    """What is in a Secret: an identity, or that by which peers are judged."""

    name: str
    chain: bytes = b""
    """Of an identity, in PEM, leaf first."""
    key: bytes = field(default=b"", repr=False)
    """PKCS #8 in PEM, not encrypted."""
    bundles: Mapping[str, bytes] = field(factory=dict)
    """Of each trust domain its roots, and its CRLs if there are any, in PEM.

    The SPIFFE validator reads CRLs nowhere else than beside the roots of their trust domain.
    """

    def encode(self) -> bytes:
        """As protobuf."""
        message = _MESSAGES.new("Secret", name=self.name)
        if self.chain:
            message.tls_certificate.certificate_chain.inline_bytes = self.chain
            message.tls_certificate.private_key.inline_bytes = self.key
            return write(message)
        config = _MESSAGES.new("SPIFFECertValidatorConfig")
        for trust_domain, bundle in self.bundles.items():
            added = config.trust_domains.add(name=trust_domain)
            added.trust_bundle.inline_bytes = bundle
        validator = message.validation_context.custom_validator_config
        validator.name = SPIFFE_VALIDATOR
        validator.typed_config.type_url = f"{_URL}{_TLS}.SPIFFECertValidatorConfig"
        validator.typed_config.value = write(config)
        return write(message)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`Malformed`."""
        message = _MESSAGES.read("Secret", data)
        certificate = message.tls_certificate
        validator = message.validation_context.custom_validator_config
        config = _MESSAGES.read("SPIFFECertValidatorConfig", validator.typed_config.value)
        return cls(
            message.name,
            certificate.certificate_chain.inline_bytes,
            certificate.private_key.inline_bytes,
            {each.name: each.trust_bundle.inline_bytes for each in config.trust_domains},
        )
