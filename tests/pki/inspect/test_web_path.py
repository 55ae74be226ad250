"""Verdicts by the rules of the web: which path is found, and in which words one is refused."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from pki.errors import Malformed
from pki.inspect.mail_name import MailAddress, mail_problem
from pki.inspect.web_path import WebVerdict, judge_web, web_problems
from pki.inspect.web_rules import WebPurpose
from pki.issuing.authority import Authority
from pki.issuing.profile import BACKDATE, ROOT, WORKLOAD
from pki.keys import KeyAlgorithm, key_id
from pki.svid.revocation_set import Reason, Revocation, RevocationSet
from tests.authorities import DAY, HOUR, NOW, forge, forge_issuing, forge_root, key, mesh, rsa_key

Extensions = dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool] | None]
SERVER, CLIENT, CA, ANY = WebPurpose
SERVER_AUTH, CLIENT_AUTH = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
NONE = RevocationSet()
_EVERYTHING = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


def named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def usages(*oids: x509.ObjectIdentifier, critical: bool = False) -> Extensions:
    return {x509.ExtendedKeyUsage: (x509.ExtendedKeyUsage(oids), critical)}


def hosts(*texts: str, critical: bool = False) -> Extensions:
    names = x509.SubjectAlternativeName([x509.DNSName(text) for text in texts])
    return {x509.SubjectAlternativeName: (names, critical)}


@cache
def root(name: str = "a root of the web") -> Authority:
    return forge_root(name, subject=named(name), issuer_name=named(name), replace=_UNLIMITED)


@cache
def issuing(name: str = "an issuing CA of the web") -> Authority:
    return forge_issuing(root(), name, subject=named(name), replace=_ANONYMOUS)


_ANONYMOUS: Extensions = {x509.SubjectAlternativeName: None}
_UNLIMITED: Extensions = {
    **_ANONYMOUS,
    x509.BasicConstraints: (x509.BasicConstraints(ca=True, path_length=None), True),
}


def server(
    replace: Extensions | None = None, issuer: Authority | None = None, **overrides: object
) -> x509.Certificate:
    """A server's certificate that keeps to the rules but for what is overridden."""
    overrides.setdefault("subject", named("shop.example"))
    good: Extensions = {**hosts("shop.example", "www.shop.example"), **usages(SERVER_AUTH)}
    return forge(issuer or issuing(), replace={**good, **(replace or {})}, **overrides)


def judged(
    leaf: x509.Certificate,
    purpose: WebPurpose = SERVER,
    beside: Sequence[Authority] | None = None,
    max_depth: int | None = None,
    revocations: RevocationSet = NONE,
) -> WebVerdict:
    others = (
        [ca.certificate for ca in (issuing(),)]
        if beside is None
        else [ca.certificate for ca in beside]
    )
    return judge_web(
        [leaf, *others],
        [root().certificate],
        revocations,
        now=NOW,
        purpose=purpose,
        max_depth=max_depth,
    )


def codes(verdict: WebVerdict) -> list[str]:
    assert verdict.ok is not bool(verdict.problems)
    assert all(problem.detail and problem.remedy for problem in verdict.problems)
    return [problem.code for problem in verdict.problems]


def test_a_server_of_the_web_is_one_and_no_client() -> None:
    found = judged(server())
    assert codes(found) == []
    assert found.path == (server_ := found.path[0], issuing().certificate, root().certificate)
    assert web_problems([server_, issuing().certificate], [root().certificate], NOW) == []
    assert codes(judged(server_, ANY)) == []
    assert codes(judged(server_, CLIENT)) == ["wrong-usage"]
    assert codes(judged(server_, CA)) == ["not-a-ca"]


@pytest.mark.parametrize("purpose", [SERVER, CLIENT, ANY])
@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, KeyAlgorithm.RSA_2048])
def test_an_svid_is_a_server_and_a_client(purpose: WebPurpose, algorithm: KeyAlgorithm) -> None:
    leaf = mesh().leaf(leaf_key=key("web", algorithm))
    found = judge_web(
        [leaf, mesh().issuing.certificate], mesh().bundle.roots, NONE, now=NOW, purpose=purpose
    )
    assert codes(found) == []


@pytest.mark.parametrize("critical", [False, True], ids=["not critical", "critical"])
def test_usages_and_names_of_an_svid_may_be_critical(critical: bool) -> None:
    names = forge(mesh().issuing).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    leaf = forge(
        mesh().issuing,
        replace={
            **usages(SERVER_AUTH, CLIENT_AUTH, critical=critical),
            x509.SubjectAlternativeName: (names.value, critical),
        },
    )
    for purpose in (SERVER, CLIENT):
        found = judge_web(
            [leaf, mesh().issuing.certificate], mesh().bundle.roots, NONE, now=NOW, purpose=purpose
        )
        assert codes(found) == []


def test_an_svid_may_have_no_subject() -> None:
    names = forge(mesh().issuing).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    leaf = forge(
        mesh().issuing,
        subject=x509.Name([]),
        replace={x509.SubjectAlternativeName: (names.value, True)},
    )
    for purpose in (SERVER, CLIENT, ANY):
        found = judge_web(
            [leaf, mesh().issuing.certificate], mesh().bundle.roots, NONE, now=NOW, purpose=purpose
        )
        assert codes(found) == []


def test_a_server_may_be_trusted_by_itself_alone() -> None:
    own = named("shop.example")
    leaf = forge(
        None,
        WORKLOAD,
        subject=own,
        issuer_name=own,
        replace={**hosts("shop.example"), **usages(SERVER_AUTH)},
    )
    for trusted, wanted in (([leaf], []), ([root().certificate], ["unknown-authority"])):
        found = judge_web([leaf], trusted, NONE, now=NOW, purpose=SERVER)
        assert codes(found) == wanted
        assert found.path == (leaf,)


def _constrained(permitted: str, *, critical: bool = False) -> Authority:
    constraints = x509.NameConstraints([x509.DNSName(permitted)], None)
    return forge_issuing(
        root(),
        83,
        subject=named("constrained"),
        replace={**_ANONYMOUS, x509.NameConstraints: (constraints, critical)},
    )


@cache
def _edwards() -> Authority:
    ca, name = key(8, KeyAlgorithm.ED25519), named("Edwards")
    cert = forge(
        None,
        ROOT,
        subject_key=ca,
        end=NOW + DAY,
        subject=name,
        issuer_name=name,
        replace=_ANONYMOUS,
    )
    return Authority(cert, ca)


def _lone(**overrides: object) -> tuple[Authority, ...]:
    """A CA below the root, with something else about it."""
    overrides.setdefault("subject", named("another CA"))
    replace = {**_ANONYMOUS, **overrides.pop("replace", {})}  # type: ignore[dict-item]
    return (forge_issuing(root(), 81, replace=replace, **overrides),)


VECTORS: dict[str, tuple[Callable[[], WebVerdict], list[str]]] = {
    "expired": (lambda: judged(server(start=NOW - 2 * HOUR, end=NOW - HOUR)), ["expired"]),
    "not yet valid": (
        lambda: judged(server(start=NOW + HOUR, end=NOW + 2 * HOUR)),
        ["not-yet-valid"],
    ),
    "an issuer that has expired": (
        lambda: judged(
            server(issuer=(cas := _lone(start=NOW - DAY, end=NOW - HOUR))[0]), beside=cas
        ),
        ["expired"],
    ),
    "without intermediates": (lambda: judged(server(), beside=()), ["unknown-authority"]),
    "of another CA": (
        lambda: judged(server(issuer=forge_root(84, subject=named("X"), issuer_name=named("X")))),
        ["unknown-authority"],
    ),
    "signed by a namesake": (
        lambda: judged(
            server(
                issuer=forge_issuing(forge_root(85), 86, subject=named("an issuing CA of the web"))
            )
        ),
        ["unknown-authority"],
    ),
    "for any usage": (lambda: judged(server(usages(SERVER_AUTH, _EVERYTHING))), ["wrong-usage"]),
    "without usages": (lambda: judged(server({x509.ExtendedKeyUsage: None})), ["wrong-usage"]),
    "critical usages": (
        lambda: judged(server(usages(SERVER_AUTH, critical=True))),
        ["profile-violation"],
    ),
    "a CA as a server": (
        lambda: judged(issuing().certificate, beside=()),
        ["wrong-usage", "wrong-usage", "wrong-usage"],
    ),
    "another common name": (
        lambda: judged(server(subject=named("other.example"))),
        ["profile-violation"],
    ),
    "a common name in capitals": (
        lambda: judged(server(subject=named("Shop.example"))),
        ["profile-violation"],
    ),
    "a common name for people": (lambda: judged(server(subject=named("our shop"))), []),
    "critical names beside a subject": (
        lambda: judged(server(hosts("shop.example", critical=True))),
        ["profile-violation"],
    ),
    "a wildcard for all of com": (
        lambda: judged(server(hosts("*.com"), subject=named("all"))),
        ["profile-violation"],
    ),
    "Ed25519": (
        lambda: judged(server(subject_key=key(7, KeyAlgorithm.ED25519))),
        ["profile-violation"],
    ),
    "below Ed25519": (
        lambda: judge_web(
            [server(issuer=_edwards())], [_edwards().certificate], NONE, now=NOW, purpose=SERVER
        ),
        ["profile-violation"],
    ),
    "below Ed25519, for whatever": (
        lambda: judge_web(
            [server(issuer=_edwards())], [_edwards().certificate], NONE, now=NOW, purpose=ANY
        ),
        [],
    ),
    "RSA of 1024 bits": (lambda: judged(server(subject_key=rsa_key(1024))), ["weak-key"]),
    "RSA of 2052 bits": (
        lambda: judged(server(subject_key=rsa_key(2052)), CLIENT),
        ["weak-key", "wrong-usage"],
    ),
    "P-192": (
        lambda: judged(server(subject_key=ec.derive_private_key(7, ec.SECP192R1())), ANY),
        ["weak-key"],
    ),
    "P-521": (lambda: judged(server(subject_key=ec.derive_private_key(7, ec.SECP521R1()))), []),
    "no issuer's key": (
        lambda: judged(server({x509.AuthorityKeyIdentifier: None})),
        ["profile-violation"],
    ),
    "an issuer without a key identifier": (
        lambda: judged(
            server(issuer=_lone()[0]), beside=_lone(replace={x509.SubjectKeyIdentifier: None})
        ),
        ["profile-violation"],
    ),
    "an issuer for clients": (
        lambda: judged(server(issuer=(cas := _lone(replace=usages(CLIENT_AUTH)))[0]), beside=cas),
        ["wrong-usage"],
    ),
    "an issuer for servers": (
        lambda: judged(server(issuer=(cas := _lone(replace=usages(SERVER_AUTH)))[0]), beside=cas),
        [],
    ),
    "an issuer that is no CA": (
        lambda: judged(
            server(
                issuer=(
                    cas := _lone(
                        replace={
                            x509.BasicConstraints: (
                                x509.BasicConstraints(ca=False, path_length=None),
                                True,
                            )
                        }
                    )
                )[0]
            ),
            beside=cas,
        ),
        ["not-a-ca"],
    ),
    "a name that its issuer may have": (
        lambda: judged(server(issuer=(ca := _constrained("shop.example"))), beside=[ca]),
        [],
    ),
    "a name that its issuer may not have": (
        lambda: judged(server(issuer=(ca := _constrained("bank.example"))), beside=[ca]),
        ["bad-certificate"],
    ),
    "and another common name": (
        lambda: judged(
            server(issuer=(ca := _constrained("bank.example")), subject=named("x.example")),
            beside=[ca],
        ),
        ["profile-violation", "bad-certificate"],
    ),
    "constraints that are not critical, for whatever": (
        lambda: judged(server(issuer=(ca := _constrained("shop.example"))), ANY, [ca]),
        ["profile-violation"],
    ),
    "an issuing CA": (lambda: judged(issuing().certificate, CA, ()), []),
    "a root": (lambda: judged(root().certificate, CA, ()), []),
    "a CA with critical constraints": (
        lambda: judged(_constrained("shop.example", critical=True).certificate, CA, ()),
        [],
    ),
    "below a CA with critical constraints": (
        lambda: judged(
            server(issuer=(ca := _constrained("shop.example", critical=True))), ANY, [ca]
        ),
        [],
    ),
    "an issuing CA below one that may have none": (
        lambda: judged(forge_issuing(issuing(), 87, subject=named("below")).certificate, CA),
        ["path-too-long"],
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_each_rule_has_its_code(name: str) -> None:
    make, wanted = VECTORS[name]
    assert codes(make()) == wanted


def test_a_path_that_breaks_a_rule_is_passed_over_for_another() -> None:
    """Two certificates of one CA, of which one does not identify its key."""
    (bad,) = _lone(replace={x509.SubjectKeyIdentifier: None})
    (good,) = _lone()
    leaf = server(issuer=good)
    for beside in ([bad, good], [good, bad]):
        found = judged(leaf, beside=beside)
        assert codes(found) == []
        assert found.path[1] == good.certificate


def test_the_last_second_counts_as_a_whole() -> None:
    leaf = server()
    for now, wanted in (
        (NOW + HOUR + timedelta(seconds=0.999999), []),
        (NOW + HOUR + timedelta(seconds=1), ["expired"]),
        (NOW - BACKDATE - timedelta(microseconds=1), ["not-yet-valid"]),
    ):
        found = judge_web(
            [leaf, issuing().certificate], [root().certificate], NONE, now=now, purpose=SERVER
        )
        assert sorted(set(codes(found))) == wanted


def _deep(count: int) -> list[Authority]:
    """So many CAs, the lowest first."""
    found = [root()]
    for number in range(count):
        subject = named(f"CA {number} of a row")
        found.append(forge_issuing(found[-1], f"row {number}", subject=subject, replace=_UNLIMITED))
    return found[:0:-1]


@pytest.mark.parametrize("purpose", WebPurpose)
def test_depth_counts_the_intermediates(purpose: WebPurpose) -> None:
    row = _deep(3)
    leaf = (
        row[0].certificate
        if purpose is CA
        else forge(row[0], replace={**hosts("a.example")}, subject=named("a.example"))
    )
    deep = 2 if purpose is CA else 3
    assert codes(judged(leaf, purpose, row, max_depth=deep)) == []
    found = judged(leaf, purpose, row, max_depth=deep - 1)
    assert codes(found) == ["path-too-long"]
    assert f"{deep} intermediates" in found.problems[0].detail


def test_self_issued_intermediates_do_not_count() -> None:
    subject = named("renewed")
    old = forge_issuing(root(), 91, subject=subject, replace=_UNLIMITED)
    new = forge_issuing(old, 92, subject=subject, replace=_UNLIMITED)
    leaf = server(issuer=new)
    assert codes(judged(leaf, beside=[new, old], max_depth=1)) == []
    assert codes(judged(leaf, beside=[new, old], max_depth=0)) == ["path-too-long"]


def test_the_revoked_are_refused_wherever_they_stand() -> None:
    leaf = server()
    for cert, issuer in ((leaf, issuing()), (issuing().certificate, root())):
        revoked = Revocation(
            key_id(issuer.certificate.public_key()),
            cert.serial_number,
            NOW,
            Reason.UNSPECIFIED,
            NOW + DAY,
        )
        found = judged(leaf, revocations=NONE.merged([revoked], NOW))
        assert codes(found) == ["revoked"]
        assert len(found.path) == 3


@settings(max_examples=20)
@given(st.binary(min_size=1, max_size=40))
def test_whatever_stands_in_an_extension_nothing_is_raised(value: bytes) -> None:
    odd = x509.UnrecognizedExtension(ExtendedKeyUsageOID.SERVER_AUTH, value)
    for purpose in WebPurpose:
        found = judged(server({x509.UnrecognizedExtension: (odd, True)}), purpose)
        assert not found.ok


# Mail addresses


def test_a_mail_address_is_matched_by_its_host_in_either_case() -> None:
    names = x509.SubjectAlternativeName([x509.RFC822Name("Somebody@Example.org")])
    cert = server({x509.SubjectAlternativeName: (names, False)})
    assert mail_problem(cert, "Somebody@example.ORG") is None
    for other in ("somebody@example.org", "Somebody@sub.example.org", "*@example.org", "Somebody"):
        problem = mail_problem(cert, other)
        assert problem is not None
        assert problem.code == "name-mismatch"
    problem = mail_problem(server(), "a@b.example")
    assert problem is not None
    assert problem.detail == "certificate is valid for no mail address, not a@b.example"


@given(
    st.from_regex(r"[!-;=?A-Z\[-~]{1,20}@[a-z0-9.-]{1,20}", fullmatch=True).filter(
        lambda s: s.count("@") == 1
    )
)
def test_a_mail_address_is_read_back(text: str) -> None:
    assert str(MailAddress.parse(text)) == text


@given(st.text())
def test_what_is_no_mail_address_is_malformed(text: str) -> None:
    try:
        MailAddress.parse(text)
    except Malformed as error:
        assert "write it like" in str(error)
