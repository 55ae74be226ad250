"""In place of boto3, for the adapter that docs/SIGNER_ADAPTER.md shows: AWS KMS as its reference has it, in memory.

Parameters and answers are those of CreateKey, CreateAlias, ListAliases, GetPublicKey and Sign; what KMS would refuse is
refused. It is no part of the tests' own imports: the adapter's process finds it on its path.
"""

import re
import uuid
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm

_ECDSA: dict[str, tuple[ec.EllipticCurve, str, HashAlgorithm]] = {
    "ECC_NIST_P256": (ec.SECP256R1(), "ECDSA_SHA_256", SHA256()),
    "ECC_NIST_P384": (ec.SECP384R1(), "ECDSA_SHA_384", SHA384()),
}
_KEYS: dict[str, tuple[str, Any]] = {}
_ALIASES: dict[str, str] = {}


class _Pages:
    def paginate(self) -> Iterator[dict[str, Any]]:
        for alias, target in _ALIASES.items():
            yield {"Aliases": [{"AliasName": alias, "TargetKeyId": target}]}


class _Kms:
    def create_key(self, *, KeySpec: str, KeyUsage: str) -> dict[str, Any]:
        assert KeyUsage == "SIGN_VERIFY"
        made: Any
        if KeySpec in _ECDSA:
            made = ec.generate_private_key(_ECDSA[KeySpec][0])
        else:
            made = rsa.generate_private_key(65537, int(KeySpec.removeprefix("RSA_")))
        name = str(uuid.uuid4())
        _KEYS[name] = (KeySpec, made)
        return {"KeyMetadata": {"KeyId": name}}

    def create_alias(self, *, AliasName: str, TargetKeyId: str) -> None:
        assert re.fullmatch(r"alias/[a-zA-Z0-9/_-]{1,250}", AliasName)
        assert TargetKeyId in _KEYS
        assert AliasName not in _ALIASES
        _ALIASES[AliasName] = TargetKeyId

    def get_paginator(self, name: str) -> _Pages:
        assert name == "list_aliases"
        return _Pages()

    def get_public_key(self, *, KeyId: str) -> dict[str, Any]:
        _, key = _KEYS[_ALIASES[KeyId]]
        return {
            "PublicKey": key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        }

    def sign(
        self,
        *,
        KeyId: str,
        Message: bytes,
        MessageType: str,
        SigningAlgorithm: str,
    ) -> dict[str, Any]:
        spec, key = _KEYS[_ALIASES[KeyId]]
        assert MessageType == "DIGEST"
        if spec in _ECDSA:
            _, algorithm, digest = _ECDSA[spec]
            assert (SigningAlgorithm, len(Message)) == (algorithm, digest.digest_size)
            return {"Signature": key.sign(Message, ec.ECDSA(Prehashed(digest)))}
        assert (SigningAlgorithm, len(Message)) == ("RSASSA_PKCS1_V1_5_SHA_256", 32)
        return {"Signature": key.sign(Message, padding.PKCS1v15(), Prehashed(SHA256()))}


def client(name: str) -> _Kms:
    assert name == "kms"
    return _Kms()
