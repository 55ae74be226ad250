"""The routes of the policy: what is in force, read it again, take it back, what it has decided."""

from pki.policy.policy import Forbidden
from twisted_mesh.api.policy_messages import (
    MOST_DECISIONS,
    Decisions,
    PolicyStatus,
    ReloadPolicy,
    WithdrawPolicy,
)
from twisted_mesh.ca.api.entries import reason_of
from twisted_mesh.ca.api.request import Call
from twisted_mesh.ca.api.response import Answer, json_answer
from twisted_mesh.ca.parts import CaParts


async def show(ca: CaParts, call: Call) -> Answer:
    """What is in force: :class:`PolicyStatus`."""
    return json_answer(_status(ca))


async def reload(ca: CaParts, call: Call) -> Answer:
    """Read it again. Raises what :meth:`PolicyGate.reload` raises: then nothing has changed."""
    changed = await ca.policy.reload(call.principal, reason_of(call.read(ReloadPolicy).reason))
    return json_answer(_status(ca, changed=bool(changed)))


async def withdraw(ca: CaParts, call: Call) -> Answer:
    """Ask it no more until it is read again. Raises :class:`Forbidden`, and what :meth:`PolicyGate.withdraw` raises."""
    asked = call.read(WithdrawPolicy)
    if not call.source.is_local:
        raise Forbidden(
            "local-only",
            "a policy is taken back on the CA's own machine, by its unix socket: it is what an administrator's stolen "
            "certificate must not undo",
        )
    await ca.policy.withdraw(call.principal, reason_of(asked.reason))
    return json_answer(_status(ca, changed=True))


async def decisions(ca: CaParts, call: Call) -> Answer:
    """The last ones: :class:`Decisions`."""
    count = call.number("last", 100, 1, MOST_DECISIONS)
    return json_answer(Decisions(await ca.policy.last(count)))


def _status(ca: CaParts, *, changed: bool = False) -> PolicyStatus:
    return ca.policy.status(changed=changed)
