"""Contexts of the mesh: who gets through them, what nobody can change, and that they follow the identity."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from attrs import evolve

from pki.rules.errors import BadPolicy
from pki.rules.rules_file import read_rules
from pki.spiffe import SpiffePattern
from pki.svid.bundle import BundleSet
from pki.svid.spki_pin import PinSet, SpkiHash
from pki.validity import rfc3339
from tests.twisted_mesh.stdlib.standing import (
    CA,
    EVERYBODY,
    SHOP,
    TILL,
    Memory,
    Standing,
    standing,
)
from twisted_mesh.http.address import CaAddress
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.stdlib import ContextSealed, MeshSSLError, NoHybridGroup, NoIdentity, PeerRefused
from twisted_mesh.stdlib.ca_connection import CaConnection
from twisted_mesh.stdlib.context import MeshContext
from twisted_mesh.stdlib.peers import peer_id
from twisted_mesh.stdlib.policies import policy_of
from twisted_mesh.stdlib.settings import insist_on_hybrid
from twisted_mesh.testing import FORGERIES, MemoryCa
from twisted_mesh.tls.hybrid import HYBRID
from twisted_mesh.trust.trust import Trust


def pair(
    server: Standing | None = None, client: Standing | None = None, allow: str = EVERYBODY
) -> Memory:
    server, client = server or standing("shop"), client or standing("till")
    return Memory.between(server.server(allow), client.client())


def refusal(memory: Memory) -> PeerRefused:
    with pytest.raises(PeerRefused) as caught:
        memory.shake_hands()
    return caught.value


def test_two_ends_of_one_mesh_talk_and_know_each_other() -> None:
    memory = pair().shake_hands()
    assert (peer_id(memory.server), peer_id(memory.client)) == (TILL, SHOP)
    memory.client.write(b"hello")
    assert memory.server.read() == b"hello"
    assert memory.server.version() == "TLSv1.3"
    assert memory.server.session_reused is False


@pytest.mark.parametrize("what", sorted(FORGERIES))
@pytest.mark.parametrize("side", ["server", "client"])
def test_a_forged_identity_is_refused_with_a_code(what: str, side: str) -> None:
    ca = MemoryCa()
    trust = Trust(BundleSet.of(ca.bundle))
    forged = Standing(ca.forged(what), trust)
    good = Standing(ca.issue("till"), evolve(trust, revocations=ca.revoked))
    ends = {"server": (good, forged), "client": (forged, good)}[side]
    error = refusal(pair(*ends))
    assert isinstance(error, ssl.SSLError)
    assert error.codes
    assert error.codes[0] in str(error)
    assert good.refused


def test_who_is_not_allowed_is_refused_and_told_how_to_allow_it() -> None:
    error = refusal(pair(allow=SHOP))
    assert error.codes == ("not-authorized",)
    assert f'server_context(allow=["{TILL}"])' in str(error)
    assert "--" not in str(error)


RULES = {
    "rules.toml": """
version = 1
[[rule]]
name = "tills"
effect = "allow"
on = ["accept"]
when = 'peer.path == "/service/till"'
"""
}


def test_a_policy_has_the_last_word_on_who_is_allowed() -> None:
    policy, server = policy_of(read_rules(RULES), "accept"), standing("shop")
    Memory.between(server.server(policy=policy), standing("till").client()).shake_hands()
    error = refusal(Memory.between(server.server(policy=policy), standing("shop").client()))
    assert error.codes == ("policy-denied",)
    assert "--" not in str(error)
    assert policy_of(None, "accept") is None
    with pytest.raises(BadPolicy, match="could allow connect"):
        policy_of(read_rules(RULES), "connect")


def test_a_server_with_another_id_than_was_expected_is_refused() -> None:
    memory = Memory.between(standing().server(), standing("till").client(SHOP + "p"))
    error = refusal(memory)
    assert error.codes == ("not-authorized",)
    assert SHOP in str(error)
    assert SHOP + "p" in str(error)


def test_a_peer_without_a_certificate_is_refused() -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    assert refusal(Memory.between(standing().server(), stranger)).codes == ("no-certificate",)


def test_a_peer_of_another_ca_is_refused() -> None:
    other = MemoryCa()
    error = refusal(pair(client=Standing(other.issue("till"), Trust(BundleSet.of(CA.bundle)))))
    assert error.codes == ("unknown-authority",)


def test_the_name_that_was_called_must_be_in_the_certificate_unless_the_id_is_enough() -> None:
    server, client = standing(), standing("till")
    memory = Memory.between(server.server(), client.client(), "elsewhere.example")
    assert refusal(memory).codes == ("name-mismatch",)
    lax = client.client(SHOP, check_hostname=False)
    assert (
        peer_id(Memory.between(server.server(), lax, "elsewhere.example").shake_hands().client)
        == SHOP
    )
    assert peer_id(Memory.between(server.server(), lax, None).shake_hands().client) == SHOP


def test_a_name_that_is_to_be_checked_must_be_given_over_memory_too() -> None:
    with pytest.raises(ValueError, match="server_hostname is needed"):
        Memory.between(standing().server(), standing("till").client(), None)

    async def upgraded() -> None:
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        async with listening:
            to = listening.sockets[0].getsockname()
            transport, protocol = await loop.create_connection(asyncio.Protocol, *to)
            try:
                await loop.start_tls(transport, protocol, standing("till").client())
            finally:
                transport.abort()

    with pytest.raises(ValueError, match="server_hostname is needed"):
        asyncio.run(upgraded())


def test_a_client_of_tls_1_2_gets_nowhere() -> None:
    old = CA.member("till").ssl_context(serves=False)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        Memory.between(standing().server(), old).shake_hands()


def test_nothing_goes_through_where_judging_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(MeshContext, "judge", broken)
    assert refusal(pair()).codes == ("internal",)


# what changes behind it


def test_one_context_shows_the_certificate_of_the_moment() -> None:
    server, client = standing(), standing("till")
    contexts = server.server(), client.client()

    def shown() -> bytes | None:
        return Memory.between(*contexts).shake_hands().client.getpeercert(binary_form=True)

    first = shown()
    server.svid = CA.issue("shop")
    assert first != shown() == shown()


@pytest.mark.parametrize("name", ["localhost", None], ids=["sni", "no-sni"])
def test_who_connected_long_before_sees_the_certificate_of_the_handshake(name: str | None) -> None:
    server = standing()
    client = standing("till").client(check_hostname=False)
    memory = Memory.between(server.server(), client, name)
    server.svid = CA.issue("shop")
    memory.shake_hands()
    assert memory.client.getpeercert(True) == ssl.PEM_cert_to_DER_cert(
        server.svid.chain_pem().decode().split("-----END")[0] + "-----END CERTIFICATE-----\n"
    )


def test_a_bundle_that_changes_in_the_middle_of_a_handshake_counts() -> None:
    server = standing()
    memory = pair(server)
    with pytest.raises(ssl.SSLWantReadError):
        memory.client.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        memory.server.do_handshake()
    memory.client.do_handshake()
    server.trust = Trust(BundleSet.of(MemoryCa().bundle))
    with pytest.raises(PeerRefused) as caught:
        memory.server.do_handshake()
    assert caught.value.codes == ("unknown-authority",)


def test_a_peer_that_is_revoked_in_the_middle_of_a_handshake_is_refused() -> None:
    ca = MemoryCa()
    server = Standing(ca.issue("shop"), Trust(BundleSet.of(ca.bundle)))
    client = Standing(ca.issue("till"), Trust(BundleSet.of(ca.bundle)))
    memory = pair(server, client)
    for end in (memory.client, memory.server):
        with pytest.raises(ssl.SSLWantReadError):
            end.do_handshake()
    memory.client.do_handshake()
    ca.revoke(client.svid)
    server.hears(ca)
    with pytest.raises(PeerRefused, match="revoked"):
        memory.server.do_handshake()


def test_a_peer_that_is_revoked_while_connected_is_heard_no_more() -> None:
    ca = MemoryCa()
    server = Standing(ca.issue("shop"), Trust(BundleSet.of(ca.bundle)))
    client = Standing(ca.issue("till"), Trust(BundleSet.of(ca.bundle)))
    memory = pair(server, client).shake_hands()
    memory.client.write(b"before it was known")
    ca.revoke(client.svid)
    server.hears(ca)
    for use in (memory.server.read, lambda: memory.server.write(b"x"), memory.server.unwrap):
        with pytest.raises(PeerRefused, match="revoked"):
            use()
    with pytest.raises(PeerRefused, match="revoked"):
        peer_id(memory.server)


@pytest.mark.parametrize(("hours", "code"), [(2, "expired"), (-200, "not-yet-valid")])
def test_a_peer_whose_certificate_is_not_of_now_is_heard_no_more(
    hours: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends while it is connected, or the clock is put back."""
    memory = pair().shake_hands()
    memory.client.write(b"x")
    later = CA.clock.now() + timedelta(hours=hours)
    monkeypatch.setattr("twisted_mesh.stdlib.guard.time.time", later.timestamp)
    monkeypatch.setattr("twisted_mesh.stdlib.context.wall_clock", lambda: later)
    server = memory.server._sslobj._mesh  # type: ignore[attr-defined]
    server._current = None
    with pytest.raises(PeerRefused, match=code):
        memory.server.read()


def pinning(*hashes: SpkiHash, mode: str = "enforce") -> PinSet:
    rule = f"{EVERYBODY}={','.join(map(str, hashes))}"
    now = wall_clock()
    return PinSet.parse([rule], mode, rfc3339(now + timedelta(days=1)), now=now)


@pytest.mark.parametrize("side", ["server", "client"])
def test_a_peer_that_breaks_pins_is_refused_or_reported(side: str) -> None:
    root, backup, other = SpkiHash.of(CA.bundle.roots[0]), SpkiHash(bytes(32)), SpkiHash(b"x" * 32)
    ends = {"server": standing(), "client": standing("till")}
    held = ends[side]
    server, client = ends["server"].server(), ends["client"].client(check_hostname=False)
    held.trust = evolve(held.trust, pins=pinning(root, backup))
    Memory.between(server, client).shake_hands()
    held.trust = evolve(held.trust, pins=pinning(other, backup))
    with pytest.raises(PeerRefused, match="pin-mismatch"):
        Memory.between(server, client).shake_hands()
    assert held.unpinned == []
    held.trust = evolve(held.trust, pins=pinning(other, backup, mode="report"))
    connected_ = Memory.between(server, client).shake_hands()
    assert [problem.code for problem in held.unpinned] == ["pin-mismatch"]
    held.trust = evolve(held.trust, pins=pinning(other, backup))
    for guard in held.guards:
        guard.review()
    end = connected_.server if side == "server" else connected_.client
    with pytest.raises(PeerRefused, match="pin-mismatch"):
        end.read(10)


def test_without_an_identity_nobody_shakes_hands() -> None:
    server, client = standing(), standing("till")
    contexts = server.server(), client.client()
    begun = Memory.between(*contexts)
    server.is_closed = True
    with pytest.raises(NoIdentity):
        contexts[0].wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    with pytest.raises(ssl.SSLError):
        begun.shake_hands()
    server.is_closed, client.is_closed = False, True
    with pytest.raises(NoIdentity):
        contexts[1].wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")


def test_an_identity_that_is_closed_in_the_last_moment_lets_nobody_in() -> None:
    server = standing()
    memory = pair(server)
    for end in (memory.client, memory.server):
        with pytest.raises(ssl.SSLWantReadError):
            end.do_handshake()
    memory.client.do_handshake()
    server.is_closed = True
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            memory.server.do_handshake()
    with pytest.raises(ssl.SSLError):
        memory.server.read()


# what nobody can change


class OtherObject(ssl.SSLObject):
    """That judges nobody."""


class OtherSocket(ssl.SSLSocket):
    """That judges nobody."""


WEAKENED: dict[str, Callable[[ssl.SSLContext], Any]] = {
    "verify_mode": lambda c: setattr(c, "verify_mode", ssl.CERT_NONE),
    "verify_mode-optional": lambda c: setattr(c, "verify_mode", ssl.CERT_OPTIONAL),
    "check_hostname": lambda c: setattr(c, "check_hostname", not c.check_hostname),
    "minimum_version": lambda c: setattr(c, "minimum_version", ssl.TLSVersion.TLSv1_2),
    "maximum_version": lambda c: setattr(c, "maximum_version", ssl.TLSVersion.TLSv1_2),
    "options": lambda c: setattr(c, "options", 0),
    "verify_flags": lambda c: setattr(c, "verify_flags", ssl.VERIFY_ALLOW_PROXY_CERTS),
    "keylog_filename": lambda c: setattr(c, "keylog_filename", "/dev/null"),
    "post_handshake_auth": lambda c: setattr(c, "post_handshake_auth", True),
    "hostname_checks_common_name": lambda c: setattr(c, "hostname_checks_common_name", True),
    "num_tickets": lambda c: setattr(c, "num_tickets", 3),
    "sni_callback": lambda c: setattr(c, "sni_callback", lambda *_: None),
    "set_servername_callback": lambda c: c.set_servername_callback(None),
    "sslobject_class": lambda c: setattr(c, "sslobject_class", OtherObject),
    "sslsocket_class": lambda c: setattr(c, "sslsocket_class", OtherSocket),
    "_msg_callback": lambda c: setattr(c, "_msg_callback", print),
    "judge": lambda c: setattr(c, "judge", None),
    "wrap_bio": lambda c: setattr(c, "wrap_bio", None),
    "del": lambda c: delattr(c, "_holder"),
    "set_ciphers": lambda c: c.set_ciphers("ALL"),
    "set_ecdh_curve": lambda c: c.set_ecdh_curve("prime256v1"),
    "load_dh_params": lambda c: c.load_dh_params("/dev/null"),
    "load_cert_chain": lambda c: c.load_cert_chain("/dev/null"),
    "set_psk_client_callback": lambda c: c.set_psk_client_callback(None),
    "set_psk_server_callback": lambda c: c.set_psk_server_callback(None),
}


@pytest.mark.parametrize("how", WEAKENED)
@pytest.mark.parametrize("whose", ["server", "client", "inner"])
def test_nobody_weakens_a_context(how: str, whose: str) -> None:
    holder = standing()
    contexts = {"server": holder.server(), "client": holder.client()}
    contexts["inner"] = Memory.between(holder.server(), holder.client()).client.context
    with pytest.raises(ContextSealed) as caught:
        WEAKENED[how](contexts[whose])
    assert isinstance(caught.value, ssl.SSLError)


def test_roots_that_somebody_loads_are_believed_by_nobody() -> None:
    other = MemoryCa()
    server = standing()
    context = server.server()
    context.load_verify_locations(cadata=other.bundle.to_pem().decode())
    context.load_default_certs()
    context.set_default_verify_paths()
    stranger = Standing(other.issue("till"), Trust(BundleSet.of(CA.bundle)))
    assert refusal(Memory.between(context, stranger.client())).codes == ("unknown-authority",)


def test_what_libraries_say_to_every_context_by_habit_is_taken() -> None:
    context = standing("till").client()
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = True
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_SSLv3
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.post_handshake_auth = False
    context.set_alpn_protocols(["http/1.1"])
    server = standing().server()
    server.set_alpn_protocols(["h2", "http/1.1"])
    memory = Memory.between(server, context).shake_hands()
    assert memory.client.selected_alpn_protocol() == "http/1.1"
    assert len(context.get_ca_certs()) == context.cert_store_stats()["x509_ca"] == 1


def test_around_its_methods_there_is_no_way_in() -> None:
    facade, client = standing().server(), CA.member("till").ssl_context(serves=False)
    bios = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(MeshSSLError):
        ssl.SSLObject._create(*bios, server_side=True, context=facade)  # type: ignore[attr-defined]
    # By the C class's own method: a context that has no certificate and believes nobody.
    raw = super(ssl.SSLContext, facade)._wrap_bio(*bios, server_side=True)  # type: ignore[misc]
    other = client.wrap_bio(bios[1], bios[0], server_hostname="localhost")
    with pytest.raises(ssl.SSLError):
        for _ in range(4):
            for end in (other, raw):
                with suppress(ssl.SSLWantReadError):
                    end.do_handshake()


def test_the_context_of_a_connection_makes_connections_of_the_mesh_too() -> None:
    holder = standing()
    inner = Memory.between(holder.server(), holder.client()).server.context
    stranger = CA.member("till", svid=CA.forged("other-root", "till")).ssl_context(serves=False)
    with pytest.raises(PeerRefused):
        Memory.between(inner, stranger).shake_hands()


@pytest.mark.parametrize("name", ["context", "session", "anything"])
def test_nothing_of_a_connection_can_be_swapped(name: str) -> None:
    memory = pair().shake_hands()
    lax = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(MeshSSLError):
        setattr(memory.server._sslobj, name, lax)  # type: ignore[attr-defined]
    if name == "context":
        with pytest.raises(MeshSSLError):
            memory.server.context = lax


def test_no_session_is_resumed() -> None:
    memory = pair().shake_hands()
    session = memory.client.session
    with pytest.raises(MeshSSLError, match="resumes no session"):
        standing().client().wrap_bio(
            ssl.MemoryBIO(),
            ssl.MemoryBIO(),
            server_hostname="localhost",
            session=session or object(),  # type: ignore[arg-type]
        )


def test_a_server_sends_no_tickets() -> None:
    client = CA.member("till").ssl_context(serves=False)
    memory = Memory.between(standing().server(), client).shake_hands()
    memory.server.write(b"x")
    assert memory.client.read() == b"x"
    assert memory.client.session is None or not memory.client.session.has_ticket


# post-quantum


def test_a_hybrid_group_is_demanded_or_refused() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if hasattr(context, "set_groups") and ssl.OPENSSL_VERSION_INFO >= (3, 5):
        insist_on_hybrid(context)
        return
    with pytest.raises(NoHybridGroup, match="does not insist on a hybrid group"):
        insist_on_hybrid(context)


def test_an_openssl_without_the_hybrid_group_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(context: ssl.SSLContext, groups: str) -> None:
        raise ssl.SSLError(1, f"no group {groups}")

    monkeypatch.setattr(ssl.SSLContext, "set_groups", unknown, raising=False)
    with pytest.raises(NoHybridGroup, match=r"OpenSSL \d"):
        insist_on_hybrid(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


@pytest.fixture
def tells_groups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As if this Python could be told which groups to take; what it was told."""
    told: list[str] = []
    monkeypatch.setattr(
        ssl.SSLContext, "set_groups", lambda self, names: told.append(names), raising=False
    )
    return told


def test_every_context_of_such_an_identity_is_told_the_hybrid_groups(
    tells_groups: list[str],
) -> None:
    server = MeshContext(standing(), [], serves=True, require_pq=True)
    assert tells_groups == [":".join(HYBRID)]
    Memory.between(server, CA.member("till").ssl_context(serves=False))
    assert set(tells_groups) == {":".join(HYBRID)}  # the context that has the certificate too
    assert len(tells_groups) == 2


@pytest.mark.parametrize("group", ["x25519", "", None])
def test_that_it_was_told_is_not_enough_the_group_is_looked_at(
    tells_groups: list[str], group: str | None
) -> None:
    """Python before 3.15 does not tell the group either: then nobody is let in."""
    server = MeshContext(standing(), [], serves=True, require_pq=True)
    memory = Memory.between(server, CA.member("till").ssl_context(serves=False))
    if group is not None:
        raw = memory.server._sslobj._raw  # type: ignore[attr-defined]
        object.__setattr__(memory.server._sslobj, "_raw", _Telling(raw, group))  # type: ignore[attr-defined]
    with pytest.raises(PeerRefused) as refused:
        memory.shake_hands()
    assert [problem.code for problem in refused.value.problems] == ["classical-key-exchange"]
    with pytest.raises(PeerRefused):
        memory.server.write(b"a secret")


def test_a_hybrid_group_is_let_in(tells_groups: list[str]) -> None:
    server = MeshContext(standing(), [SpiffePattern.parse(EVERYBODY)], serves=True, require_pq=True)
    memory = Memory.between(server, CA.member("till").ssl_context(serves=False))
    raw = memory.server._sslobj._raw  # type: ignore[attr-defined]
    object.__setattr__(memory.server._sslobj, "_raw", _Telling(raw, HYBRID[0]))  # type: ignore[attr-defined]
    memory.shake_hands().server.write(b"x")
    assert memory.client.read() == b"x"


class _Telling:
    """OpenSSL's end, as Python 3.15 has it."""

    def __init__(self, raw: Any, group: str) -> None:
        self._raw, self._group = raw, group

    def group(self) -> str:
        return self._group

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def test_the_ca_is_asked_by_the_same_rule(tells_groups: list[str]) -> None:
    address = CaAddress.parse("https://ca.example:8443")
    CaConnection(address, CA.trust_domain, 1.0, requires_pq=True)
    assert tells_groups
    tells_groups.clear()
    CaConnection(address, CA.trust_domain, 1.0)
    assert not tells_groups


# the key


def test_without_files_in_memory_a_key_is_on_a_disk_encrypted_and_only_for_a_moment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    seen: list[bytes] = []
    load = ssl.SSLContext.load_cert_chain

    def noting(context: ssl.SSLContext, path: Any, **named: Any) -> None:
        seen.append(path.read_bytes())
        assert path.stat().st_mode & 0o077 == 0
        load(context, path, **named)

    monkeypatch.delattr("os.memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", noting)
    pair().shake_hands()
    assert len(seen) == 2
    assert all(b"ENCRYPTED PRIVATE KEY" in data for data in seen)
    assert list(tmp_path.iterdir()) == []
