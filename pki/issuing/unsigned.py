"""Placeholders: what stands where a certificate's signature will be, so that it can be laid out and linted first."""

from typing import Any, Self, cast

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pki.der import BIT_STRING, SEQUENCE, element, elements
from pki.keys import SigningKey

_PLACEHOLDER = bytes(8)


def lay_out(builder: x509.CertificateBuilder, key: SigningKey) -> x509.Certificate:
    """What ``builder`` makes for the signer ``key``, but for the signature."""
    public_key = key.public_key
    kind = _RsaPlaceholder if isinstance(public_key, rsa.RSAPublicKey) else _EcPlaceholder
    return builder.sign(kind(public_key), key.algorithm.hash)


def algorithm_of(unsigned: x509.Certificate) -> bytes:
    """The AlgorithmIdentifier of the signature to be, in DER."""
    (whole,) = elements(unsigned.public_bytes(serialization.Encoding.DER))
    _, algorithm, _ = elements(whole.content)
    return algorithm.whole


def assemble(tbs: bytes, algorithm: bytes, signature: bytes = _PLACEHOLDER) -> bytes:
    """A Certificate or CertificateList (RFC 5280 sections 4.1 and 5.1) of its three parts, in DER."""
    return element(SEQUENCE, tbs + algorithm + element(BIT_STRING, b"\0" + signature))


class _Placeholder:
    """Stands in for the signing key while the certificate is laid out: it has no secret to use."""

    def __init__(self, public_key: Any) -> None:
        self._public_key = public_key

    def public_key(self) -> Any:
        return self._public_key

    @property
    def key_size(self) -> int:
        return cast(int, self._public_key.key_size)

    def sign(self, *args: object) -> bytes:
        return _PLACEHOLDER

    def _impossible(self, *args: object, **kwargs: object) -> Any:
        raise TypeError("a placeholder has no private key")

    exchange = decrypt = private_numbers = private_bytes = _impossible

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class _EcPlaceholder(_Placeholder, ec.EllipticCurvePrivateKey):
    @property
    def curve(self) -> ec.EllipticCurve:
        return cast(ec.EllipticCurve, self._public_key.curve)


class _RsaPlaceholder(_Placeholder, rsa.RSAPrivateKey):
    pass
