"""Challenges: what a caller has to answer in its evidence, so that evidence made before is of no use."""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable

from attrs import define, field

from pki.policy.policy import NoProof
from twisted_mesh.attest.errors import AttestorUnavailable

#: Seconds for which a challenge can be answered.
LIFETIME = 60
#: Of those that were answered so many are remembered; beyond that none is taken until some have ended.
MOST_SPENT = 65_536
_NONCE_BYTES, _MAC_BYTES = 16, 16
_LONGEST = 128


class StaleChallenge(NoProof):
    """It is not ours, or not any more, or was answered before: ask for another (HTTP 401)."""


@define(eq=False, repr=False)
class Challenges:
    """Makes them without remembering any: each carries its end and a MAC by a key of this process.

    Asking costs nothing, however many ask. One that was answered is remembered until its end, so that
    it is answered once. A machine's time may be set meanwhile: none of them is over for that, and none that was
    forgotten at its end can be answered once more.
    """

    seconds: Callable[[], float]
    """By a clock that never jumps, as a reactor's."""
    most_spent: int = MOST_SPENT
    _key: bytes = field(factory=lambda: secrets.token_bytes(32), init=False)
    _since: int = field(factory=lambda: secrets.randbelow(2**32), init=False)
    """What is added to that clock, so that nobody is told for how long this machine runs."""
    _spent: "OrderedDict[str, float]" = field(factory=OrderedDict, init=False)
    """Those that were answered, by when they end: the earliest answer first."""

    def make(self, kind: str) -> str:
        """A fresh one for evidence of that kind: hexadecimal digits and dashes."""
        ends = int(self._seconds()) + LIFETIME
        nonce = secrets.token_hex(_NONCE_BYTES)
        return f"{ends:x}-{nonce}-{self._mac(kind, ends, nonce)}"

    def check(self, kind: str, text: str) -> None:
        """Raises :class:`StaleChallenge` where it may not be answered; it may be answered still after this."""
        ends = self._ends(kind, text)
        if self._seconds() >= ends:
            raise StaleChallenge(
                f"this challenge could be answered for {LIFETIME} s, and that is over: ask for another"
            )
        if text in self._spent:
            raise StaleChallenge("this challenge was answered before: ask for another")

    def spend(self, kind: str, text: str) -> None:
        """Take it as answered, once for all.

        Raises :class:`StaleChallenge`, and :class:`AttestorUnavailable` where too many are remembered already.
        """
        self.check(kind, text)
        self._forget()
        if len(self._spent) >= self.most_spent:
            raise AttestorUnavailable(
                f"{self.most_spent} challenges were answered within {LIFETIME} s, and no more are taken: ask again"
            )
        self._spent[text] = self._ends(kind, text)

    def _ends(self, kind: str, text: str) -> float:
        """When it does. Raises :class:`StaleChallenge` for one that is not ours."""
        parts = text.split("-") if len(text) <= _LONGEST and text.isascii() else []
        if len(parts) == 3:
            try:
                ends = int(parts[0], 16)
            except ValueError:
                ends = -1
            # What is compared is the whole text: no other spelling of one is another.
            ours = f"{ends:x}-{parts[1]}-{self._mac(kind, ends, parts[1])}"
            if ends >= 0 and hmac.compare_digest(ours, text):
                return float(ends)
        raise StaleChallenge(
            "this challenge is not this CA's, or of its life before a restart: ask for another"
        )

    def _mac(self, kind: str, ends: int, nonce: str) -> str:
        told = f"{kind}\n{ends:x}\n{nonce}".encode("utf-8", "replace")
        return hmac.new(self._key, told, hashlib.sha256).hexdigest()[: 2 * _MAC_BYTES]

    def _forget(self) -> None:
        """Those whose end has come: nobody can answer them again."""
        now = self._seconds()
        while self._spent and next(iter(self._spent.values())) <= now:
            self._spent.popitem(last=False)

    def _seconds(self) -> float:
        return self._since + self.seconds()
