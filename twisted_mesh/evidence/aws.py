"""The instance identity document of the EC2 instance that this process runs on, in its form of RSA-2048."""

import os
import re
from pathlib import Path
from typing import Self

import msgspec
from attrs import frozen
from zope.interface import implementer

from pki.errors import printable
from twisted_mesh.evidence.interface import AttestationData, IProver, NoEvidence
from twisted_mesh.evidence.metadata import Metadata
from twisted_mesh.state.directory import read_file

_VARIABLE, _USUAL = "AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254"
_SWITCHED_OFF = "AWS_EC2_METADATA_DISABLED"
_TOKEN, _DOCUMENT = "/latest/api/token", "/latest/dynamic/instance-identity/rsa2048"
#: Seconds for which the session with the metadata service is good: one request is all that it is for.
_SESSION = "60"
_LARGEST = 64 * 1024
_PEM_LINE = re.compile(r"-----[A-Z0-9 ]+-----")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_A_TOKEN = re.compile(r"[!-~]{1,1024}", re.ASCII)


@implementer(IProver)
@frozen
class AwsProver:
    """Asks the metadata service by IMDSv2, which takes no request that some other program was led to send."""

    place: Metadata | Path
    kind = "aws"
    wants_challenge = False

    @classmethod
    def of(cls, file: str | None) -> Self:
        """``aws``, or ``aws:FILE`` with what was fetched. Raises :class:`pki.errors.Malformed`."""
        return cls(Metadata.named(_VARIABLE, _USUAL) if file is None else Path(file))

    @property
    def where(self) -> str:
        """The file, or the metadata service's address."""
        return str(self.place)

    def prove(self, challenge: str | None, key: bytes, trust_domain: str = "") -> AttestationData:
        """The document; none is made for one challenge or one key. Raises :class:`NoEvidence`."""
        if isinstance(self.place, Path):
            found = read_file(self.place, "--attest aws:", _LARGEST)
        else:
            found = self._fetch(self.place)
        text = "".join(_PEM_LINE.sub("", found.decode("utf-8", "replace")).split())
        if not _BASE64.fullmatch(text):
            raise NoEvidence(
                f"{self.where}: this is no instance identity document in PKCS #7, which is base64"
            )
        return AttestationData(self.kind, msgspec.json.encode(text))

    def _fetch(self, service: Metadata) -> bytes:
        if os.environ.get(_SWITCHED_OFF, "").lower() == "true":
            raise NoEvidence(f"{_SWITCHED_OFF}=true: the metadata service is not to be asked")
        try:
            session = service.put(_TOKEN, {"X-aws-ec2-metadata-token-ttl-seconds": _SESSION})
        except NoEvidence as error:
            raise NoEvidence(
                f"{error} (a container needs a hop limit of 2 in the instance's metadata options)"
            ) from None
        token = session.decode("utf-8", "replace").strip()
        if not _A_TOKEN.fullmatch(token):
            raise NoEvidence(f"{service}: its session token is none: {printable(token, 20)!r}")
        return service.get(_DOCUMENT, {"X-aws-ec2-metadata-token": token})
