"""Instance identity documents as AWS makes them, made by openssl; and who signs them, and forgers."""

import base64
import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from attrs import evolve, frozen
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256

from tests.authorities import rsa_key
from tests.tools import require_tool
from twisted_mesh.attest.aws import AwsAttestor, AwsSettings
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.evidence.interface import AttestationData

NOW = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
ACCOUNT, REGION, INSTANCE = "123456789012", "us-west-2", "i-1234567890abcdef0"
#: As the metadata service shows it.
FACTS: Mapping[str, Any] = {
    "accountId": ACCOUNT,
    "architecture": "x86_64",
    "availabilityZone": "us-west-2b",
    "billingProducts": None,
    "devpayProductCodes": None,
    "marketplaceProductCodes": ["1abc2defghijklm3nopqrs4tu"],
    "imageId": "ami-5fb8c835",
    "instanceId": INSTANCE,
    "instanceType": "t2.micro",
    "kernelId": None,
    "pendingTime": "2026-11-23T09:32:11Z",
    "privateIp": "10.158.112.84",
    "ramdiskId": None,
    "region": REGION,
    "version": "2017-09-30",
}
#: Of the signatures that AWS makes: no certificate in it, BER of indefinite length, and few attributes.
USUAL = ("-nodetach", "-nocerts", "-nosmimecap", "-stream", "-md", "sha256")


@cache
def other_key(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@frozen(eq=False)
class Signer:
    """A region's certificate and its key."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes

    @classmethod
    def make(
        cls,
        key: CertificateIssuerPrivateKeyTypes,
        serial: int = 0xB169CC0055A6906B,
        not_before: datetime = datetime(2015, 8, 14, tzinfo=UTC),
        not_after: datetime = datetime(2195, 1, 17, tzinfo=UTC),
        identifier: x509.SubjectKeyIdentifier | None = None,
    ) -> "Signer":
        name = x509.Name(
            [
                x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "US"),
                x509.NameAttribute(x509.NameOID.STATE_OR_PROVINCE_NAME, "Washington State"),
                x509.NameAttribute(x509.NameOID.LOCALITY_NAME, "Seattle"),
                x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Amazon Web Services LLC"),
            ]
        )
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
        builder = builder.serial_number(serial).public_key(key.public_key())
        builder = builder.not_valid_before(not_before).not_valid_after(not_after)
        if identifier is not None:
            builder = builder.add_extension(identifier, critical=False)
        return cls(builder.sign(key, SHA256()), key)

    def sign(self, document: bytes, *options: str, beside: "Signer | None" = None) -> bytes:
        """What ``openssl cms -sign`` makes of it, in DER or BER."""
        with TemporaryDirectory() as name:
            place = Path(name)
            self._write(place, "signer")
            command = [require_tool("openssl"), "cms", "-sign", "-binary", "-outform", "DER"]
            command += ["-signer", "signer.pem", "-inkey", "signer.key", *(options or USUAL)]
            if beside is not None:
                beside._write(place, "beside")
                command += ["-signer", "beside.pem", "-inkey", "beside.key"]
            done = subprocess.run(
                command, input=document, cwd=place, capture_output=True, check=True, timeout=60
            )
            return done.stdout

    def _write(self, place: Path, name: str) -> None:
        pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        (place / f"{name}.pem").write_bytes(pem)
        key = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (place / f"{name}.key").write_bytes(key)


@cache
def aws() -> Signer:
    """Of us-west-2."""
    return Signer.make(rsa_key())


@cache
def aws_elsewhere() -> Signer:
    """Of eu-west-1: another key, and a serial of its own."""
    return Signer.make(other_key(1), serial=0xA1)


@cache
def impostor() -> Signer:
    """Whoever made himself a certificate with the names and the serial number of AWS's."""
    return Signer.make(other_key(2))


def document(**changed: Any) -> bytes:
    return json.dumps({**FACTS, **changed}, indent=2).encode()


@cache
def usual() -> bytes:
    """A good one."""
    return aws().sign(document())


SETTINGS = AwsSettings(
    {REGION: (aws().certificate,), "eu-west-1": (aws_elsewhere().certificate,)},
    frozenset({ACCOUNT, "210987654321"}),
)


def attestor(now: datetime = NOW, **changed: Any) -> AwsAttestor:
    return AwsAttestor(evolve(SETTINGS, **changed), lambda: now)


def base64_lines(der: bytes) -> str:
    """As the metadata service shows it: lines of 64 characters."""
    return "".join(base64.encodebytes(der).decode())


def shown(der: bytes | str, beside: str | None = None) -> Evidence:
    """Evidence with that PKCS #7, as a caller brings it."""
    text = der if isinstance(der, str) else base64_lines(der)
    data = text if beside is None else {"pkcs7": text, "document": beside}
    return Evidence(attestation=AttestationData("aws", msgspec.json.encode(data)))
