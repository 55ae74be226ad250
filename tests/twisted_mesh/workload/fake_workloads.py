"""Workloads as a test wants them: what each caller may have is what the test says last."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from attrs import define, field, frozen
from twisted.internet.interfaces import ITransport
from zope.interface import implementer

from pki.errors import PkiError
from pki.keys import KeyAlgorithm, MemoryKey
from pki.policy.entry import RegistrationEntry
from pki.policy.id_template import IdTemplate
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import BundleSet
from pki.svid.x509svid import X509Svid
from tests.authorities import HOUR, MESH, NOW, key, mesh
from twisted_mesh.workload.interface import (
    Bundles,
    ICaller,
    IFollowing,
    IWorkloads,
    JwtSvid,
    Refusal,
    Snapshot,
    WorkloadSvid,
)

SELECTORS = frozenset({Selector("unix:uid", "1000")})
JWKS = b'{"keys": []}'


@cache
def crl(trust_domain: TrustDomain = MESH) -> bytes:
    """Stands for a list; the service looks into none."""
    return f"a CRL of {trust_domain}".encode()


def bundles(*foreign: TrustDomain) -> Bundles:
    """Of our trust domain and those."""
    domains = (MESH, *foreign)
    return Bundles(
        MESH,
        BundleSet.of(*(mesh(at).bundle for at in domains)),
        dict.fromkeys(domains, JWKS),
        {at: [crl(at)] for at in domains},
    )


@cache
def identity(name: str = "backend", hint: str = "", serial: int = 0) -> WorkloadSvid:
    """One below our issuing CA; another serial is another rotation."""
    spiffe_id = MESH.member("service", name)
    leaf_key = MemoryKey.generate(KeyAlgorithm.EC_P256) if serial else key(name)
    leaf = mesh(MESH).leaf(spiffe_id, leaf_key=leaf_key)
    svid = X509Svid.assemble([leaf, mesh(MESH).issuing.certificate], leaf_key)
    entry = RegistrationEntry(name, SELECTORS, IdTemplate.parse(str(spiffe_id), MESH))
    return WorkloadSvid(svid, entry, hint)


def snapshot(*svids: WorkloadSvid, foreign: Sequence[TrustDomain] = ()) -> Snapshot:
    """With those identities, or the usual one."""
    return Snapshot(bundles(*foreign), svids or (identity(),))


def refusing(problem: PkiError, *, final: bool, known: Bundles | None = None) -> Snapshot:
    """With no identity, for that reason."""
    return Snapshot(known, (), Refusal(problem, final))


@implementer(ICaller)
@define(eq=False)
class FakeCaller:
    """A process of the test's."""

    selectors: frozenset[Selector] = SELECTORS
    pid: int = 1
    gone: bool = False

    def has_gone(self) -> bool:
        return self.gone


@implementer(IFollowing)
@define(eq=False)
class _Following:
    workloads: "FakeWorkloads"
    told: Callable[[Snapshot], None]

    def stop(self) -> None:
        self.workloads.following.discard(self)


@implementer(IWorkloads)
@define(eq=False)
class FakeWorkloads:
    """Everybody has the same."""

    now: Snapshot | None = field(factory=snapshot)
    """None while it is not known."""
    tokens: Sequence[JwtSvid] | PkiError = ()
    who: FakeCaller = field(factory=FakeCaller)
    trouble: PkiError | None = None
    """What the attestation of a caller raises."""
    following: set[_Following] = field(factory=set)
    asked: list[tuple[Sequence[str], SpiffeId | None]] = field(factory=list)

    async def caller(self, connected: ITransport) -> ICaller:
        if self.trouble is not None:
            raise self.trouble
        return self.who

    def follow(self, caller: ICaller, told: Callable[[Snapshot], None]) -> IFollowing:
        following = _Following(self, told)
        self.following.add(following)
        if self.now is not None:
            told(self.now)
        return following

    def tell(self, now: Snapshot) -> None:
        self.now = now
        for following in list(self.following):
            following.told(now)

    async def jwt_svids(
        self, caller: ICaller, audience: Sequence[str], spiffe_id: SpiffeId | None
    ) -> Sequence[JwtSvid]:
        self.asked.append((audience, spiffe_id))
        if isinstance(self.tokens, PkiError):
            raise self.tokens
        return [each for each in self.tokens if spiffe_id in (None, each.spiffe_id)]


def token(name: str = "backend", hint: str = "", text: str = "") -> JwtSvid:
    """One that nobody has signed."""
    return JwtSvid(MESH.member("service", name), text or f"token.of.{name}", NOW + HOUR, hint)


@frozen
class Judged:
    """What a fake judge says of a token."""

    spiffe_id: SpiffeId
    claims: Mapping[str, object]


def judge(token: str, audience: str, jwks: Mapping[TrustDomain, bytes], now: datetime) -> Any:
    """Good is what begins with ``good``; its claims say what the judge was given."""
    if not token.startswith("good"):
        raise PkiError("the token is not signed by the key that it names")
    claims = {"aud": audience, "domains": sorted(map(str, jwks)), "exp": now.timestamp()}
    return Judged(MESH.member("service", "backend"), claims)
