"""The CSR of an issuing CA, and what is installed for it, in the API's answers.

Like :mod:`twisted_mesh.api.messages`, from which these stand apart only for their number.
"""

from typing import Annotated

from msgspec import Meta, Struct


class CertificationRequested(Struct, frozen=True):
    """``POST /api/v1/ca/root/csr``."""

    new_key: bool = False
    """Whether another key is wanted than the one that waits."""


class IssuingRequest(Struct, frozen=True):
    """A CSR that waits for a root that is somewhere else."""

    csr: str
    """PEM."""
    fingerprint: str
    """``sha256:HEX``, of the CSR in DER."""
    key: str
    """``sha256/BASE64``, of its key."""
    key_id: str
    subject: str
    generation: int
    roots: list[str]
    """The fingerprints of the roots that are to certify it."""


class Installation(Struct, frozen=True):
    """``POST /api/v1/ca/root/install``."""

    certificates: str = ""
    """PEM: the issuing CA's, those of CAs between it and a root, and whatever else the files held."""
    crls: Annotated[list[str], Meta(max_length=16)] = []
    """PEM or, in base64, DER: of roots."""
    dry_run: bool = False


class InstalledCertificate(Struct, frozen=True):
    """A certificate of an issuing CA that was installed, or would be."""

    subject: str
    serial: str
    fingerprint: str
    key: str
    root: str
    """The fingerprint of the root that it leads to."""
    chain: list[str]
    """Subjects of CAs of somebody else's between the two."""
    not_after: str


class InstalledCrl(Struct, frozen=True):
    """A root's CRL that was installed, or would be."""

    root: str
    """The root's key id."""
    number: str
    next_update: str
    entries: int


class InstallationAnswer(Struct, frozen=True):
    """What was done, or would be."""

    certificates: list[InstalledCertificate]
    crls: list[InstalledCrl]
    generation: int
    """Of the issuing CA."""
    prepared: bool
    """Whether it is the next one by that, and takes over by itself."""
    done: bool
    """False where it was only asked what would be done."""
