"""What a step of a root's rotation waits for, and when the next rotation is due."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from attrs import frozen

from pki.codes import Code
from pki.errors import Problem, printable
from pki.issuing.root_line import Phase, RootLine, RootStep
from pki.validity import Validity, rfc3339, spoken_duration

#: How many times the refresh hint whoever polls may need (SPIFFE federation, section 4.1).
HINTS = 5
#: A rotation that has stood still for so long was forgotten by somebody.
FORGOTTEN = timedelta(days=30)
#: The share of its life at whose beginning a root is to be followed by another one: a fifth is left then.
LAST_SHARE = 5
#: Or so many lives of an issuing CA are left: of the last of these none is cut short by the root's end.
LAST_ISSUING_LIVES = 2
_MOST_NAMED = 10


class RootMode(StrEnum):
    """What is done about the root's end without being asked."""

    REMIND = "remind"
    """It is told in time."""
    AUTO = "auto"
    """Each step is taken once nothing stands against it."""


@frozen
class Resting:
    """Certificates that are valid, and that rest on the old root alone."""

    issuer: str
    """The key id of the issuing CA."""
    count: int
    is_more: bool
    """Whether there are more than were counted."""
    until: datetime
    """When the last of those that were counted ends."""
    examples: tuple[str, ...] = ()
    """Some of their SPIFFE IDs."""


@frozen
class Followers:
    """How those who have to follow stand at this moment. Names are for people."""

    lagging: tuple[str, ...] = ()
    """They have said which bundle they hold, and it is an older one."""
    not_serving: tuple[str, ...] = ()
    """They have said which root the chain leads to that they serve, and it is not the new one."""
    silent: tuple[str, ...] = ()
    """They hold valid certificates and have never said anything."""
    domains: tuple[str, ...] = ()
    """Federated trust domains, which fetch the bundle themselves."""
    broken_pins: tuple[str, ...] = ()
    """Endpoints that enforce pins which the next keys are not among."""
    resting: tuple[Resting, ...] = ()
    up_since: datetime | None = None
    """When this CA began to listen; None where that does not matter."""


@frozen
class Wait:
    """What stands against a step, or is only told."""

    problem: Problem
    who: tuple[str, ...] = ()
    is_blocking: bool = True
    """Whether the step waits for it, unless it is forced."""


def polled_until(line: RootLine, refresh_hint: int) -> datetime | None:
    """When whoever polls the bundle has seen the new root; None where none is awaited."""
    if line.phase is not Phase.PREPARED or line.since is None:
        return None
    return line.since + timedelta(seconds=HINTS * refresh_hint)


def waits(
    step: RootStep,
    line: RootLine,
    followers: Followers,
    now: datetime,
    *,
    refresh_hint: int,
    longest_wait: timedelta = timedelta(),
) -> tuple[Wait, ...]:
    """All that stands against ``step`` now, and what is to be known about it.

    ``longest_wait`` is for how long an endpoint's question may wait: who has been here for less has not been heard.
    """
    if step is RootStep.ACTIVATE:
        return tuple(_against_activation(line, followers, now, refresh_hint, longest_wait))
    if step is RootStep.RETIRE:
        return tuple(_against_retirement(line, followers, now))
    return ()


def _against_activation(
    line: RootLine,
    followers: Followers,
    now: datetime,
    refresh_hint: int,
    longest_wait: timedelta,
) -> Iterator[Wait]:
    if followers.lagging:
        yield _of(
            Code.ROOT_UNACKNOWLEDGED,
            f"{len(followers.lagging)} have told which bundle they hold, and the new root is not in it",
            "see what keeps them from their CA; with --force it goes on, and they refuse who comes with the new chain",
            followers.lagging,
        )
    until = polled_until(line, refresh_hint)
    if until is not None and now < until:
        yield _of(
            Code.ROOT_TOO_SOON,
            f"whoever polls the bundle has seen the new root by {rfc3339(until)}, {HINTS} times the refresh hint after "
            "it was prepared",
            f"wait for {spoken_duration(until - now)} more, or add --force",
        )
    yield from _pinned(followers)
    yield from _unheard(followers)
    if followers.up_since is not None and now - followers.up_since < 2 * longest_wait:
        yield _of(
            Code.ROOT_UNACKNOWLEDGED,
            f"this CA has listened for {spoken_duration(now - followers.up_since)}: not everybody has been heard since",
            "look again in a few minutes",
            is_blocking=False,
        )


def _against_retirement(line: RootLine, followers: Followers, now: datetime) -> Iterator[Wait]:
    for resting in followers.resting:
        more = " or more" if resting.is_more else ""
        yield _of(
            Code.ROOT_IN_USE,
            f"{resting.count:,}{more} valid certificates of the issuing CA {resting.issuer[:16]} rest on the old root "
            f"alone, the last of them until {rfc3339(resting.until)}",
            "wait until they are renewed or have ended; with --force they are refused everywhere, and join anew by a "
            "token",
            resting.examples,
        )
    if line.phase is Phase.SWITCHED and followers.not_serving:
        yield _of(
            Code.ROOT_UNACKNOWLEDGED,
            f"{len(followers.not_serving)} serve a chain to the old root still",
            "see what keeps them from their CA; with --force it goes on, and their peers refuse them",
            followers.not_serving,
        )
    if followers.lagging:
        yield _of(
            Code.ROOT_UNACKNOWLEDGED,
            f"{len(followers.lagging)} have told which bundle they hold, and the new root is not in it",
            "see what keeps them from their CA; with --force it goes on, and they refuse everybody",
            followers.lagging,
        )
    yield from _pinned(followers)
    yield from _unheard(followers)


def _pinned(followers: Followers) -> Iterator[Wait]:
    if followers.broken_pins:
        yield _of(
            Code.ROOT_BREAKS_PIN,
            f"{len(followers.broken_pins)} enforce pins that the next keys are not among",
            "add the announced pins there first; with --force it goes on, and they refuse their peers",
            followers.broken_pins,
        )


def _unheard(followers: Followers) -> Iterator[Wait]:
    if followers.silent:
        yield _of(
            Code.ROOT_UNACKNOWLEDGED,
            f"of {len(followers.silent)} IDs with valid certificates nobody tells by name which bundle is held: "
            "exported files, other programs, machines that are off, and who calls on the CA's socket",
            "see that they have the new root before you go on: nothing waits for them",
            followers.silent,
            is_blocking=False,
        )
    if followers.domains:
        yield _of(
            Code.ROOT_UNACKNOWLEDGED,
            f"{len(followers.domains)} federated trust domains fetch the bundle themselves",
            "nothing waits for them beyond the refresh hint",
            followers.domains,
            is_blocking=False,
        )


def due_at(root: Validity, issuing_life: timedelta) -> datetime:
    """When the next root is to be prepared, unless one is: with a fifth of its life left, or two issuing CAs' lives.

    Never before half of its life.
    """
    life = root.not_after - root.not_before
    left = max(life / LAST_SHARE, LAST_ISSUING_LIVES * issuing_life)
    return root.not_after - min(left, life / 2)


def standing(line: RootLine, root: Validity, now: datetime, issuing_life: timedelta) -> Wait | None:
    """What is to be told of the roots by themselves; None where nothing is. What blocks has ended already."""
    if now > root.not_after:
        return _of(
            Code.ROOT_ENDS,
            f"the root has ended ({rfc3339(root.not_after)}), and nothing that rests on it is believed",
            "check the clock; mesh-ctl ca root status says how another one is put in its place",
        )
    left = spoken_duration(root.not_after - now)
    if line.phase is Phase.SETTLED:
        if now < due_at(root, issuing_life):
            return None
        return _of(
            Code.ROOT_ENDS,
            f"the root ends in {left}, and its successor is not prepared",
            "mesh-ctl ca root prepare",
            is_blocking=False,
        )
    if line.since is not None and now - line.since > FORGOTTEN:
        return _of(
            Code.ROOT_ENDS,
            f"the rotation of the root has been {line.phase} for {spoken_duration(now - line.since)}",
            f"go on with it, or take it back: {following(line)}, or mesh-ctl ca root revert",
            is_blocking=False,
        )
    return None


def next_step(line: RootLine) -> RootStep:
    """What follows where the rotation is."""
    return {
        Phase.SETTLED: RootStep.PREPARE,
        Phase.PREPARED: RootStep.ACTIVATE,
        Phase.ACTIVATED: RootStep.RETIRE,
        Phase.SWITCHED: RootStep.RETIRE,
    }[line.phase]


def following(line: RootLine) -> str:
    """The command of :func:`next_step`."""
    return f"mesh-ctl ca root {next_step(line)}"


def blocking(found: Sequence[Wait]) -> tuple[Problem, ...]:
    """What keeps a step from being done without force."""
    return tuple(wait.problem for wait in found if wait.is_blocking)


def _of(
    code: Code, detail: str, remedy: str, who: tuple[str, ...] = (), *, is_blocking: bool = True
) -> Wait:
    names = [printable(one, 200) for one in who[:_MOST_NAMED]]
    if len(who) > _MOST_NAMED:
        names.append("…")
    listed = f": {', '.join(names)}" if names else ""
    return Wait(Problem(code, detail + listed, remedy), who, is_blocking)
