"""What ``mesh-ctl ca`` does: show the CA's own certificates, and take the root's key away."""

import os
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import msgspec
from attrs import frozen
from cryptography import x509

from pki.errors import PkiError, Refused
from pki.issuing.root_line import fingerprint_of
from pki.keys import is_reference, key_id
from pki.serial import serial_hex, serial_pairs
from pki.svid.x509svid import load_certificates, subject_of, validity_of
from pki.validity import rfc3339, spoken_duration
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.ca_messages import Detached
from twisted_mesh.api.messages import HealthCheck
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.ca.revoked_authorities import NAME as REVOKED
from twisted_mesh.ca.revoked_authorities import RevokedAuthority, parse
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.options import confirmed
from twisted_mesh.cli.program import Unusable
from twisted_mesh.cli.status import DONE, REFUSED
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.state.directory import StateDirectory, read_file
from twisted_mesh.state.key_files import Copy, copy_out, remove_file

_ROOT_KEY = re.compile(r"root(?:-[1-9][0-9]{0,8})?\.key", re.ASCII)


def issuing_certificates(state: Path) -> list[tuple[str, x509.Certificate]]:
    """What the state directory has of issuing CAs, the active one first; those that can be read."""
    found = []
    try:
        paths = sorted(StateDirectory(state).ca.glob("issuing*.crt"), key=lambda p: len(p.name))
    except OSError:  # a directory on the way is closed: the CA is asked all the same
        paths = []
    for path in paths:
        try:
            (certificate, *_) = load_certificates(read_file(path, "the certificate"), str(path))
        except PkiError as error:
            output.say(str(error))
        else:
            found.append((path.name, certificate))
    return found


def revoked_authorities(state: Path) -> Sequence[RevokedAuthority]:
    """What the state directory has of CAs that are revoked; nothing where that cannot be read."""
    path = StateDirectory(state).ca / REVOKED
    try:
        return parse(read_file(path, "the file"), path) if path.exists() else ()
    except OSError:  # a directory on the way is closed: the CA is asked all the same
        return ()
    except PkiError as error:
        output.say(str(error))
        return ()


@frozen
class Showing:
    """``ca show``."""

    issuing: Sequence[tuple[str, x509.Certificate]]
    as_json: bool
    revoked: Sequence[RevokedAuthority] = ()

    async def __call__(self, administration: Administration) -> int:
        roots = await administration.client.roots()
        health = await administration.health()
        checks = [
            check for check in health.checks if check.name in ("issuer", "signing", "keys", "crls")
        ]
        now = wall_clock()
        certificates = [*(("root", root) for root in roots), *self.issuing]
        if self.as_json:
            output.put_json(
                {
                    "certificates": [_told(name, cert, now) for name, cert in certificates],
                    "revoked": [
                        {
                            **_told("revoked", row.certificate, now),
                            "revoked_at": rfc3339(row.revocation.revoked_at),
                            "reason": str(row.revocation.reason),
                        }
                        for row in self.revoked
                    ],
                    "checks": [msgspec.to_builtins(check) for check in checks],
                }
            )
            return DONE
        for name, certificate in certificates:
            _put(name, certificate, now)
        for row in self.revoked:
            revocation = row.revocation
            _put(
                f"revoked at {rfc3339(revocation.revoked_at)} ({revocation.reason})",
                row.certificate,
                now,
            )
        for check in checks:
            output.put(_line(check))
        return DONE


def _put(name: str, certificate: x509.Certificate, now: datetime) -> None:
    validity = validity_of(certificate)
    left = validity.not_after - now
    lasts = spoken_duration(left) + " left" if left.total_seconds() > 0 else "has ended"
    output.put(name)
    output.put_facts(
        {
            "  subject": subject_of(certificate),
            "  serial": serial_pairs(certificate.serial_number),
            "  valid": f"{rfc3339(validity.not_before)} to {rfc3339(validity.not_after)}, {lasts}",
            "  fingerprint": fingerprint_of(certificate),
            "  key id": key_id(certificate.public_key()),
        }
    )
    output.put("")


def _told(name: str, certificate: x509.Certificate, now: datetime) -> dict[str, object]:
    validity = validity_of(certificate)
    return {
        "name": name,
        "subject": subject_of(certificate),
        "serial": serial_hex(certificate.serial_number),
        "not_before": rfc3339(validity.not_before),
        "not_after": rfc3339(validity.not_after),
        "seconds_left": int((validity.not_after - now).total_seconds()),
        "fingerprint": fingerprint_of(certificate),
        "key_id": key_id(certificate.public_key()),
    }


def _line(check: HealthCheck) -> str:
    advice = f": {check.remedy}" if check.remedy else ""
    return f"{output.status_word(check.status)}: {check.detail}{advice}"


def root_key(name: str) -> str:
    """The name of the file of a root's key. Raises :class:`Unusable`."""
    if not _ROOT_KEY.fullmatch(name):
        raise Unusable(
            "--key is root.key or root-N.key: mesh-ctl ca root status shows which there are"
        )
    return name


@frozen
class Detaching:
    """``ca detach-root``."""

    state: Path
    destination: Path
    key: str
    """The file's name: during a rotation there are two."""
    yes: bool
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        source = StateDirectory(self.state).private / self.key
        await administration.health()  # that it answers us at all, before a copy of the key is made
        if not os.path.exists(source):
            output.say(
                f"{source} is not there, or not for you to see: it was taken away before, or you are not the CA's user"
            )
            return REFUSED
        question = f"Take {source} away, to {self.destination}?"
        if not confirmed(question, yes=self.yes):
            output.say("nothing was done")
            return REFUSED
        copy = copy_out(source, self.destination, state=self.state)
        try:
            detached = await administration.detach_root(copy.sha256)
        except CaRefused:
            remove_file(copy.path)  # the CA has its key, and one copy of it is enough
            raise
        except PkiError as error:
            raise _unsure(source, copy, error) from None
        if source.exists():
            output.say(f"the CA says that it is done, but {source} is still there: look into it")
            return REFUSED
        is_elsewhere = is_reference(read_file(copy.path, "the copy"))
        sentences = _sentences(source, copy, detached, is_elsewhere=is_elsewhere)
        self._put(sentences, copy, detached)
        return DONE

    def _put(self, sentences: Iterable[str], copy: Copy, detached: Detached) -> None:
        if self.as_json:
            told = {"copy": str(copy.path), "sha256": copy.sha256}
            output.put_json({**told, **msgspec.to_builtins(detached)})
            return
        for sentence in sentences:
            output.put(sentence)
        output.put(f"Without it, certificates are issued until {detached.issues_until}.")


def _sentences(source: Path, copy: Copy, detached: Detached, *, is_elsewhere: bool) -> list[str]:
    successor = "The next issuing CA is prepared. " if detached.prepared else ""
    where = (
        f"The root's key is at {copy.path} only (sha256 {copy.sha256}). Make a second copy of it."
    )
    if is_elsewhere:
        where = (
            f"The CA has forgotten where the root's key is: {copy.path} says it. THE KEY ITSELF IS STILL THERE: take "
            "its token out, or its signer away."
        )
    return [
        where,
        f"{successor}The key is needed again at {detached.wanted_at}: copy it back to {source}, owned by the CA's "
        "user, mode 0600; the running CA finds it by itself.",
    ]


def _unsure(source: Path, copy: Copy, error: PkiError) -> PkiError:
    still = "is still there" if source.exists() else "is gone"
    (problem, *_) = error.problems
    return Refused(
        [
            type(problem)(
                problem.code,
                f"{problem.detail}; a copy is at {copy.path}, and {source} {still}",
                "keep the copy; once the CA answers, delete the copy and repeat this if the key is still there",
            )
        ]
    )
