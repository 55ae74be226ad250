"""A CA whose keys are behind the judge of a signer, and one in whose process the thief sits."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from attrs import define, field

from pki.issuing.authority import Authority
from pki.keys import KeyAlgorithm
from pki.signing.policy import SigningPolicy
from tests.authorities import MESH, NOW, key
from tests.pki.signing.remembered import JudgedKey, Remembered

T = TypeVar("T")


def done(work: Coroutine[Any, Any, T]) -> T:
    """What it comes to."""
    return asyncio.run(work)


@define(eq=False)
class Rig:
    """A CA of mesh.local, its keys at a signer."""

    policy: SigningPolicy = field(factory=lambda: SigningPolicy(MESH))
    memory: Remembered = field(factory=Remembered)
    root_key: JudgedKey = field(init=False)
    issuing_key: JudgedKey = field(init=False)
    audit_key: JudgedKey = field(init=False)
    root: Authority = field(init=False)
    issuing: Authority = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.root_key = self._key("root", "ec-p384")
        self.issuing_key = self._key("issuing", "ec-p256")
        self.audit_key = self._key("audit", "ed25519")
        self.root = done(Authority.create_root(self.root_key, MESH, NOW))
        self.issuing = done(self.root.create_issuing(self.issuing_key, MESH, NOW))

    def _key(self, purpose: str, algorithm: str) -> JudgedKey:
        made = key(f"signer {purpose}", KeyAlgorithm(algorithm))
        return JudgedKey.made(purpose, made, self.policy, self.memory, NOW)


@pytest.fixture
def rig() -> Rig:
    return Rig()
