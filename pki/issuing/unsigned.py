"""Placeholders: what stands where a certificate's signature will be, so that it can be laid out and linted first."""

from typing import NoReturn, TypeVar, cast

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pki.der import BIT_STRING, SEQUENCE, element, elements
from pki.keys import PrivateKey, PublicKey, SigningKey

_T = TypeVar("_T")

_PLACEHOLDER = bytes(8)


def lay_out(builder: x509.CertificateBuilder, key: SigningKey) -> x509.Certificate:
    """What ``builder`` makes for the signer ``key``, but for the signature."""
    algorithm = key.algorithm
    return builder.sign(placeholder(algorithm.kind.private_class, key.public_key), algorithm.hash)


def algorithm_of(unsigned: x509.Certificate) -> bytes:
    """The AlgorithmIdentifier of the signature to be, in DER."""
    (whole,) = elements(unsigned.public_bytes(serialization.Encoding.DER))
    _, algorithm, _ = elements(whole.content)
    return algorithm.whole


def assemble(tbs: bytes, algorithm: bytes, signature: bytes = _PLACEHOLDER) -> bytes:
    """A Certificate or CertificateList (RFC 5280 sections 4.1 and 5.1) of its three parts, in DER."""
    return element(SEQUENCE, tbs + algorithm + element(BIT_STRING, b"\0" + signature))


def placeholder(private_class: type[object], public_key: PublicKey) -> PrivateKey:
    """What stands in for the private key of ``public_key`` while a certificate is laid out.

    cryptography's builder looks at a key's class, and asks it for its public key and a signature. It
    has no secret: all else that ``private_class`` can do raises TypeError.
    """

    def impossible(*args: object, **kwargs: object) -> NoReturn:
        raise TypeError("a placeholder has no private key")

    abstract: frozenset[str] = getattr(private_class, "__abstractmethods__", frozenset())
    members = dict.fromkeys(abstract, impossible) | {
        "public_key": lambda self: public_key,
        "sign": lambda self, *args: _PLACEHOLDER,
        "__copy__": _itself,
        "__deepcopy__": _itself,
    }
    return cast(PrivateKey, type("Placeholder", (private_class,), members)())


def _itself(key: _T, *memo: object) -> _T:
    return key
