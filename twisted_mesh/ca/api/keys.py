"""The routes of where the CA's keys are: each is shown and proven, and the issuing CA's is succeeded."""

import base64
from collections.abc import Iterator, Sequence

from attrs import frozen
from cryptography import x509

from pki.errors import PkiError
from pki.issuing.authority import Authority
from pki.keys import SigningKey, key_id, signature_over
from pki.keys.probe import probe
from pki.policy import policy
from pki.svid.x509svid import certificates_pem, subject_of
from pki.validity import rfc3339
from twisted_mesh.api.key_messages import (
    IssuingRotated,
    KeyRow,
    KeyRows,
    ProveKeys,
    RotateIssuing,
)
from twisted_mesh.ca.api.request import Call
from twisted_mesh.ca.api.response import Answer, json_answer
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.keystores.whereabouts import Whereabouts
from twisted_mesh.stores.records import Conflict


@frozen(eq=False, repr=False)
class _OwnKey:
    """A certificate of the CA's, and its key."""

    purpose: str
    chain: Sequence[x509.Certificate]
    """Its own, and those above it but for the root's."""
    key: SigningKey | None
    """None for a root's that was taken away."""


def _own_keys(ca: CaParts) -> Iterator[_OwnKey]:
    authorities = ca.authorities
    for root in authorities.roots:
        yield _OwnKey("root", [root], authorities.key_of(root))
    for authority in authorities.every_issuing:
        purpose = "retired"
        if authority is authorities.issuing:
            purpose = "issuing"
        elif authority is authorities.prepared:
            purpose = "prepared"
        yield _own(purpose, authority)


def _own(purpose: str, authority: Authority) -> _OwnKey:
    chain = authority.intermediates or (authority.certificate,)
    return _OwnKey(purpose, chain, authority.key)


async def prove(ca: CaParts, call: Call) -> Answer:
    """Have each key sign what the caller has drawn: :class:`KeyRows`. A key that does not is told with the reason."""
    policy.permit(call.principal, policy.Action.PROVE_KEYS)
    words = probe(call.read(ProveKeys).nonce)
    rows = [await _row(ca, own, words) for own in _own_keys(ca)]
    rows.append(await _audit_row(ca, words))
    return json_answer(KeyRows(rows))


async def rotate_issuing(ca: CaParts, call: Call) -> Answer:
    """Have the next issuing CA issue at once: :class:`IssuingRotated`. Raises what :meth:`Rotator.rotate_now` does."""
    _ = call.read(RotateIssuing)
    if ca.rotator is None:
        raise Conflict("this CA keeps no keys in files")
    before = ca.authorities.issuing.key_id
    now = await ca.rotator.rotate_now(call.principal)
    return json_answer(
        IssuingRotated(
            now.key_id,
            now.name,
            rfc3339(now.certificate.not_valid_after_utc),
            before,
            await _row(ca, _own("issuing", now), None),
        )
    )


async def _row(ca: CaParts, own: _OwnKey, words: bytes | None) -> KeyRow:
    certificate = own.chain[0]
    told = {
        "purpose": own.purpose,
        "name": subject_of(certificate),
        "key_id": key_id(certificate.public_key()),
        "certificate": certificates_pem(own.chain).decode(),
    }
    if own.key is None:
        where = Whereabouts("away", "")
        return _placed(told, None, where, None, "it was taken away")
    where = await ca.key_stores.whereabouts(own.key)
    signature, problem = await _signed(own.key, words)
    return _placed(told, own.key, where, signature, problem)


async def _audit_row(ca: CaParts, words: bytes) -> KeyRow:
    log_key = ca.log.key
    key: SigningKey = log_key.key
    told = {
        "purpose": "audit",
        "name": log_key.name,
        "key_id": key_id(key.public_key),
        "verifier": str(log_key.verifier),
    }
    signature, problem = await _signed(key, words)
    return _placed(told, key, await ca.key_stores.whereabouts(key), signature, problem)


def _placed(
    told: dict[str, str],
    key: SigningKey | None,
    where: Whereabouts,
    signature: str | None,
    problem: str,
) -> KeyRow:
    said = f"{where.problem}" if where.problem is not None else ""
    return KeyRow(
        purpose=told["purpose"],
        name=told["name"],
        key_id=told["key_id"],
        certificate=told.get("certificate", ""),
        verifier=told.get("verifier", ""),
        algorithm="" if key is None else str(key.algorithm),
        kind=where.kind,
        signature=signature,
        problem=problem or said,
        uri=where.uri,
        store=where.store,
        manufacturer=where.manufacturer,
        model=where.model,
        serial=where.serial,
        label=where.label,
        id=where.id,
        extractable=where.is_extractable,
        ever_extractable=where.was_ever_extractable,
        sensitive=where.is_sensitive,
        made_there=where.is_local,
        own_pin=where.own_pin,
    )


async def _signed(key: SigningKey, words: bytes | None) -> tuple[str | None, str]:
    """The signature in base64; or None, and why."""
    if words is None:
        return None, ""
    try:
        made = await signature_over(words, key, key.public_key)
    except PkiError as error:
        return None, str(error.problems[0])
    return base64.b64encode(made).decode(), ""
