"""The CA's own keys against what is blocked: refused at the start, told later, and never installed."""

from collections.abc import Iterator

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pki.errors import Refused
from pki.jwt_svid.jwks import JwtAuthority
from pki.keys import key_id
from pki.keys.key_list import KeyList
from tests.authorities import MESH, key
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, ca_rig, result_of
from twisted_mesh.ca.authorities import JwtPublished
from twisted_mesh.ca.blocked_authorities import (
    demand_foreign,
    demand_good_start,
    demand_unblocked,
    take_up,
)
from twisted_mesh.ca.check import Standing
from twisted_mesh.stores.records import Conflict


@pytest.fixture
def rig() -> Iterator[CaRig]:
    with ca_rig() as rig:
        yield rig


def own(rig: CaRig) -> dict[str, x509.Certificate]:
    authorities = rig.ca.authorities
    return {"distrust": authorities.root, "revoke-issuing": authorities.issuing.certificate}


def listed(certificate: x509.Certificate) -> tuple[KeyList, ...]:
    return (KeyList.parse("stolen.txt", key_id(certificate.public_key()).encode()),)


@pytest.mark.parametrize("way", ["distrust", "revoke-issuing"])
def test_a_list_with_an_own_key_ends_a_start(rig: CaRig, way: str) -> None:
    demand_good_start(rig.ca.blocked, rig.ca.current)
    rig.ca.blocked.replace_lists(listed(own(rig)[way]))
    with pytest.raises(Refused, match=r"on the list stolen\.txt") as refusal:
        demand_good_start(rig.ca.blocked, rig.ca.current)
    (problem,) = refusal.value.problems
    assert problem.code == "blocked-key"
    assert way in problem.remedy
    assert "without that list" in problem.remedy


@pytest.mark.parametrize("way", ["distrust", "revoke-issuing"])
def test_a_list_that_is_read_later_fails_the_health_check(rig: CaRig, way: str) -> None:
    def signing() -> tuple[Standing, str]:
        rig.seconds += 2
        (found,) = [c for c in result_of(rig.ca.health.examine()) if c.name == "signing"]
        return found.standing, found.remedy

    assert signing()[0] is Standing.OK
    told = take_up(rig.ca.blocked, listed(own(rig)[way]), rig.ca.current)
    assert told == "stolen.txt: 1 keys"
    standing, remedy = signing()
    assert (standing, way in remedy) == (Standing.FAIL, True)
    rig.sign()
    take_up(rig.ca.blocked, (), rig.ca.current)
    assert signing()[0] is Standing.OK


@pytest.mark.parametrize("way", ["distrust", "revoke-issuing"])
def test_an_own_key_is_not_blocked_by_hand(rig: CaRig, way: str) -> None:
    public = own(rig)[way].public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    numbers = public.public_numbers()
    p = 2**256 - 2**224 + 2**192 + 2**96 - 1
    mirrored = ec.EllipticCurvePublicNumbers(numbers.x, p - numbers.y, numbers.curve).public_key()
    for named in (public, key_id(public), mirrored):
        with pytest.raises(Conflict, match=way):
            demand_foreign(rig.ca.current, named)
    demand_foreign(rig.ca.current, key(9).public_key)


def test_a_key_that_signs_tokens_and_a_ca_above_an_issuing_ca_are_held_against_lists(
    rig: CaRig,
) -> None:
    current, jwt = rig.ca.current, key("of tokens").public_key
    assert isinstance(jwt, ec.EllipticCurvePublicKey)
    current.publish_jwt(JwtPublished((JwtAuthority.of(jwt),), 2))
    above = result_of(rig.home.root.create_issuing(key("in between"), MESH, rig.time))
    issuing = evolve(
        current.current.issuing,
        intermediates=(current.current.issuing.certificate, above.certificate),
    )
    current.adopt(current.current.with_issuing(issuing, ()))
    for public, way in (
        (jwt, f"mesh-ctl jwt retire {key_id(jwt)}"),
        (above.certificate.public_key(), "mesh-ctl ca root csr"),
    ):
        with pytest.raises(Conflict, match=way):
            demand_foreign(current, public)
        rig.ca.blocked.replace_lists((KeyList.parse("stolen.txt", key_id(public).encode()),))
        with pytest.raises(Refused, match=r"stolen\.txt") as refusal:
            demand_good_start(rig.ca.blocked, current)
        (problem,) = refusal.value.problems
        assert way in problem.remedy


def test_a_ca_certificate_with_a_blocked_key_is_not_installed(rig: CaRig) -> None:
    root, issuing = own(rig).values()
    demand_unblocked(rig.ca.blocked, (root, issuing))
    result_of(rig.ca.blocked.block(ADMIN, root.public_key(), "stolen"))
    with pytest.raises(Refused, match="stolen") as refusal:
        demand_unblocked(rig.ca.blocked, (issuing, root))
    assert [problem.code for problem in refusal.value.problems] == ["blocked-key"]
