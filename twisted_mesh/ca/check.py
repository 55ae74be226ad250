"""How one thing came out that was looked at."""

from enum import IntEnum

from attrs import frozen

from pki.codes import Code
from pki.errors import Problem
from twisted_mesh.api.messages import StandingWord

#: What is looked at; a CA that keeps nothing has no disk.
_CODES = {
    "signing": Code.UNHEALTHY_SIGNING,
    "store": Code.UNHEALTHY_STORE,
    "clock": Code.UNHEALTHY_CLOCK,
    "issuer": Code.UNHEALTHY_ISSUER,
    "root": Code.ROOT_ENDS,
    "keys": Code.UNHEALTHY_KEYS,
    "intents": Code.UNHEALTHY_INTENTS,
    "audit": Code.UNHEALTHY_AUDIT,
    "crls": Code.UNHEALTHY_CRLS,
    "federation": Code.UNHEALTHY_FEDERATION,
    "policy": Code.UNHEALTHY_POLICY,
    "platforms": Code.UNHEALTHY_PLATFORMS,
    "logs": Code.UNHEALTHY_LOGS,
    "descriptors": Code.UNHEALTHY_DESCRIPTORS,
    "disk": Code.UNHEALTHY_DISK,
    "memories": Code.UNHEALTHY_MEMORIES,
}
CHECKS = tuple(_CODES)
#: By :class:`Standing`.
_WORDS: tuple[StandingWord, ...] = ("ok", "warn", "fail")


class Standing(IntEnum):
    """How a check came out."""

    OK = 0
    WARN = 1
    FAIL = 2

    @property
    def word(self) -> StandingWord:
        """As the API writes it."""
        return _WORDS[self]


@frozen
class Check:
    """One thing that was looked at."""

    name: str
    """One of :data:`CHECKS`."""
    standing: Standing
    detail: str
    remedy: str = ""
    stops: bool = True
    """Whether a CA of which it fails is not ready: else the others do more by asking it than by going elsewhere."""

    @property
    def problem(self) -> Problem:
        """The same, as a reason why the CA is not ready."""
        return Problem(_CODES[self.name], self.detail, self.remedy)
