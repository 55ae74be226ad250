"""A CA on a clock and on files whose CAs can be revoked, with nobody who publishes or listens but the test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import define, field

from pki.errors import Problem
from pki.svid.revocation_set import Reason, Revocation
from tests.twisted_mesh.ca.lives import Life
from tests.twisted_mesh.ca.rigs import ADMIN, Listener, result_of
from twisted_mesh.ca.revoked_authorities import NAME, RevokedAuthorities
from twisted_mesh.ca.rotation.distrusting import Distrusted, RootDistruster
from twisted_mesh.ca.rotation.revoking import AuthorityRevoked, AuthorityRevoker
from twisted_mesh.stores.records import Page


@define(eq=False)
class Publisher:
    """Notes when it is asked for the roots' CRLs."""

    signed: int = 0

    async def sign_roots(self) -> None:
        self.signed += 1

    def waiting(self) -> Problem | None:
        return None


@define(eq=False)
class NoLeaves:
    """A record of no certificates, or of some over a root's key."""

    found: Sequence[Any] = ()

    async def list(self, query: Any) -> Page:
        return Page(tuple(self.found), None)


@define(eq=False)
class Revocations:
    """One life after another, and what can be revoked in it."""

    home: Path
    life: Life = field(init=False)
    listener: Listener = field(factory=Listener)
    record: NoLeaves = field(factory=NoLeaves)
    renewed: list[str] = field(factory=list)
    """The key ids of the CAs that issued when our own certificate was to be renewed."""
    publisher: Publisher = field(init=False)
    revoker: AuthorityRevoker = field(init=False)
    distruster: RootDistruster = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.life = Life(self.home)
        self._wire()
        self.life.run()

    def _wire(self) -> None:
        self.publisher = Publisher()
        file = RevokedAuthorities(self.life.state.ca / NAME)
        file.load()
        publisher: Any = self.publisher
        self.revoker = AuthorityRevoker(
            self.life.rotator, file, publisher, self.listener, self._renew
        )
        record: Any = self.record
        self.distruster = RootDistruster(self.revoker, self.life.root_steps, record)
        self.life.rotator.finish_too(self.distruster.finish)

    def start(self) -> None:
        """As after a kill."""
        self.life.start()
        self._wire()
        self.life.run()

    async def _renew(self) -> None:
        self.renewed.append(self.life.authorities.issuing.key_id)

    def revoke(self, key_id: str, *, force: bool = False) -> AuthorityRevoked:
        done: AuthorityRevoked = result_of(
            self.revoker.revoke(ADMIN, key_id, Reason.CA_COMPROMISE, force=force)
        )
        return done

    def distrust(self, fingerprint: str) -> Distrusted:
        done: Distrusted = result_of(
            self.distruster.distrust(ADMIN, fingerprint, Reason.CA_COMPROMISE)
        )
        return done

    @property
    def told(self) -> list[Revocation]:
        return self.listener.told
