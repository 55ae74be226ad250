"""Identities of another PKI: the table of forged evidence, and what a good one is taken for."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from attrs import evolve, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed, PkiError
from pki.keys import KeyAlgorithm, key_id, spki_der
from pki.keys.key_list import KeyList
from pki.policy.selector import Selector
from pki.svid.possession import statement
from tests import foreign_pki
from tests.authorities import DAY, HOUR, MESH, NOW, OTHER, key, rsa_key
from tests.foreign_pki import CN, intermediate, machine, private, root, usages
from tests.pki.policy.kinds import own_kinds
from tests.twisted_mesh.attest.foreign_callers import KIND, Rig
from twisted_mesh.attest.challenges import StaleChallenge
from twisted_mesh.attest.errors import AttestorUnavailable, BadEvidence, EvidenceExpired
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.attest.registry import declare_kinds
from twisted_mesh.attest.x509pop import X509PopAttestor
from twisted_mesh.ca.blocked_keys import BlockedKeys
from twisted_mesh.evidence.interface import AttestationData


@pytest.fixture(autouse=True)
def _kinds() -> Iterator[None]:
    with own_kinds():
        declare_kinds()
        yield


def test_a_machine_is_what_its_certificate_says() -> None:
    uris = [
        f"x509pop://{MESH}/datacenter/us-east/1",
        f"x509pop://{OTHER}/datacenter/elsewhere",
        f"x509pop://{MESH}/a:b/c",
        f"x509pop://{MESH}/empty/",
        "https://corp.example/",
    ]
    rig, holder = Rig(), intermediate().machine(uris=uris)
    found = rig.attest(rig.evidence((holder, intermediate())))
    above = [
        holder.certificate.fingerprint(hashes.SHA1()).hex() for holder in (intermediate(), root())
    ]
    assert found.selectors == {
        Selector("x509pop:subject:cn", CN),
        Selector("x509pop:serialnumber", "0a1b2c3d4e5f"),
        Selector("x509pop:san", "datacenter:us-east/1"),
        *(Selector("x509pop:ca:fingerprint", one) for one in above),
    }
    assert found.proof == f"x509pop:sha256:{holder.certificate.fingerprint(hashes.SHA256()).hex()}"
    assert found.claim is None


def test_a_key_that_is_blocked_at_the_ca_proves_nothing() -> None:
    rig, holder = Rig(), intermediate().machine()
    listed = KeyList.parse("stolen.txt", key_id(holder.certificate.public_key()).encode())
    blocked = BlockedKeys(None, None, rig.now, (listed,))  # type: ignore[arg-type]
    assert rig.attest(rig.evidence((holder, intermediate()))).selectors
    rig.attestor.blocked = blocked.problem
    with pytest.raises(BadEvidence, match="is blocked: this key is on the list stolen"):
        rig.attest(rig.evidence((holder, intermediate())))


def test_whoever_has_the_key_may_attest_again_with_another_challenge() -> None:
    rig = Rig()
    assert rig.attest(rig.evidence()) == rig.attest(rig.evidence())


def test_the_root_may_be_in_the_chain_and_below_it_may_be_nothing() -> None:
    rig = Rig()
    below_root = root().machine()
    assert rig.attest(rig.evidence((machine(), intermediate(), root())))
    assert rig.attest(rig.evidence((below_root,)))


@pytest.mark.parametrize("algorithm", [a for a in KeyAlgorithm if a is not KeyAlgorithm.RSA_4096])
def test_keys_of_every_kind_prove_possession(algorithm: KeyAlgorithm) -> None:
    rig, holder = Rig(), intermediate().machine(owner=private(algorithm))
    assert rig.attest(rig.evidence((holder, intermediate())))


def test_rsa_proves_it_by_pss_too_and_keys_of_other_sizes_count() -> None:
    rig, own = Rig(), rsa_key(3072)
    holder = intermediate().machine(owner=own)
    challenge = rig.asked()
    signed = statement(challenge, str(MESH), spki_der(key("certified").public_key))
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    made = own.sign(signed, pss, hashes.SHA256())
    assert rig.attest(rig.evidence((holder, intermediate()), challenge=challenge, signature=made))
    with pytest.raises(BadEvidence, match="not of this certificate's key"):
        by_sha1 = own.sign(signed, padding.PKCS1v15(), hashes.SHA512())
        rig.attest(rig.evidence((holder, intermediate()), signature=by_sha1))


def test_a_ca_may_sign_by_rsa_pss() -> None:
    own, named = rsa_key(3072), foreign_pki.name("RSA Root")
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    top = foreign_pki.issued(named, own, named, own, foreign_pki.CA, padding=pss)
    holder = top.machine(padding=pss)
    rig = Rig(roots=(top.certificate,))
    assert Selector("x509pop:subject:cn", CN) in rig.attest(rig.evidence((holder,))).selectors
    other = foreign_pki.issued(named, rsa_key(2048), named, rsa_key(2048), foreign_pki.CA)
    rig = Rig(roots=(other.certificate,))
    with pytest.raises(BadEvidence):
        rig.attest(rig.evidence((holder,)))


def test_two_names_or_none_are_no_common_name() -> None:
    rig = Rig()
    both = x509.Name([*foreign_pki.name("a"), *foreign_pki.name("b")])
    for subject in (both, x509.Name([x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "US")])):
        holder = intermediate().machine(subject=subject)
        found = rig.attest(rig.evidence((holder, intermediate())))
        assert not [s for s in found.selectors if s.kind == "x509pop:subject:cn"]


def test_of_a_ca_that_two_roots_vouch_for_each_path_counts() -> None:
    other = root("Other Root", "other-root")
    crossed = other.ca("Corp Machines", "corp-machines", serial=3)
    rig = Rig(roots=(root().certificate, other.certificate))
    found = rig.attest(rig.evidence((machine(), intermediate(), crossed)))
    assert len([s for s in found.selectors if s.kind == "x509pop:ca:fingerprint"]) == 4


@frozen
class Forged:
    make: Callable[[Rig], Evidence]
    reason: str
    error: type[PkiError] = BadEvidence


def _leaf(**changed: Any) -> Callable[[Rig], Evidence]:
    """A chain whose leaf was issued so."""
    return lambda rig: rig.evidence((intermediate().machine(**changed), intermediate()))


def _below(**changed: Any) -> Callable[[Rig], Evidence]:
    """A chain whose intermediate CA was issued so."""

    def make(rig: Rig) -> Evidence:
        ca = root().ca("Changed", "changed", **changed)
        return rig.evidence((ca.machine(), ca))

    return make


def _answered(rig: Rig) -> Evidence:
    evidence = rig.evidence()
    rig.attest(evidence)
    return evidence


def _expired_challenge(rig: Rig) -> Evidence:
    evidence = rig.evidence()
    rig.time += timedelta(seconds=61)
    return evidence


def _of_another_root(rig: Rig) -> Evidence:
    other = root("Other Root", "other-root")
    return rig.evidence((other.machine(), other))


def _by_a_namesake(rig: Rig) -> Evidence:
    impostor = root("Corp Root", "impostor")
    ca = impostor.ca("Corp Machines", "impostor-machines")
    return rig.evidence((ca.machine(), ca, impostor))


def _too_deep(rig: Rig) -> Evidence:
    ca = root().ca("One", "one", replace={x509.BasicConstraints: (_path_length(0), True)})
    below = ca.ca("Two", "two")
    return rig.evidence((below.machine(), below, ca))


def _path_length(length: int) -> x509.BasicConstraints:
    return x509.BasicConstraints(True, length)


def _for_a_stolen_csr(rig: Rig) -> Evidence:
    """What somebody has proven for his own key is shown with the request of another."""
    return rig.evidence(signed_for=key("victim"))


def _tampered(rig: Rig) -> Evidence:
    evidence = rig.evidence()
    assert evidence.attestation is not None
    shown = json.loads(evidence.attestation.data)
    lines = shown["chain"][0].split("\n")
    lines[5] = lines[5][::-1]
    shown["chain"][0] = "\n".join(lines)
    return evolve(evidence, attestation=AttestationData(KIND, json.dumps(shown).encode()))


_CONSTRAINED = x509.NameConstraints([x509.DNSName("corp.example")], None)
_PRIVATE = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\0")
_SERVER_ONLY = {x509.ExtendedKeyUsage: (foreign_pki.SERVER, False)}
FORGED = {
    "wrong signature": Forged(lambda rig: rig.evidence(signature=b"\x30\0"), "not of this"),
    "key that does not match": Forged(
        lambda rig: rig.evidence(signer=key("thief").private_key), "not of this certificate's key"
    ),
    "signed for the key of another request": Forged(_for_a_stolen_csr, "not of this"),
    "signed over another challenge": Forged(
        lambda rig: rig.evidence(signed=rig.asked()), "not of this certificate's key"
    ),
    "signed for another trust domain": Forged(
        lambda rig: rig.evidence(trust_domain=str(OTHER)), "not of this certificate's key"
    ),
    "challenge of another CA": Forged(
        lambda rig: rig.evidence(challenge=Rig().asked()), "not this CA's", StaleChallenge
    ),
    "challenge for another kind": Forged(
        lambda rig: rig.evidence(challenge=rig.challenges.make("k8s")),
        "not this CA's",
        StaleChallenge,
    ),
    "challenge used before": Forged(_answered, "answered before", StaleChallenge),
    "challenge expired": Forged(_expired_challenge, "for 60 s", StaleChallenge),
    "challenge made up": Forged(
        lambda rig: rig.evidence(challenge="0" * 40), "not this CA's", StaleChallenge
    ),
    "no challenge": Forged(
        lambda rig: rig.evidence(challenge="", signed="0" * 40), "not this CA's", StaleChallenge
    ),
    "no CSR": Forged(lambda rig: evolve(rig.evidence(), csr=None), "with a CSR"),
    "a CSR that is none": Forged(lambda rig: evolve(rig.evidence(), csr="x"), "CSR", Malformed),
    "another root": Forged(_of_another_root, "does not lead to a root that is configured"),
    "a root of the same name": Forged(_by_a_namesake, "Corp"),
    "without its intermediate": Forged(
        lambda rig: rig.evidence((machine(),)), "does not lead to a root"
    ),
    "expired": Forged(_leaf(end=NOW - HOUR), "expired at", EvidenceExpired),
    "not yet valid": Forged(_leaf(start=NOW + HOUR), "valid from", EvidenceExpired),
    "a CA that has expired": Forged(_below(end=NOW - HOUR), "issuer.*expired", EvidenceExpired),
    "a CA as leaf": Forged(lambda rig: rig.evidence((intermediate(),)), "nobody's identity"),
    "the root as leaf": Forged(lambda rig: rig.evidence((root(),)), "nobody's identity"),
    "a leaf that may sign certificates": Forged(
        _leaf(
            replace={
                x509.KeyUsage: (usages(digital_signature=True, key_cert_sign=True), True),
            }
        ),
        "nobody's identity",
    ),
    "wrong extended key usage": Forged(_leaf(replace=_SERVER_ONLY), "does not allow clientAuth"),
    "no extended key usage": Forged(_leaf(replace={x509.ExtendedKeyUsage: None}), "clientAuth"),
    "no digitalSignature": Forged(
        _leaf(replace={x509.KeyUsage: (usages(key_agreement=True), True)}), "digitalSignature"
    ),
    "a CA for servers only": Forged(_below(replace=_SERVER_ONLY), "rules out"),
    "a CA that is none": Forged(
        _below(replace={x509.BasicConstraints: (x509.BasicConstraints(False, None), True)}), "no CA"
    ),
    "a CA without keyCertSign": Forged(
        _below(replace={x509.KeyUsage: (usages(crl_sign=True), True)}), "does not allow it to sign"
    ),
    "a path longer than a CA allows": Forged(_too_deep, "stand below it"),
    "name constraints": Forged(
        _below(replace={x509.NameConstraints: (_CONSTRAINED, True)}), "not understood"
    ),
    "name constraints that are not critical": Forged(
        _below(replace={x509.NameConstraints: (_CONSTRAINED, False)}), "name constraints"
    ),
    "a critical extension that nobody knows": Forged(
        _leaf(replace={x509.UnrecognizedExtension: (_PRIVATE, True)}), "not understood"
    ),
    "a weak key": Forged(_leaf(owner=rsa_key(1024)), "weak"),
    "a key that anybody guesses": Forged(
        _leaf(owner=ec.derive_private_key(1, ec.SECP256R1())), "whoever likes may have the key"
    ),
    "a certificate of 1000": Forged(
        lambda rig: rig.evidence((machine(), *[intermediate()] * 999)), "do not fit", Malformed
    ),
    "a certificate that was changed": Forged(_tampered, ".", PkiError),
    "two certificates in one": Forged(
        lambda rig: rig.evidence(shows={"chain": [machine().pem + intermediate().pem]}),
        "one certificate in PEM",
    ),
    "no certificate": Forged(
        lambda rig: rig.evidence(shows={"chain": []}), "do not fit", Malformed
    ),
    "a certificate that is none": Forged(
        lambda rig: rig.evidence(shows={"chain": ["hello"]}), "certificate", Malformed
    ),
    "oversize": Forged(
        lambda rig: rig.evidence(shows={"chain": ["x" * 50_000]}), "do not fit", Malformed
    ),
    "an oversize certificate": Forged(
        lambda rig: rig.evidence((intermediate().machine(uris=_many(550)), intermediate())),
        "a certificate of .* bytes",
    ),
    "signature in another spelling": Forged(
        lambda rig: rig.evidence(shows={"signature": "AA=="}), "base64url"
    ),
    "a member too many": Forged(lambda rig: rig.evidence(shows={"x": 1}), "do not fit", Malformed),
    "no object": Forged(
        lambda rig: evolve(rig.evidence(), attestation=AttestationData(KIND, b'"x"')),
        "do not fit",
        Malformed,
    ),
}


def _many(number: int) -> list[str]:
    return [f"https://corp.example/{'x' * 20}/{at}" for at in range(number)]


@pytest.mark.parametrize("what", FORGED)
def test_forged_evidence_is_refused_with_its_reason(what: str) -> None:
    forged, rig = FORGED[what], Rig()
    evidence = forged.make(rig)
    with pytest.raises(forged.error, match=forged.reason) as refused:
        rig.attest(evidence)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("what", FORGED)
def test_what_is_refused_leaves_nothing_behind(what: str) -> None:
    rig = Rig()
    evidence = FORGED[what].make(rig)
    before = len(rig.challenges._spent)
    with pytest.raises(PkiError):
        rig.attest(evidence)
    assert len(rig.challenges._spent) == before


def test_another_usage_counts_where_that_is_asked_for() -> None:
    rig = Rig(any_usage=True)
    for replace in (_SERVER_ONLY, {x509.ExtendedKeyUsage: None}):
        assert rig.attest(rig.evidence((intermediate().machine(replace=replace), intermediate())))


def test_what_is_revoked_is_refused_and_so_is_what_no_crl_covers() -> None:
    own = x509.load_pem_x509_crl(intermediate().crl(foreign_pki.SERIAL))
    ders = {
        "revoked": (_der(intermediate().crl(foreign_pki.SERIAL)), _der(root().crl())),
        "good": (_der(intermediate().crl(17)), _der(root().crl())),
        "CA revoked": (_der(intermediate().crl()), _der(root().crl(2))),
        "not covered": (_der(root().crl()),),
        "stale": (_der(intermediate().crl(end=NOW - HOUR, start=NOW - DAY)), _der(root().crl())),
        "forged": (_der(_namesake_crl()), _der(root().crl())),
    }
    assert own.is_signature_valid(intermediate().certificate.public_key())  # type: ignore[arg-type]
    for what, error, reason in (
        ("revoked", BadEvidence, f"{CN}.*it is revoked"),
        ("CA revoked", BadEvidence, "Corp Machines.*it is revoked"),
        ("not covered", BadEvidence, "no CRL of .*Corp Machines"),
        ("stale", AttestorUnavailable, "Corp Machines"),
        ("forged", AttestorUnavailable, "cannot be relied on"),
    ):
        rig = Rig(crls=ders[what])
        with pytest.raises(error, match=reason):
            rig.attest(rig.evidence())
    rig = Rig(crls=ders["good"])
    assert rig.attest(rig.evidence())
    rig.time += 2 * DAY
    with pytest.raises(AttestorUnavailable, match=r"ended at .*SIGHUP"):
        rig.attest(rig.evidence())


def _der(pem: bytes) -> bytes:
    return x509.load_pem_x509_crl(pem).public_bytes(foreign_pki.Encoding.DER)


def _namesake_crl() -> bytes:
    return root().ca("Corp Machines", "another").crl()


@given(at=st.integers(0, 10_000), by=st.integers(1, 255))
def test_a_changed_byte_is_refused_wherever_it_is(at: int, by: int) -> None:
    rig = Rig()
    evidence = rig.evidence((machine(),) if by % 2 else None)
    assert evidence.attestation is not None
    data = bytearray(evidence.attestation.data)
    data[at % len(data)] ^= by
    changed = evolve(evidence, attestation=AttestationData(KIND, bytes(data)))
    try:
        found = rig.attest(changed)
    except PkiError:
        return
    # Some spellings of PEM and of JSON say the same.
    assert _meaning(bytes(data)) == _meaning(evidence.attestation.data), found


def _meaning(data: bytes) -> Any:
    shown = msgspec.json.decode(data)
    ders = [x509.load_pem_x509_certificate(pem.encode()) for pem in shown["chain"]]
    return shown["challenge"], shown["signature"], ders


@given(st.binary(max_size=400))
def test_no_bytes_make_it_raise_anything_else(data: bytes) -> None:
    rig = Rig()
    with pytest.raises(PkiError):
        rig.attest(Evidence(attestation=AttestationData(KIND, data), csr="x"))


def test_a_table(tmp_path: Path) -> None:
    (tmp_path / "roots.pem").write_text(root().pem + root("Other Root", "other-root").pem)
    (tmp_path / "corp.crl").write_bytes(root().crl())
    table = {"roots": str(tmp_path / "roots.pem"), "crls": [str(tmp_path / "corp.crl")]}
    found = X509PopAttestor.read({**table, "extended_key_usage": "any"}, "[x509pop]")
    assert (len(found.roots), len(found.crls), found.any_usage) == (2, 1, True)
    assert found == X509PopAttestor.read({**table, "extended_key_usage": "any"}, "[x509pop]")
    again = {**table, "roots": [table["roots"], table["roots"]]}
    assert len(X509PopAttestor.read(again, "[x509pop]").roots) == 2


def test_tables_that_are_no_good(tmp_path: Path) -> None:
    (tmp_path / "roots.pem").write_text(root().pem)
    (tmp_path / "leaf.pem").write_text(machine().pem)
    (tmp_path / "empty.pem").write_text("")
    good = {"roots": str(tmp_path / "roots.pem")}
    for change, reason in (
        ({"roots": []}, "name 1 at least"),
        ({"roots": str(tmp_path / "empty.pem")}, "no certificates"),
        ({"roots": str(tmp_path / "leaf.pem")}, "no CA"),
        ({"roots": "roots.pem"}, "no absolute path"),
        ({"crls": [str(tmp_path / "roots.pem")]}, "no CRL"),
        ({"extended_key_usage": "serverAuth"}, "there are roots, crls, extended_key_usage"),
        ({"root": "x"}, "there are roots, crls, extended_key_usage"),
    ):
        with pytest.raises(Malformed, match=reason):
            X509PopAttestor.read({**good, **change}, "[x509pop]")
    with pytest.raises(PkiError, match="cannot be read"):
        X509PopAttestor.read({"roots": str(tmp_path / "none.pem")}, "[x509pop]")
    with pytest.raises(Malformed, match="one table"):
        X509PopAttestor.read([good, good], "[x509pop]")
