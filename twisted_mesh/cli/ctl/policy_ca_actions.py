"""What ``mesh-ctl policy`` does with the policy of a running CA: show, reload, withdraw, and ask another the same."""

from collections import Counter
from pathlib import Path

import msgspec
from attrs import frozen

from pki.codes import Code
from pki.errors import printable
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.policy_messages import IN_FORCE, DecisionRow, PolicyStatus
from twisted_mesh.api.refusal import CaRefused
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.options import confirmed
from twisted_mesh.cli.ctl.policy_replay import Change, Replay, replay
from twisted_mesh.cli.status import DONE, REFUSED

_HEADINGS = ("RULE", "EFFECT", "ON", "WHEN")
_CHANGES = ("AT", "ACTION", "SPIFFE ID", "WHO", "WAS", "WOULD BE", "BY RULE")
#: Of an expression so many characters are shown in a table.
_SHOWN = 100


@frozen
class Showing:
    """``policy show``."""

    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        status = await administration.policy()
        _put(status, as_json=self.as_json)
        return DONE if status.state == IN_FORCE else REFUSED


@frozen
class Reloading:
    """``policy reload``."""

    reason: str
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        try:
            status = await administration.reload_policy(self.reason)
        except CaRefused as error:
            if error.problems[0].code is Code.BAD_POLICY:
                output.say("nothing has changed: what was read before stays in force")
            raise
        _put(status, as_json=self.as_json)
        if not self.as_json:
            output.say(
                "it is in force" if status.changed else "nothing has changed: it is the same"
            )
        return DONE


@frozen
class Withdrawing:
    """``policy withdraw``."""

    reason: str
    yes: bool
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        question = "Have entries alone decide what is issued, until the policy is read again?"
        if not confirmed(question, yes=self.yes):
            output.say("nothing was done")
            return REFUSED
        status = await administration.withdraw_policy(self.reason)
        _put(status, as_json=self.as_json)
        if not self.as_json:
            output.say(
                "the policy is not asked any more: mesh-ctl policy reload puts it in force again"
            )
        return DONE


@frozen
class DryRun:
    """``policy dry-run``."""

    path: Path
    last: int
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        done = replay(self.path, await administration.decisions(self.last))
        if self.as_json:
            output.put_json(msgspec.to_builtins(done))
        else:
            _put_replay(done)
        return REFUSED if done.changes else DONE


def _put(status: PolicyStatus, *, as_json: bool) -> None:
    if as_json:
        output.put_json(msgspec.to_builtins(status))
        return
    facts: output.Facts = {"State": status.state}
    if status.digest:
        facts |= {"Files": status.path, "Digest": status.digest, "Since": status.loaded_at or ""}
    if status.withdrawn is not None:
        ended = status.withdrawn
        facts["Withdrawn"] = [ended.at, f"by {ended.by}", ended.reason or "no reason given"]
    if status.problem:
        facts["Not taken up"] = status.problem
    output.put_facts(facts)
    if status.rules:
        output.put("")
        rows = [
            (
                rule.name,
                rule.effect,
                " ".join(rule.on),
                printable(" ".join(rule.when.split()), _SHOWN),
            )
            for rule in status.rules
        ]
        output.put_table(_HEADINGS, rows)


def _put_replay(done: Replay) -> None:
    if done.changes:
        output.put_table(_CHANGES, [_row(change) for change in done.changes])
        output.put("")
    if not (done.asked or done.left_out):
        output.say(
            "nothing was asked, so this says nothing: the CA has recorded no request yet. It records what it asks a "
            'policy, so start it with one, at first with a single rule that allows all (when = "true")'
        )
        return
    told = Counter(f"{change.was.outcome} to {change.outcome}" for change in done.changes)
    counted = output.counted(done.asked, "request")
    output.say(
        f"{counted}, asked as at their own time: "
        + (", ".join(f"{number} {what}" for what, number in told.items()) or "nothing would change")
    )
    if done.left_out:
        output.say(
            f"{output.counted(done.left_out, 'decision')} could not be read and were left out"
        )
    if done.unasked:
        output.say(
            f"of what it would allow, {output.counted(done.unasked, 'request')} would also be asked of decision points "
            "outside, which were not asked now"
        )


def _row(change: Change) -> tuple[str, ...]:
    was: DecisionRow = change.was
    request = was.input.get("request") or {}
    principal = was.input.get("principal") or {}
    return (
        was.at,
        str(was.input.get("action", "")),
        str(request.get("spiffe_id", "")),
        str(principal.get("proof", "")),
        f"{was.outcome} ({was.rule})" if was.rule else was.outcome,
        str(change.outcome),
        change.rule or change.reason,
    )
