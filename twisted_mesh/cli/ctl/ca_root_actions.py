"""What ``mesh-ctl ca root`` does: show how the rotation of the root stands, and take its steps."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
from attrs import frozen

from pki.errors import Malformed
from pki.issuing.root_line import fingerprint_of
from pki.svid.x509svid import certificates_pem, load_certificates, subject_of
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.root_messages import (
    RootStatus,
    RootStepDone,
    RootStepRequest,
    RootWait,
)
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.options import confirmed
from twisted_mesh.cli.status import DONE, REFUSED
from twisted_mesh.state.directory import read_file

#: Seconds between two looks whether everybody serves the new chain, and how long that is waited for.
_PAUSE, _PATIENCE = 1.0, 30.0
_QUESTIONS = {
    "prepare": "Make another root, and publish it in every bundle?",
    "activate": "Have an issuing CA issue that both roots certify?",
    "retire": "Have all chains lead to the new root, and believe the old one no more, for good?",
    "revert": "Take the last step of the root's rotation back?",
}
_DONE = {
    "prepare": "The next root is published. Make a backup: an older one lacks it.",
    "activate": "Both roots certify what issues. Make a backup: an older one lacks it.",
    "retire": "The old root is retired, and its key is deleted here: destroy its copies, and make a backup. Whoever "
    "joins from now on compares with the new fingerprint.",
    "revert": "The step is taken back. Make a backup: an older one would bring it again.",
}


@frozen
class Showing:
    """``ca root status``."""

    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        status = await administration.root()
        if self.as_json:
            output.put_json(msgspec.to_builtins(status))
        else:
            _put(status)
        return DONE


@frozen
class Stepping:
    """``ca root prepare``, ``activate``, ``retire`` and ``revert``."""

    step: str
    how: RootStepRequest
    yes: bool
    as_json: bool
    sleep: Callable[[float], None] = time.sleep

    async def __call__(self, administration: Administration) -> int:
        dry_run = self.how.dry_run
        if not dry_run and not confirmed(_question(self.step, self.how), yes=self.yes):
            output.say("nothing was done")
            return REFUSED
        done = await administration.step_root(self.step, self.how)
        if not dry_run and not done.done:
            done = await self._wait(administration, done)
        if self.as_json:
            output.put_json(msgspec.to_builtins(done))
        elif dry_run:
            _put_waits(done.waits, f"nothing stands against ca root {self.step}")
        else:
            _put(done.status)
            output.say(_DONE[self.step] if done.done else _HALF_WAY)
        is_blocked = any(wait.blocking for wait in done.waits)
        return REFUSED if (dry_run and is_blocked) or not (dry_run or done.done) else DONE

    async def _wait(self, administration: Administration, done: RootStepDone) -> RootStepDone:
        """Endpoints have the new chain within a moment, where they can be reached."""
        for _ in range(int(_PATIENCE / _PAUSE)):
            look = msgspec.structs.replace(self.how, dry_run=True)
            looked = await administration.step_root(self.step, look)
            if not any(wait.blocking for wait in looked.waits):
                return await administration.step_root(self.step, self.how)
            self.sleep(_PAUSE)
        return done


_HALF_WAY = (
    "Chains lead to the new root, and the old one is believed until everybody serves them: ask again, with --force to "
    "wait for nobody"
)


def root_in(path: str) -> str:
    """The one certificate of a file, in PEM; its fingerprint is said. Raises :class:`Malformed` and StateError."""
    found = load_certificates(read_file(Path(path), "the root's certificate"), path)
    if len(found) != 1:
        raise Malformed(
            f"{path} holds {len(found)} certificates: name the file with the root's alone"
        )
    output.say(f"the root in {path} is {subject_of(found[0])}, {fingerprint_of(found[0])}")
    return certificates_pem(found).decode()


def _question(step: str, how: RootStepRequest) -> str:
    forced = " Whatever stands against it is passed over." if how.force else ""
    return _QUESTIONS[step] + forced


def _put(status: RootStatus) -> None:
    since = f" since {status.since}" if status.since else ""
    output.put(f"phase: {status.phase}{since}")
    output.put("")
    for root in status.roots:
        output.put("root (chains lead to it)" if root.is_served else "root (believed besides)")
        where = root.key if root.has_key else f"not here; wanted as {root.key}"
        output.put_facts(
            {
                "  subject": root.subject,
                "  fingerprint": root.fingerprint,
                "  pin": root.pin,
                "  valid": f"{root.not_before} to {root.not_after}",
                "  key": where,
            }
        )
        output.put("")
    roots = {root.pin for root in status.roots}
    for pin in status.next_keys:
        whose = "next root" if pin in roots else "next issuing CA"
        output.put(f"a key to come, of the {whose}: {pin}")
    for former in status.former:
        output.put(f"{former.how} at {former.at}: {former.fingerprint}")
    due = f", from {status.next_at} on" if status.next_at else ""
    output.put(f"next: {status.command}{due}")
    if status.waits:
        _put_waits(status.waits, "")


def _put_waits(waits: Iterable[RootWait], nothing: str) -> None:
    told = False
    for wait in waits:
        told = True
        advice = f": {wait.remedy}" if wait.remedy else ""
        output.put(f"{'waits' if wait.blocking else 'note'}: {wait.detail}{advice} [{wait.code}]")
    if not told and nothing:
        output.put(nothing)
