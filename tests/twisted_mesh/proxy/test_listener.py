"""Who may be at the far side of a listener, by what the certificate says."""

import pytest
from cryptography import x509

from pki.codes import Code
from pki.spiffe import SpiffePattern, TrustDomain
from tests.authorities import MESH, forge, mesh
from twisted_mesh.proxy.listener import Listener, Mode, Target

SHOP = MESH.member("service", "shop")
OTHER = TrustDomain.parse("other.test")


def leaf_of(trust_domain: TrustDomain, *names: str) -> x509.Certificate:
    """Of ``/service/shop`` there, with these DNS names."""
    sans = [
        x509.UniformResourceIdentifier(str(trust_domain.member("service", "shop"))),
        *map(x509.DNSName, names),
    ]
    replace = {x509.SubjectAlternativeName: (x509.SubjectAlternativeName(sans), False)}
    return forge(mesh(trust_domain).issuing, replace=replace, trust_domain=trust_domain)


def listener(mode: Mode, **rules: object) -> Listener:
    return Listener("a", mode, "127.0.0.1:0", Target("127.0.0.1", 1), **rules)  # type: ignore[arg-type]


def patterns(*texts: str) -> tuple[SpiffePattern, ...]:
    return tuple(map(SpiffePattern.parse, texts))


@pytest.mark.parametrize(
    ("allow", "allow_dns", "names", "may"),
    [
        ((str(SHOP),), (), (), True),
        ((f"{MESH.id}/service/*",), (), (), True),
        ((f"{MESH.id}/service/web",), (), (), False),
        ((), ("shop.example",), ("shop.example",), True),
        ((), ("shop.example",), ("web.example",), False),
        ((f"{MESH.id}/service/web",), ("shop.example",), ("shop.example",), True),
    ],
)
def test_a_server_lets_in_whom_one_of_its_rules_names(
    allow: tuple[str, ...], allow_dns: tuple[str, ...], names: tuple[str, ...], may: bool
) -> None:
    strict = listener(Mode.SERVER, allow=patterns(*allow), allow_dns=allow_dns)
    problem = strict.objection(leaf_of(MESH, *names), MESH)
    assert (problem is None) is may
    assert problem is None or problem.code == Code.NOT_AUTHORIZED


def test_another_trust_domains_ca_is_not_believed_about_our_host_names() -> None:
    strict = listener(Mode.SERVER, allow_dns=("shop.example",))
    theirs = leaf_of(OTHER, "shop.example")
    for ours in (MESH, None):
        problem = strict.objection(theirs, ours)
        assert problem is not None and problem.code == Code.NOT_AUTHORIZED
    by_name = listener(Mode.SERVER, allow=patterns(f"{OTHER.id}/**"), allow_dns=("shop.example",))
    assert by_name.objection(theirs, MESH) is None


def test_who_answers_a_client_is_named_and_has_the_host_name_besides() -> None:
    strict = listener(
        Mode.CLIENT, verify=patterns(str(SHOP)), verify_dns=("shop.example", "b.example")
    )
    assert strict.objection(leaf_of(MESH, "b.example"), MESH) is None
    problem = strict.objection(leaf_of(MESH, "c.example"), MESH)
    assert problem is not None and problem.code == Code.NAME_MISMATCH
    problem = strict.objection(leaf_of(OTHER, "shop.example"), MESH)
    assert problem is not None and problem.code == Code.NOT_AUTHORIZED
