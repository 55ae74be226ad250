"""A peer that still sends the path to the root that has gone, while its issuing CA has another certificate."""

import asyncio

import pytest
from attrs import evolve

from pki.svid.bundle import BundleSet
from pki.svid.x509svid import X509Svid
from tests.authorities import BACKEND, DAY, HOUR, Mesh, key, mesh, overlap, revocation_of
from tests.authorities import MESH as DOMAIN
from tests.twisted_mesh.tls.wires import TODAY, Conversation, End, converse, svid_of
from twisted_mesh.interfaces import TrustUpdate
from twisted_mesh.trust.store import TrustStore

BOTH = overlap(TODAY)
OLD = Mesh(DOMAIN, BOTH.old, BOTH.by_old)
NEW_ONLY = BundleSet.of(BOTH.bundle_of(BOTH.new))
RETIRED = TrustUpdate(bundles=NEW_ONLY, issuers={BOTH.key_id: (BOTH.by_new.certificate,)})


def by_the_old_way() -> X509Svid:
    draft = BOTH.by_old.draft(key(9).public_key, BACKEND, TODAY, HOUR)
    return svid_of(asyncio.run(BOTH.by_old.sign(draft)), (BOTH.by_old.certificate,))


def ends() -> tuple[End, End]:
    return (
        End(False, by_the_old_way(), believes=OLD),
        End(True, by_the_old_way(), believes=OLD),
    )


def told(end: End, update: TrustUpdate) -> None:
    """By a feed; then contexts are built anew, as a manager does."""
    store = TrustStore(end.judge, end.registry, end.clock, lambda: end.time, end.log)
    store.update(update)
    end.contexts.replace(end.svid, end.judge.trust.at_hand)


def talks(conversation: Conversation) -> bool:
    conversation.calling.made[0].transport.write(b"still here")
    conversation.pump()
    return conversation.served.made[0].heard.endswith(b"still here")


def let_in(conversation: Conversation) -> bool:
    return any(talker.connected_times for talker in conversation.served.made)


@pytest.mark.parametrize("which", ["client", "server", "both"])
def test_a_new_connection_of_it_is_let_in(which: str) -> None:
    client, server = ends()
    for end, name in ((client, "client"), (server, "server")):
        if which in (name, "both"):
            told(end, RETIRED)
    conversation = converse(client, server)
    assert talks(conversation)


@pytest.mark.parametrize("which", ["client", "server", "both"])
def test_its_open_connections_stay(which: str) -> None:
    client, server = ends()
    conversation = converse(client, server)
    assert talks(conversation)
    for end, name in ((client, "client"), (server, "server")):
        if which in (name, "both"):
            told(end, RETIRED)
    conversation.pump()
    assert talks(conversation)
    assert len(server.registry) == 1


def test_without_the_other_certificate_it_is_cut_off_and_refused() -> None:
    client, server = ends()
    conversation = converse(client, server)
    assert talks(conversation)
    told(server, evolve(RETIRED, issuers={}))
    conversation.pump()
    assert not conversation.server_wire.connected
    assert not let_in(converse(client, server))
    assert "unknown-authority" in server.log.all_text()


def test_a_connection_that_stayed_rests_on_the_other_certificate() -> None:
    client, server = ends()
    conversation = converse(client, server)
    told(server, RETIRED)
    assert talks(conversation)
    told(server, TrustUpdate([revocation_of(BOTH.new, BOTH.by_new.certificate, TODAY + DAY)]))
    conversation.pump()
    assert not conversation.server_wire.connected


def test_what_is_told_makes_nobody_a_root() -> None:
    client, server = ends()
    strange = (BOTH.new.certificate, BOTH.old.certificate)
    told(server, TrustUpdate(bundles=mesh(DOMAIN, now=TODAY).bundles, issuers={"0": strange}))
    assert server.judge.trust.beside == ()
    assert not let_in(converse(client, server))
