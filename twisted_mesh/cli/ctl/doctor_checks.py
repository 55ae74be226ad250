"""What ``mesh-ctl doctor`` looks at: the CA's own checks, and those that need a look from outside."""

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
from attrs import frozen

from pki.errors import PkiError
from pki.validity import spoken_duration
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.messages import HealthCheck
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.status import DONE, REFUSED
from twisted_mesh.runtime.clock import Now, wall_clock
from twisted_mesh.state.directory import StateDirectory

#: By how much the clocks of CA and caller may differ: certificates are backdated by half a minute.
_SKEW = timedelta(seconds=30)
_ORDER = ("ok", "warn", "fail")
_LITTLE_SPACE = 64 * 1024 * 1024


def of_files(root: Path) -> list[HealthCheck]:
    """What is to be seen in the state directory, whether a CA runs or not."""
    try:
        return list(_of_files(StateDirectory(root)))
    except OSError as error:
        detail = f"{error.filename}: {error.strerror}"
        return [
            HealthCheck("state", "fail", detail, "look as the CA's user, or name its --state-dir")
        ]


def _of_files(state: StateDirectory) -> Iterator[HealthCheck]:
    if not os.path.exists(state.ca):
        detail = f"{state.ca} is not there, or not for you to see"
        yield HealthCheck("state", "fail", detail, "start a CA there once, or name its --state-dir")
        return
    yield _modes(state)
    if (state.restoring / "plan.json").exists():
        yield HealthCheck(
            "restore",
            "fail",
            f"a backup is half in place in {state.ca}",
            "run the same mesh-ctl backup restore again",
        )
    free = shutil.disk_usage(state.ca).free
    detail = f"{free // (1024 * 1024):,} MiB are free at {state.ca}"
    few = free < _LITTLE_SPACE
    yield HealthCheck("disk", "warn" if few else "ok", detail, "free some space" if few else "")


def _modes(state: StateDirectory) -> HealthCheck:
    wrong = []
    for path, most in ((state.root, 0o755), (state.ca, 0o755), (state.private, 0o700)):
        found = path.lstat()
        mode = stat.S_IMODE(found.st_mode)
        if mode & ~most and not mode & stat.S_ISVTX:
            wrong.append(f"{path} has mode {mode:04o}")
        if path != state.private and not mode & stat.S_IXOTH:
            wrong.append(f"{path} has mode {mode:04o}, so no other user reaches the socket")
    if os.access(state.private, os.R_OK | os.X_OK):
        for path in sorted(state.private.glob("*.key")):
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                wrong.append(f"{path} has mode {mode:04o}: others can read it")
    if wrong:
        remedy = "chmod 711 the directory and its ca, 700 ca/private, 600 the keys"
        return HealthCheck("modes", "fail", "; ".join(wrong), remedy)
    return HealthCheck("modes", "ok", f"{state.root} can be read by those who should")


@frozen
class Diagnosis:
    """``doctor``."""

    before: Sequence[HealthCheck]
    """What was looked at already."""
    as_json: bool
    now: Now = wall_clock

    async def __call__(self, administration: Administration) -> int:
        told = await self._of_ca(administration)
        seen = {check.name for check in told}
        checks = [*(check for check in self.before if check.name not in seen), *told]
        failed = any(check.status == "fail" for check in checks)
        if self.as_json:
            worst = max((check.status for check in checks), key=_ORDER.index)
            shown = [msgspec.to_builtins(check) for check in checks]
            output.put_json({"status": worst, "checks": shown})
        else:
            for check in checks:
                word = output.status_word(check.status, 4)
                output.put(f"{word}  {check.name}: {check.detail}")
                if check.remedy and check.status != "ok":
                    output.put(f"      -> {check.remedy}")
        return REFUSED if failed else DONE

    async def _of_ca(self, administration: Administration) -> list[HealthCheck]:
        where = administration.client.address
        try:
            health = await administration.health()
        except PkiError as error:
            if isinstance(error, CaRefused) and error.status < 500:
                raise
            (problem, *_) = error.problems
            return [HealthCheck("ca", "fail", problem.detail, problem.remedy)]
        return [
            HealthCheck("ca", "ok", f"it answers at {where}"),
            *self._clock(administration),
            *health.checks,
        ]

    def _clock(self, administration: Administration) -> Iterator[HealthCheck]:
        date = administration.client.date
        if date is None:
            return
        skew = abs(self.now() - date)
        if skew > _SKEW:
            detail = f"this machine's clock and the CA's differ by {spoken_duration(skew)}"
            yield HealthCheck("clocks", "fail", detail, "set both by NTP, then look again")
        else:
            yield HealthCheck("clocks", "ok", "this machine's clock and the CA's agree")
