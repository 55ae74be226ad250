"""The drill: a platform as somebody else would write it. It takes this file, and one line that registers it.

Its evidence is the name on a badge, with a MAC of that and of the CA's challenge by a secret that both sides know.
"""

import hashlib
import hmac
from typing import Self

import msgspec
from attrs import define, field
from zope.interface import implementer

from pki.errors import Malformed
from pki.policy.selector import SelectorKind, is_label
from twisted_mesh.attest.attestors_file import settings_of
from twisted_mesh.attest.challenges import Challenges
from twisted_mesh.attest.errors import BadEvidence
from twisted_mesh.attest.evidence import Attestation, Evidence, read_data, seen
from twisted_mesh.attest.interface import IAttestor, Means, Table

KINDS = (SelectorKind("badge:name", is_label, "badge:name:build"),)


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[badge]``."""

    secret: str
    once: bool = False
    """Whether a badge counts once."""


class Shown(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A badge, as it is shown."""

    name: str
    challenge: str
    mac: str


def mac_of(secret: str, name: str, challenge: str) -> str:
    told = f"{name}\n{challenge}".encode()
    return hmac.new(secret.encode(), told, hashlib.sha256).hexdigest()


@implementer(IAttestor)
@define(eq=False)
class BadgeAttestor:
    """``badge:name:NAME``."""

    settings: Settings = field(repr=False)
    challenges: Challenges
    table = name = "badge"
    kinds = KINDS

    @classmethod
    def read(cls, table: Table, where: str) -> Settings:
        settings = settings_of(table, Settings, where)
        if not settings.secret:
            raise Malformed(f"{where}: secret is empty: write one")
        return settings

    @classmethod
    def of(cls, settings: Settings, means: Means) -> Self:
        return cls(settings, means.challenges)

    async def attest(self, evidence: Evidence) -> Attestation | None:
        shown = evidence.attestation
        if shown is None or shown.kind != self.name:
            return None
        badge = read_data(shown.data, Shown)
        self.challenges.check(self.name, badge.challenge)
        wanted = mac_of(self.settings.secret, badge.name, badge.challenge)
        if not hmac.compare_digest(wanted.encode(), badge.mac.encode("utf-8", "replace")):
            raise BadEvidence("the MAC of this badge is not by our secret: have it issued anew")
        selectors = seen("badge:name", badge.name)
        if not selectors:
            raise BadEvidence("the name on this badge is none: have it issued anew")
        self.challenges.spend(self.name, badge.challenge)
        proof = f"badge:{badge.name}"
        return Attestation(proof, selectors, claim=proof if self.settings.once else None)

    async def challenge(self, kind: str, data: bytes) -> bytes | None:
        return self.challenges.make(self.name).encode() if kind == self.name else None
