"""docs/recipes/envoy-sds.md, with the real Envoy: what it is told, and what it makes of that."""

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from attrs import frozen

from tests.recipes import envoys
from tests.recipes.estate import (
    REFUSED,
    Estate,
    Identity,
    adapted,
    blocks,
    estate,
    greeting,
    over_rotations,
    seconds_to_refusal,
)
from tests.recipes.machine import Machine, memory_ca
from tests.running import free_port, until
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.workload import sds

pytestmark = pytest.mark.recipes
PROTOCOLS = ("DELTA_GRPC", "GRPC")
SOON = timedelta(seconds=2)
#: An Envoy opens its ports without its secrets, once it has waited for them so long.
UNPATIENT = {
    "resource_api_version: V3": "initial_fetch_timeout: 1s\n                  resource_api_version: V3"
}


@frozen
class Envoy:
    port: int
    """Where the shop is let in."""
    out: int
    """Where whoever asks reaches the shop."""

    def lets_in(self, identity: Identity) -> bool:
        try:
            return bool(identity.get(self.port))
        except REFUSED:
            return False

    def ask_shop(self) -> bytes:
        """What the shop says through Envoy. Raises PermissionError where Envoy does not reach it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.out, timeout=30)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise PermissionError(said.decode())
        return said


@frozen
class House:
    """A machine, a shop on it that has its identity by another way, and Envoys."""

    estate: Estate
    machine: Machine
    shop: Identity
    shop_port: int
    log: RecordingLog

    def start(self, **changes: str) -> Envoy:
        """An Envoy by the recipe, of which these words are others."""
        (block,) = blocks("envoy-sds", "yaml")
        port, out = free_port(), free_port()
        places = {
            "/run/mesh/workload.sock": self.machine.socket,
            "8443": self.shop_port,
            "9443": port,
            "9080": out,
        }
        envoys.start(self.estate, adapted(block, {**places, **changes}), port, out)
        return Envoy(port, out)

    def said(self, event: str) -> str:
        until(lambda: self.log.count(event) > 0, self.log.all_text)
        return self.log.text(event)


@contextmanager
def a_house() -> Iterator[House]:
    envoys.program()
    log = RecordingLog()
    with estate(ca=False) as made, pytest.MonkeyPatch.context() as patched:
        patched.setattr(sds, "log", log)
        machine = Machine(made.home)
        shop = machine.identity("shop")
        with machine.served(), greeting(shop) as port:
            yield House(made, machine, shop, port, log)


@pytest.fixture
def house() -> Iterator[House]:
    with a_house() as made:
        yield made


@pytest.fixture(scope="module", params=PROTOCOLS)
def rotating(request: pytest.FixtureRequest) -> Iterator[tuple[House, Envoy]]:
    """An Envoy with an identity that is renewed every three seconds."""
    with a_house() as made:
        made.machine.let_in("web", "6s")
        envoy = made.start(DELTA_GRPC=request.param)
        until(lambda: envoy.lets_in(made.shop))
        yield made, envoy


def test_it_serves_and_reaches_who_is_allowed_and_nobody_else(
    rotating: tuple[House, Envoy],
) -> None:
    house, envoy = rotating
    assert house.shop.get(envoy.port)
    assert envoy.ask_shop() == b"hello"
    with pytest.raises(REFUSED):
        house.machine.identity("other").get(envoy.port)


@pytest.mark.parametrize(
    ("rotations", "least"),
    [(2, 50), pytest.param(10, 1000, marks=pytest.mark.soak)],
    ids=["a few", "a thousand"],
)
def test_no_request_fails_over_rotations(
    rotating: tuple[House, Envoy], rotations: int, least: int
) -> None:
    house, envoy = rotating

    def both_ways() -> int:
        envoy.ask_shop()
        return house.shop.get(envoy.port)

    asked = over_rotations(both_ways, rotations, least)
    print(f"{asked} requests each way over {rotations} rotations")


def test_who_is_revoked_is_refused_both_ways(house: House) -> None:
    house.machine.let_in("web")
    envoy = house.start()
    until(lambda: envoy.lets_in(house.shop))
    assert envoy.ask_shop() == b"hello"
    house.machine.revoke(house.shop)
    since = time.monotonic()
    took = seconds_to_refusal(lambda: house.shop.get(envoy.port), since)
    print(f"refused {took:.2f} s after the revocation was told")
    with pytest.raises(PermissionError):
        envoy.ask_shop()
    assert envoy.lets_in(house.machine.identity("shop"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_entry_reaches_an_envoy_that_waits_and_one_that_had_lost_it(
    house: House, protocol: str
) -> None:
    envoy = house.start(DELTA_GRPC=protocol, **UNPATIENT)
    # It has been told why, has come again, and waits: for both secrets.
    until(lambda: house.log.count("sds-waits") > 0)
    assert not envoy.lets_in(house.shop)
    for _ in range(2):
        since = time.monotonic()
        entry = house.machine.let_in("web")
        until(lambda: envoy.lets_in(house.shop))
        print(f"served {time.monotonic() - since:.2f} s after the entry")
        house.machine.shut_out(entry)


@pytest.mark.parametrize("which", ["root", "issuing"])
def test_while_one_crl_has_ended_or_is_missing_nobody_is_let_in(house: House, which: str) -> None:
    """So the service tells all of them or none."""
    house.machine.let_in("web")
    envoy = house.start()
    for others in (SOON, None):
        house.machine.tell_crls()
        until(lambda: envoy.lets_in(house.shop))
        house.machine.tell_crls(**{which: others})
        until(lambda: not envoy.lets_in(house.shop))


def test_without_crls_who_is_revoked_is_believed_and_the_log_says_so(house: House) -> None:
    house.machine.let_in("web")
    envoy = house.start()
    until(lambda: envoy.lets_in(house.shop))
    house.machine.revoke(house.shop)
    until(lambda: not envoy.lets_in(house.shop))
    house.machine.tell_crls(None, None)
    until(lambda: envoy.lets_in(house.shop))
    assert "believes also who is revoked there" in house.said("sds-without-crls")


def test_each_trust_domain_is_judged_by_its_own_roots_and_crls(house: House) -> None:
    ours, theirs = house.machine.ca, memory_ca("not-mesh.local")
    house.machine.believe(theirs)
    house.machine.let_in("web", federates_with=["not-mesh.local"])
    anybody = {
        'matcher: {exact: "spiffe://mesh.local/service/shop"}': 'matcher: {prefix: "spiffe://"}'
    }
    envoy = house.start(**{"name: ROOTCA": "name: ALL", **anybody})
    until(lambda: envoy.lets_in(house.shop))
    guest = house.machine.written(theirs.issue("guest"))
    assert envoy.lets_in(guest)
    forged = house.machine.written(ours.forged("other-domain", "guest"))
    assert not envoy.lets_in(forged)
    house.machine.revoke(guest)
    until(lambda: not envoy.lets_in(guest))
    assert envoy.lets_in(house.shop)
    own_only = house.start(**anybody)
    until(lambda: own_only.lets_in(house.shop))
    assert not own_only.lets_in(house.machine.written(theirs.issue("guest")))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_it_refuses_and_what_is_not_there_is_in_our_log(house: House, protocol: str) -> None:
    house.machine.let_in("web")
    house.start(ROOTCA="default", DELTA_GRPC=protocol, **UNPATIENT)
    assert "did not take default, and keeps what it has: " in house.said("sds-refused")
    assert "without trusted CA is insecure" in house.log.text("sds-refused")
    house.start(ROOTCA="spiffe://other.example", DELTA_GRPC=protocol, **UNPATIENT)
    assert "asks for the secret spiffe://other.example, and gets it" in house.said("sds-unknown")
