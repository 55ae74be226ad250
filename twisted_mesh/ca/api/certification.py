"""The routes of an issuing CA that a root elsewhere certifies: its CSR, and what is installed for it."""

import base64
import binascii

from pki.errors import Malformed
from pki.issuing.root_line import fingerprint_of
from pki.issuing.upstream import IssuingChain
from pki.keys import spki_pin
from pki.pem import is_pem
from pki.serial import serial_hex
from pki.svid.x509svid import load_certificates, subject_of
from pki.validity import rfc3339
from twisted_mesh.api.certification_messages import (
    CertificationRequested,
    Installation,
    InstallationAnswer,
    InstalledCertificate,
    InstalledCrl,
    IssuingRequest,
)
from twisted_mesh.ca.api.request import Call
from twisted_mesh.ca.api.response import Answer, json_answer
from twisted_mesh.ca.blocked_authorities import demand_unblocked
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.ca.rotation.certification import Installed, Requested
from twisted_mesh.stores.records import Conflict


async def request(ca: CaParts, call: Call) -> Answer:
    """The CSR of the key that waits: an :class:`IssuingRequest`."""
    asked = call.read(CertificationRequested)
    if ca.rotator is None:
        raise Conflict("this CA keeps no keys in files")
    made = await ca.rotator.request_certification(call.principal, anew=asked.new_key)
    return json_answer(requested_answer(made))


def requested_answer(made: Requested) -> IssuingRequest:
    """What a caller gets."""
    found = made.request
    return IssuingRequest(
        made.pem.decode("ascii"),
        found.fingerprint,
        found.pin,
        found.key_id,
        found.subject.rfc4514_string(),
        found.generation,
        [fingerprint_of(root) for root in made.roots],
    )


async def install(ca: CaParts, call: Call) -> Answer:
    """Install what was certified: an :class:`InstallationAnswer`. Raises every reason against it."""
    asked = call.read(Installation)
    if ca.rotator is None:
        raise Conflict("this CA keeps no keys in files")
    crls = [_crl(text) for text in asked.crls]
    certificates = asked.certificates.encode("utf-8", "replace")
    if certificates:
        demand_unblocked(ca.blocked, load_certificates(certificates, "the files"))
    installed = await ca.rotator.install(call.principal, certificates, crls, dry_run=asked.dry_run)
    return json_answer(installed_answer(installed, done=not asked.dry_run))


def installed_answer(installed: Installed, *, done: bool) -> InstallationAnswer:
    """What a caller gets."""
    return InstallationAnswer(
        [_certificate(chain) for chain in installed.chains],
        [
            InstalledCrl(crl.issuer, str(crl.number), rfc3339(crl.next_update), len(crl))
            for crl in installed.crls
        ],
        installed.generation,
        installed.is_prepared,
        done,
    )


def _certificate(chain: IssuingChain) -> InstalledCertificate:
    certificate = chain.certificate
    return InstalledCertificate(
        subject_of(certificate),
        serial_hex(certificate.serial_number),
        fingerprint_of(certificate),
        spki_pin(certificate.public_key()),
        fingerprint_of(chain.root),
        [subject_of(above) for above in chain.certificates[1:]],
        rfc3339(certificate.not_valid_after_utc),
    )


def _crl(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    if is_pem(data):
        return data
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        raise Malformed("crls has what is neither PEM nor base64") from None
