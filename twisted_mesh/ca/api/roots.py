"""The routes of the roots: how their rotation stands, and its steps."""

import msgspec
from cryptography import x509

from pki.errors import Malformed
from pki.issuing import root_conditions
from pki.issuing.root_conditions import Wait
from pki.issuing.root_line import RootStep, fingerprint_of
from pki.keys import key_id, spki_pin
from pki.serial import serial_hex
from pki.svid.x509svid import load_certificates, subject_of
from pki.validity import rfc3339
from twisted_mesh.api.root_messages import (
    DistrustRequest,
    FormerRootRow,
    RemnantRow,
    RootDistrusted,
    RootRow,
    RootStatus,
    RootStepDone,
    RootStepRequest,
    RootWait,
)
from twisted_mesh.ca.api.entries import reason_of
from twisted_mesh.ca.api.request import Call, given_reason
from twisted_mesh.ca.api.response import Answer, json_answer, optional_time
from twisted_mesh.ca.blocked_authorities import demand_unblocked
from twisted_mesh.ca.parts import CaParts
from twisted_mesh.ca.rotation.distrusting import Plan
from twisted_mesh.ca.rotation.root_rotator import RootRotator
from twisted_mesh.stores.records import Conflict

_MOST_NAMED = 100


async def status(ca: CaParts, call: Call) -> Answer:
    """How the rotation stands: :class:`RootStatus`."""
    rotator = _rotator(ca)
    waits = await rotator.waits(root_conditions.next_step(rotator.line))
    return json_answer(_status(rotator, waits))


async def prepare(ca: CaParts, call: Call) -> Answer:
    """Publish the next root. Raises what :meth:`RootRotator.do` raises."""
    return await _do(ca, call, RootStep.PREPARE)


async def activate(ca: CaParts, call: Call) -> Answer:
    """Have both roots certify what issues. Raises as :func:`prepare`."""
    return await _do(ca, call, RootStep.ACTIVATE)


async def retire(ca: CaParts, call: Call) -> Answer:
    """Have chains lead to the new root, and believe the old one no more. Raises as :func:`prepare`."""
    return await _do(ca, call, RootStep.RETIRE)


async def revert(ca: CaParts, call: Call) -> Answer:
    """Take the last step back. Raises as :func:`prepare`."""
    return await _do(ca, call, RootStep.REVERT)


STEPS = {"prepare": prepare, "activate": activate, "retire": retire, "revert": revert}


async def _do(ca: CaParts, call: Call, step: RootStep) -> Answer:
    asked, rotator = call.read(RootStepRequest), _rotator(ca)
    root = _brought(asked.root) if step is RootStep.PREPARE else None
    if root is not None:
        demand_unblocked(ca.blocked, (root,))
    done = await rotator.do(
        call.principal,
        step,
        force=asked.force,
        dry_run=asked.dry_run,
        reason=reason_of(asked.reason),
        root=root,
    )
    waits = await rotator.waits(root_conditions.next_step(rotator.line))
    return json_answer(
        RootStepDone(done.is_done, [*map(_wait, done.waits)], _status(rotator, waits))
    )


async def distrust(ca: CaParts, call: Call) -> Answer:
    """Have nobody believe a root any more, or say what that takes: :class:`RootDistrusted`.

    Raises what :meth:`RootDistruster.distrust` raises, and :class:`Malformed`.
    """
    asked, distruster = call.read(DistrustRequest), ca.distruster
    if distruster is None:
        raise Conflict("this CA keeps no keys in files")
    reason = given_reason(asked.reason)
    if asked.dry_run:
        return json_answer(_planned(distruster.plan(call.principal, asked.fingerprint)))
    done = await distruster.distrust(call.principal, asked.fingerprint, reason)
    remnants = [
        RemnantRow(
            remnant.where,
            subject_of(remnant.certificate),
            serial_hex(remnant.certificate.serial_number),
            key_id(remnant.certificate.public_key()),
            str(remnant.remains),
        )
        for remnant in done.remnants
    ]
    return json_answer(
        msgspec.structs.replace(
            _planned(done.plan),
            done=True,
            revoked_at=rfc3339(done.row.revocation.revoked_at),
            reason=str(done.row.revocation.reason),
            root=ca.authorities.fingerprint,
            remnants=remnants,
            leaves=done.leaves,
            proven=done.is_proven,
            waits=None if done.waits is None else str(done.waits),
        )
    )


def _planned(plan: Plan) -> RootDistrusted:
    return RootDistrusted(
        fingerprint_of(plan.root),
        subject_of(plan.root),
        list(plan.steps),
        list(plan.alone),
        done=False,
    )


def _brought(pem: str) -> x509.Certificate | None:
    """The root that a caller brings; None where it brings none. Raises :class:`Malformed`."""
    if not pem:
        return None
    found = load_certificates(pem.encode("utf-8", "replace"), "root")
    if len(found) != 1:
        raise Malformed(f"root holds {len(found)} certificates: send the root's alone")
    return found[0]


def _rotator(ca: CaParts) -> RootRotator:
    if ca.root_rotator is None:
        raise Conflict("this CA keeps no keys in files")
    return ca.root_rotator


def _status(rotator: RootRotator, waits: tuple[Wait, ...]) -> RootStatus:
    authorities, line = rotator.current.current, rotator.line
    rows = [
        RootRow(
            fingerprint_of(root),
            spki_pin(root.public_key()),
            subject_of(root),
            rfc3339(root.not_valid_before_utc),
            rfc3339(root.not_valid_after_utc),
            root == line.served,
            str(rotator.root_steps.rotation_steps.root_key_path(root)),
            authorities.key_of(root) is not None,
        )
        for root in line.roots
    ]
    former = [
        FormerRootRow(one.fingerprint, one.pin, one.subject, rfc3339(one.at), str(one.how))
        for one in line.former
    ]
    return RootStatus(
        str(line.phase),
        optional_time(line.since),
        rows,
        list(authorities.next_pins),
        rotator.current.bundle().sequence,
        str(root_conditions.next_step(line)),
        optional_time(rotator.next_step_at()),
        root_conditions.following(line),
        [*map(_wait, waits)],
        former,
    )


def _wait(wait: Wait) -> RootWait:
    found = wait.problem
    return RootWait(
        str(found.code), found.detail, found.remedy, list(wait.who[:_MOST_NAMED]), wait.is_blocking
    )
