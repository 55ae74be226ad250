"""Attests the bearer of a join token."""

from collections.abc import Awaitable, Callable
from typing import Self

from attrs import define
from zope.interface import implementer

from pki.policy.entry import RegistrationEntry
from pki.policy.join_token import BadToken, JoinToken
from pki.policy.policy import Forbidden, NoProof
from pki.policy.selector import KINDS
from pki.validity import rfc3339
from twisted_mesh.attest.evidence import Attestation, Evidence, WithoutChallenge
from twisted_mesh.attest.interface import IAttestor, Means
from twisted_mesh.runtime.clock import Now
from twisted_mesh.stores.records import IssuedToken

_REMEDY = "have an administrator make another (mesh-ctl token create)"


@implementer(IAttestor)
@define(eq=False, repr=False)
class TokenAttestor(WithoutChallenge):
    """The ``token`` selectors of the registration entry that the token is bound to, which alone counts then.

    A spent token is attested too: only whoever reads the request can tell whether it is the one that
    it was spent with. So is one for another key.
    """

    find_token: Callable[[bytes], Awaitable[IssuedToken | None]]
    """By its SHA-256."""
    entry_of: Callable[[str], RegistrationEntry | None]
    """The entry of that id, if it is there and counts."""
    now: Now
    name = "token"
    kinds = (KINDS["token"],)

    @classmethod
    def of(cls, means: Means) -> Self:
        """One that asks the CA's store and its entries."""
        return cls(means.find_token, means.entry_of, means.now)

    async def attest(self, evidence: Evidence) -> Attestation | None:
        """What the token's entry says of its bearer.

        Raises :class:`NoProof`; :class:`Forbidden` where the entry is gone; what ``find_token`` raises.
        """
        if evidence.token is None:
            return None
        try:
            token = JoinToken.parse(evidence.token)
        except BadToken as error:
            raise NoProof(str(error)) from None
        known = await self.find_token(token.digest)
        if known is None or not token.is_one(known.digest):
            raise NoProof(
                f"this CA knows no such join token: it is another CA's, or was forgotten after it had ended; {_REMEDY}"
            )
        self._must_count(known)
        entry = self.entry_of(known.entry)
        if entry is None:
            raise Forbidden(
                "no-entry",
                f"the registration entry {known.entry} of this join token is gone, or does not count; {_REMEDY}",
            )
        selectors = frozenset(s for s in entry.selectors if s.kind == "token")
        return Attestation(f"token:{token.id}", selectors, entry=entry.id, token=known)

    def _must_count(self, known: IssuedToken) -> None:
        # Looked at one by one: that a token is spent hides that it has ended.
        if known.revoked_at is not None:
            raise NoProof(f"this join token was revoked at {rfc3339(known.revoked_at)}; {_REMEDY}")
        if self.now() > known.expires_at:
            raise NoProof(f"this join token expired at {rfc3339(known.expires_at)}; {_REMEDY}")
