"""The routes of the CA's keys: certificates are signed, the root's key is detached."""

import base64
from functools import lru_cache
from http import HTTPStatus

from cryptography import x509

from pki.der import pem
from pki.pem import CERTIFICATE
from pki.policy import policy
from pki.serial import serial_hex
from pki.svid.x509svid import certificates_pem
from pki.validity import parse_duration, rfc3339
from twisted_mesh.api.ca_messages import (
    BackupRequest,
    BackupSignature,
    Detached,
    DetachRequest,
    IssuingRevoked,
    RevokedCa,
    RevokeIssuing,
)
from twisted_mesh.api.messages import (
    SignAnswer,
    SignRequest,
)
from twisted_mesh.ca import saved_state
from twisted_mesh.ca.api.request import Call, given_reason, key_digest
from twisted_mesh.ca.api.response import Answer, json_answer
from twisted_mesh.ca.issuance import Issued
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.stores.records import Conflict


async def sign(ca: CaParts, call: Call) -> Answer:
    """Have a certificate issued: a :class:`SignAnswer`. Raises what ``CertificateAuthority.sign`` raises."""
    asked = call.read(SignRequest)
    ttl = parse_duration(asked.ttl) if asked.ttl is not None else None
    csr = asked.csr.encode("utf-8", "replace")
    issued = await ca.certificates.sign(
        call.principal,
        csr,
        asked.requested_id,
        ttl,
        call.idempotency_key,
        token=call.token,
        source=call.source,
    )
    return json_answer(issued_answer(issued, asked.requested_id), HTTPStatus.CREATED)


def issued_answer(issued: Issued, spiffe_id: str) -> SignAnswer:
    """What a caller gets."""
    return SignAnswer(
        certificate=pem(CERTIFICATE, issued.der).decode("ascii"),
        chain=[_pem(cert) for cert in issued.intermediates],
        expires_at=rfc3339(issued.expires_at),
        serial=serial_hex(issued.serial),
        spiffe_id=spiffe_id,
    )


async def detach_root(ca: CaParts, call: Call) -> Answer:
    """Delete the root's key, of which a copy is held elsewhere. Raises :class:`CannotDetach`."""
    asked = call.read(DetachRequest)
    if ca.rotator is None:
        raise Conflict("this CA keeps no keys in files")
    detached = await ca.rotator.detach_root(call.principal, asked.sha256)
    return json_answer(
        Detached(detached.prepared, rfc3339(detached.wanted_at), rfc3339(detached.issues_until))
    )


async def revoke_issuing(ca: CaParts, call: Call) -> Answer:
    """Revoke an issuing CA. Raises what :meth:`AuthorityRevoker.revoke` raises, and :class:`Malformed`."""
    asked = call.read(RevokeIssuing)
    if ca.revoker is None:
        raise Conflict("this CA keeps no keys in files")
    issuer, reason = key_digest(asked.issuer, "issuer") or "", given_reason(asked.reason)
    done = await ca.revoker.revoke(call.principal, issuer, reason, force=asked.force)
    return json_answer(
        IssuingRevoked(
            [
                RevokedCa(
                    row.revocation.issuer,
                    serial_hex(row.revocation.serial),
                    row.name,
                    rfc3339(row.revocation.revoked_at),
                    str(row.revocation.reason),
                )
                for row in done.revoked
            ],
            done.was_revoked,
            done.issuing,
            None if done.waits is None else str(done.waits),
        )
    )


async def sign_backup(ca: CaParts, call: Call) -> Answer:
    """Sign the digest of a backup's manifest, with the key that verifies our audit log.

    The act is in no audit log: it would be one that the backup lacks.
    """
    policy.permit(call.principal, policy.Action.SIGN_BACKUP)
    asked, log_key = call.read(BackupRequest), str(ca.log.key.verifier)
    ca.authorities.demand_in_use(ca.authorities.issuing)
    signature = await saved_state.sign_backup(ca.authorities.issuing.key, asked.sha256, log_key)
    return json_answer(BackupSignature(log_key, base64.b64encode(signature).decode()))


@lru_cache(maxsize=16)
def _pem(issuer: x509.Certificate) -> str:
    return certificates_pem([issuer]).decode()
