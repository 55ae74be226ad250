"""Attests instances of AWS EC2 by their instance identity documents, in the form signed by RSA-2048 and SHA-256.

The document never changes while an instance runs, and whoever runs on the instance can fetch it: so its first use wins.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec
from attrs import define, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from zope.interface import implementer

from pki.errors import HOSTILE_INPUT, Malformed, discreet
from pki.keys import weaknesses
from pki.policy.selector import SelectorKind
from pki.svid.x509svid import load_certificates, validity_of
from pki.validity import parse_duration, parse_rfc3339, rfc3339, spoken_duration
from twisted_mesh.attest.attestors_file import absolute, settings_of
from twisted_mesh.attest.errors import BadEvidence, EvidenceExpired
from twisted_mesh.attest.evidence import (
    Attestation,
    Evidence,
    WithoutChallenge,
    read_data,
    seen,
)
from twisted_mesh.attest.interface import IAttestor, Means, Table
from twisted_mesh.attest.kinds import AWS_IID
from twisted_mesh.attest.pkcs7 import MOST_BYTES, SignedDocument
from twisted_mesh.http.json import BadRequest, parse_json
from twisted_mesh.runtime.clock import Now
from twisted_mesh.state.directory import read_trusted

#: How far the clock of AWS may be ahead of ours.
SKEW = timedelta(minutes=5)
_MOST_CERTIFICATES, _MOST_OF_A_FILE = 256, 64 * 1024
_REGION = re.compile(r"[a-z]{2,8}(-[a-z0-9]{1,16}){1,4}", re.ASCII)
_ZONE = re.compile(r"[a-z0-9-]{3,48}", re.ASCII)
_ACCOUNT = re.compile(r"[0-9]{12}", re.ASCII)
_INSTANCE = re.compile(r"i-[0-9a-f]{8,17}", re.ASCII)
_IMAGE = re.compile(r"ami-[0-9a-f]{8,17}", re.ASCII)
_SUFFIX = ".pem"


class InstanceDocument(msgspec.Struct, frozen=True):
    """What is looked at of an instance identity document. AWS may add members, and has more already."""

    account: str = msgspec.field(name="accountId")
    region: str
    zone: str = msgspec.field(name="availabilityZone")
    instance: str = msgspec.field(name="instanceId")
    image: str = msgspec.field(name="imageId")
    pending: str = msgspec.field(name="pendingTime")
    """When the instance was launched, or started anew."""

    @classmethod
    def read(cls, verified: bytes) -> Self:
        """Out of verified bytes. Raises :class:`BadEvidence`, also for a member that stands twice."""
        try:
            document = parse_json(verified, cls)
        except BadRequest as error:
            raise BadEvidence(f"what is signed is no instance identity document: {error}") from None
        shapes = (
            (_ACCOUNT, document.account, "accountId"),
            (_REGION, document.region, "region"),
            (_ZONE, document.zone, "availabilityZone"),
            (_INSTANCE, document.instance, "instanceId"),
            (_IMAGE, document.image, "imageId"),
        )
        for shape, value, name in shapes:
            if not shape.fullmatch(value):
                raise BadEvidence(
                    f"what is signed is no instance identity document: its {name} is none"
                )
        return document


class DetachedDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A PKCS #7 that has no content, and the document beside it, byte for byte as the metadata service has it."""

    pkcs7: str
    document: str


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    certificates: str | dict[str, str]
    accounts: list[str]
    regions: list[str] | None = None
    max_age: str | None = None


@frozen
class AwsSettings:
    """What the table ``[aws]`` says."""

    certificates: Mapping[str, tuple[x509.Certificate, ...]]
    """By region: whoever signs its documents. Several where AWS changes them."""
    accounts: frozenset[str]
    """Anybody can have instances at AWS: only those of these accounts count."""
    max_age: timedelta | None = None
    """How long ago an instance may have started; None: however long."""

    @classmethod
    def read(cls, table: Table, where: str) -> Self:
        """Raises :class:`Malformed` with what is wrong, and StateError for a file that cannot be read."""
        if not isinstance(table, Mapping):
            raise Malformed(f"{where}: there is one table of AWS, and several regions in it")
        told = settings_of(table, _Table, where)
        accounts = frozenset(told.accounts)
        for account in told.accounts:
            if not _ACCOUNT.fullmatch(account):
                raise Malformed(
                    f"{where}: accounts: {discreet(account, 40)!r} is no account: it has 12 digits"
                )
        if not accounts:
            raise Malformed(
                f"{where}: accounts: name those whose instances count; anybody can have others"
            )
        certificates = _certificates(told.certificates, where)
        if told.regions is not None:
            if missing := [region for region in told.regions if region not in certificates]:
                raise Malformed(
                    f"{where}: regions: there is no certificate of {discreet(missing[0], 40)}"
                )
            certificates = {region: certificates[region] for region in told.regions}
        if not certificates:
            raise Malformed(f"{where}: certificates: name that of a region at least")
        return cls(certificates, accounts, _duration(told.max_age, where))

    @property
    def signers(self) -> tuple[x509.Certificate, ...]:
        """All certificates of all regions."""
        return tuple(dict.fromkeys(c for several in self.certificates.values() for c in several))


@implementer(IAttestor)
@define(eq=False, repr=False)
class AwsAttestor(WithoutChallenge):
    """``aws_iid`` selectors of whoever shows the identity document of an instance of a known account and region."""

    settings: AwsSettings
    now: Now
    name: ClassVar[str] = "aws"
    table: ClassVar[str] = "aws"
    kinds: ClassVar[tuple[SelectorKind, ...]] = AWS_IID

    @classmethod
    def read(cls, table: Table, where: str) -> AwsSettings:
        """As :meth:`AwsSettings.read`."""
        return AwsSettings.read(table, where)

    @classmethod
    def of(cls, settings: AwsSettings, means: Means) -> Self:
        """One that goes by the CA's clock."""
        return cls(settings, means.now)

    async def attest(self, evidence: Evidence) -> Attestation | None:
        """Which instance that is. Raises :class:`BadEvidence`, :class:`EvidenceExpired` and :class:`Malformed`."""
        shown = evidence.attestation
        if shown is None or shown.kind != self.table:
            return None
        shape: Any = str | DetachedDocument
        told: Any = read_data(shown.data, shape)
        detached = None
        if isinstance(told, DetachedDocument):
            told, detached = told.pkcs7, told.document.encode()
        verified, signer = SignedDocument.read(_decoded(told)).verified(
            self.settings.signers, detached
        )
        document = InstanceDocument.read(verified)
        self._demand_region(document, signer)
        if document.account not in self.settings.accounts:
            raise BadEvidence(
                f"this instance is of the account {document.account}, and none of [aws] accounts"
            )
        self._demand_time(document)
        claim = f"aws_iid:{document.account}:{document.region}:{document.instance}"
        selectors = (
            seen("aws_iid:instance:id", document.instance)
            | seen("aws_iid:image:id", document.image)
            | seen("aws_iid:region", document.region)
            | seen("aws_iid:az", document.zone)
            | seen("aws_iid:account", document.account)
        )
        return Attestation(claim, selectors, claim=claim)

    def _demand_region(self, document: InstanceDocument, signer: x509.Certificate) -> None:
        """That the region's own certificate has signed it, while that was valid."""
        if signer not in self.settings.certificates.get(document.region, ()):
            raise BadEvidence(
                f"this instance is of the region {document.region}, and the document is signed by the certificate of "
                "another, or that region is not configured ([aws] certificates, regions)"
            )
        if not validity_of(signer).contains(self.now()):
            raise BadEvidence(
                f"the certificate of AWS for {document.region} that is configured here ended at "
                f"{rfc3339(validity_of(signer).not_after)}, or is not valid yet: configure the one of today"
            )

    def _demand_time(self, document: InstanceDocument) -> None:
        try:
            pending = parse_rfc3339(document.pending)
        except Malformed as error:
            raise BadEvidence(f"the pendingTime of this instance is none: {error}") from None
        age = self.now() - pending
        if age < -SKEW:
            raise EvidenceExpired(
                f"this instance starts at {rfc3339(pending)}, in {spoken_duration(-age)}: look at this machine's clock"
            )
        limit = self.settings.max_age
        if limit is not None and age > limit:
            raise EvidenceExpired(
                f"this instance started {spoken_duration(age)} ago, and [aws] max_age is {spoken_duration(limit)}: "
                "start it anew, or use a join token"
            )


def _decoded(text: str) -> bytes:
    """The DER of base64 with line breaks, as the metadata service has it. Raises :class:`BadEvidence`."""
    joined = "".join(text.split())
    if len(joined) > MOST_BYTES * 4 // 3 + 4:
        raise BadEvidence(f"the PKCS #7 document has over {MOST_BYTES} bytes")
    try:
        decoded = base64.b64decode(joined, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    # Of several spellings of the same bytes one is taken.
    if not decoded or base64.b64encode(decoded).decode() != joined:
        raise BadEvidence(
            "the PKCS #7 document is not in base64: send what the metadata service answers at rsa2048, without the "
            "lines of PEM around it"
        )
    return decoded


def _duration(text: str | None, where: str) -> timedelta | None:
    if text is None:
        return None
    try:
        return parse_duration(text)
    except Malformed as error:
        raise Malformed(f"{where}: max_age: {error}") from None


def _certificates(
    named: str | Mapping[str, str], where: str
) -> dict[str, tuple[x509.Certificate, ...]]:
    """By region, from a directory of REGION.pem, or from the file of each."""
    if isinstance(named, str):
        directory = absolute(named, f"{where}: certificates")
        try:
            files = {p.stem: p for p in sorted(directory.iterdir()) if p.suffix == _SUFFIX}
        except OSError as error:
            raise Malformed(
                f"{where}: certificates: {directory} cannot be read ({error.strerror})"
            ) from None
    else:
        files = {
            region: absolute(file, f"{where}: certificates.{discreet(region, 40)}")
            for region, file in named.items()
        }
    found = {}
    for region, path in files.items():
        if not _REGION.fullmatch(region):
            raise Malformed(
                f"{where}: certificates: {discreet(region, 40)!r} is no region: it is written like us-east-1"
            )
        found[region] = _of_region(path, f"{where}: certificates.{region}")
    if sum(map(len, found.values())) > _MOST_CERTIFICATES:
        raise Malformed(f"{where}: certificates: there are more than {_MOST_CERTIFICATES}")
    return found


def _of_region(path: Path, where: str) -> tuple[x509.Certificate, ...]:
    try:
        found = load_certificates(read_trusted(path, where, _MOST_OF_A_FILE), f"{where} {path}")
    except Malformed as error:
        raise Malformed(f"{where}: {error}") from None
    for certificate in found:
        _demand_rsa_2048(certificate, f"{where} {path}")
    return found


def _demand_rsa_2048(certificate: x509.Certificate, where: str) -> None:
    """Raises :class:`Malformed` for the certificates that AWS has for its other two forms: DSA, and RSA-1024."""
    key: Any = None
    try:
        key = certificate.public_key()
        weak = weaknesses(key)
    except HOSTILE_INPUT:
        weak = []
    if not isinstance(key, RSAPublicKey) or weak:
        raise Malformed(
            f"{where}: this is not the certificate of the form rsa2048, whose key is RSA of 2048 bits: AWS lists one "
            "of each form for each region"
        )
