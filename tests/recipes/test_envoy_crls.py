"""What a real Envoy makes of CRLs that come by SDS: a claim of docs/recipes/envoy-sds.md that no running CA can show.

A thread serves SDS for a CA in memory, whose CRLs live as long as the test says.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attrs import define
from twisted.internet.selectreactor import SelectReactor

from pki.crl.issue import issue_crl
from pki.keys import key_id
from pki.policy.entry import RegistrationEntry
from pki.policy.id_template import IdTemplate
from pki.svid.bundle import BundleSet
from pki.svid.x509svid import X509Svid
from tests.recipes import envoys
from tests.recipes.estate import (
    REFUSED,
    Identity,
    adapted,
    blocks,
    estate,
    seconds_to_refusal,
)
from tests.running import PATIENCE, free_port, is_listening, until
from tests.twisted_mesh.workload.fake_workloads import SELECTORS, FakeWorkloads
from twisted_mesh.grpc.server import GrpcServer
from twisted_mesh.testing import Clock, MemoryCa, at_once
from twisted_mesh.workload.interface import Bundles, Snapshot, WorkloadSvid
from twisted_mesh.workload.sds import SecretService

pytestmark = pytest.mark.recipes
SOON, LATER = timedelta(seconds=2), timedelta(minutes=5)


class _Now(Clock):
    """The machine's, as Envoy looks at no other."""

    def now(self) -> datetime:
        return datetime.now(UTC).replace(microsecond=0)


@define(eq=False)
class Authority:
    """A CA, the Envoy that it tells, and a client."""

    ca: MemoryCa
    workloads: FakeWorkloads
    reactor: SelectReactor
    web: X509Svid
    shop: X509Svid
    files: Identity
    port: int
    number: int = 0

    def snapshot(
        self, root: timedelta | None = LATER, issuing: timedelta | None = LATER
    ) -> Snapshot:
        """With CRLs that live so long; without that one for None."""
        self.number += 1
        now = self.ca.clock.now()
        revoked = list(self.ca.revoked.of(key_id(self.ca.issuing.certificate.public_key())))
        crls = [
            at_once(
                issue_crl(issuer, revoked, self.number, this_update=now, next_update=now + life)
            )
            for issuer, life in ((self.ca.root, root), (self.ca.issuing, issuing))
            if life is not None
        ]
        domain = self.ca.trust_domain
        template = IdTemplate.parse(str(self.web.spiffe_id), domain)
        entry = RegistrationEntry("web", SELECTORS, template)
        bundles = Bundles(domain, BundleSet.of(self.ca.bundle), crls={domain: crls} if crls else {})
        return Snapshot(bundles, [WorkloadSvid(self.web, entry)])

    def tell(self, root: timedelta | None = LATER, issuing: timedelta | None = LATER) -> None:
        self.reactor.callFromThread(self.workloads.tell, self.snapshot(root, issuing))

    def is_let_in(self) -> bool:
        try:
            return bool(self.files.get(self.port))
        except REFUSED:
            return False


@contextmanager
def serving(server: GrpcServer, reactor: SelectReactor, path: Path) -> Iterator[None]:
    """``server`` at ``path``, in a thread."""
    reactor.callWhenRunning(reactor.listenUNIX, str(path), server)
    thread = threading.Thread(target=reactor.run, args=(False,), daemon=True)
    thread.start()
    until(lambda: is_listening(path))
    try:
        yield
    finally:
        reactor.callFromThread(reactor.stop)
        thread.join(PATIENCE)


@pytest.fixture
def authority() -> Iterator[Authority]:
    envoys.program()
    with estate(ca=False) as made:
        ca = MemoryCa("mesh.local", _Now())
        workloads, reactor = FakeWorkloads(now=None), SelectReactor()
        web, shop = ca.issue("web"), ca.issue("shop")
        files = made.home / "shop"
        ca.member("shop", svid=shop).write(files)
        port, out, socket = free_port(), free_port(), made.home / "workload.sock"
        found = Authority(ca, workloads, reactor, web, shop, Identity(files), port)
        workloads.now = found.snapshot()
        server = GrpcServer(reactor, SecretService(workloads).methods(), admit=workloads.caller)
        (block,) = blocks("envoy-sds", "yaml")
        places = {"/run/mesh/workload.sock": socket, "9443": port, "9080": out}
        with serving(server, reactor, socket):
            envoys.start(made, adapted(block, places), port, out)
            yield found


@pytest.mark.parametrize("which", ["root", "issuing"])
def test_when_one_crl_ends_nobody_is_let_in_until_there_is_a_fresh_one(
    authority: Authority, which: str
) -> None:
    until(authority.is_let_in)
    authority.tell(**{which: SOON})
    until(lambda: not authority.is_let_in())
    authority.tell()
    until(authority.is_let_in)


@pytest.mark.parametrize("which", ["root", "issuing"])
def test_given_some_crls_but_not_all_nobody_is_let_in(authority: Authority, which: str) -> None:
    """So the service tells all of them or none."""
    until(authority.is_let_in)
    authority.tell(**{which: None})
    until(lambda: not authority.is_let_in())
    authority.tell(None, None)
    until(authority.is_let_in)


def test_who_is_revoked_is_refused_and_believed_where_there_are_no_crls(
    authority: Authority,
) -> None:
    until(authority.is_let_in)
    authority.ca.revoke(authority.shop)
    authority.tell()
    seconds_to_refusal(lambda: authority.files.get(authority.port), 0)
    authority.tell(None, None)
    until(authority.is_let_in)
