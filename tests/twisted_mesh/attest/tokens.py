"""Join tokens as a store knows them, and the entry that they are bound to."""

from datetime import datetime, timedelta

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, succeed

from pki.policy.entry import EntryMembers, RegistrationEntry, read_entry
from pki.policy.join_token import JoinToken
from tests.authorities import MESH, NOW
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.attest.token import TokenAttestor

ENTRY = read_entry(
    "00112233445566aa",
    MESH,
    EntryMembers(
        selectors=["token:web", "token:00112233445566aa", "unix:uid:1000"],
        spiffe_id="spiffe://mesh.local/service/web",
    ),
)


@frozen
class Issued:
    """The shape of ``stores.records.IssuedToken``."""

    digest: bytes
    entry: str
    expires_at: datetime
    created_at: datetime
    key: str | None = None
    revoked_at: datetime | None = None
    spent_at: datetime | None = None
    serial: int | None = None


@define(eq=False)
class Tokens:
    """A store with one token for one entry, and a clock."""

    token: JoinToken = field(factory=JoinToken.generate)
    time: datetime = NOW
    entries: dict[str, RegistrationEntry] = field(factory=lambda: {ENTRY.id: ENTRY})
    asked: list[bytes] = field(factory=list)
    known: dict[bytes, Issued] = field(init=False)
    attestor: TokenAttestor = field(init=False)

    def __attrs_post_init__(self) -> None:
        issued = Issued(self.token.digest, ENTRY.id, NOW + timedelta(minutes=10), NOW)
        self.known = {self.token.digest: issued}
        self.attestor = TokenAttestor(self.find, self.entries.get, lambda: self.time)

    @property
    def evidence(self) -> Evidence:
        return Evidence(token=self.token.text)

    def find(self, digest: bytes) -> Deferred[Issued | None]:
        self.asked.append(digest)
        return succeed(self.known.get(digest))

    def become(self, **changes: object) -> Issued:
        changed = evolve(self.known[self.token.digest], **changes)
        self.known[self.token.digest] = changed
        return changed
