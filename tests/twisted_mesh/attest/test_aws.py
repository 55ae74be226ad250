"""Instances of AWS: the table of forged documents, and of tables that say nothing good."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed, PkiError
from pki.policy.selector import Selector
from tests.authorities import key, rsa_key
from tests.pki.policy.kinds import own_kinds
from tests.twisted_mesh.attest.aws_documents import (
    ACCOUNT,
    FACTS,
    INSTANCE,
    NOW,
    REGION,
    Signer,
    attestor,
    aws,
    aws_elsewhere,
    base64_lines,
    document,
    impostor,
    shown,
    usual,
)
from tests.twisted_mesh.attest.processes import outcome
from twisted_mesh.attest.aws import AwsAttestor, AwsSettings
from twisted_mesh.attest.errors import BadEvidence, EvidenceExpired
from twisted_mesh.attest.evidence import Attestation, Evidence
from twisted_mesh.attest.registry import declare_kinds
from twisted_mesh.evidence.interface import AttestationData


@pytest.fixture(autouse=True)
def _kinds() -> Iterator[None]:
    with own_kinds():
        declare_kinds()
        yield


CLAIM = f"aws_iid:{ACCOUNT}:{REGION}:{INSTANCE}"


def attested(evidence: Evidence, of: AwsAttestor | None = None) -> Attestation:
    found = outcome((of or attestor()).attest(evidence))
    assert isinstance(found, Attestation)
    return found


def test_an_instance_is_what_its_document_says() -> None:
    found = attested(shown(usual()))
    assert found.claim == found.proof == CLAIM
    assert found.selectors == {
        Selector("aws_iid:instance:id", INSTANCE),
        Selector("aws_iid:image:id", "ami-5fb8c835"),
        Selector("aws_iid:region", REGION),
        Selector("aws_iid:az", "us-west-2b"),
        Selector("aws_iid:account", ACCOUNT),
    }


def test_a_document_is_the_same_claim_whenever_and_by_whomever_it_is_shown() -> None:
    """Whether its first use wins, is for who records it: it names the instance, and nothing of the request."""
    again = Evidence(attestation=shown(usual()).attestation, csr="another", address="elsewhere")
    later = attested(again, attestor(now=NOW + timedelta(days=300)))
    assert later.claim == attested(shown(usual())).claim


def test_a_detached_document_counts_as_it_was_signed() -> None:
    data = aws().sign(document(), "-nocerts", "-md", "sha256")
    assert attested(shown(data, document().decode())).claim == CLAIM


def of(**changed: Any) -> Callable[[], Evidence]:
    """What AWS has signed with these facts."""
    return lambda: shown(aws().sign(document(**changed)))


def without(member: str) -> Callable[[], Evidence]:
    facts = {name: value for name, value in FACTS.items() if name != member}
    return lambda: shown(aws().sign(json.dumps(facts).encode()))


def _with_twice() -> Evidence:
    return shown(aws().sign(document()[:-1] + b', "accountId": "210987654321"}'))


def _detached_with_other() -> Evidence:
    data = aws().sign(document(), "-nocerts", "-md", "sha256")
    return shown(data, document(instanceId="i-00000000").decode())


@frozen
class Forged:
    make: Callable[[], Evidence]
    reason: str
    error: type[PkiError] = BadEvidence


FORGED = {
    "signed by nobody we know": Forged(lambda: shown(impostor().sign(document())), "not signed by"),
    "SHA-1": Forged(
        lambda: shown(aws().sign(document(), "-nodetach", "-nocerts", "-md", "sha1")), "SHA1"
    ),
    "the plain signature": Forged(lambda: shown(base64_lines(bytes(range(128)))), "rsa2048"),
    "displayed document is another": Forged(_detached_with_other, "not the one that was signed"),
    "a document beside the one in it": Forged(
        lambda: shown(usual(), document().decode()), "only one of them"
    ),
    "of another account": Forged(of(accountId="999999999999"), "account 999999999999"),
    "of another region by this region's key": Forged(
        of(region="eu-west-1"), "region eu-west-1.*another"
    ),
    "of this region by another region's key": Forged(
        lambda: shown(aws_elsewhere().sign(document())), "region us-west-2.*another"
    ),
    "of a region that is not configured": Forged(of(region="ap-south-1"), "ap-south-1.*configured"),
    "future-dated": Forged(
        of(pendingTime="2026-11-23T11:00:00Z"), "starts at .* in 1h", EvidenceExpired
    ),
    "dated by no time": Forged(of(pendingTime="yesterday"), "pendingTime"),
    "a member twice": Forged(_with_twice, "twice"),
    "without an account": Forged(without("accountId"), "accountId"),
    "without an instance": Forged(without("instanceId"), "instanceId"),
    "an account that is a number": Forged(of(accountId=123456789012), "accountId"),
    "an instance with a colon": Forged(of(instanceId="i-00000000:x"), "instanceId is none"),
    "an image of a name": Forged(of(imageId="*"), "imageId is none"),
    "no JSON": Forged(lambda: shown(aws().sign(b"hello")), "no instance identity document"),
    "a list": Forged(lambda: shown(aws().sign(b"[]")), "no instance identity document"),
    "JSON that never ends": Forged(lambda: shown(aws().sign(b"[" * 2000)), "nested too deeply"),
    "with PEM around it": Forged(
        lambda: shown(f"-----BEGIN PKCS7-----\n{base64_lines(usual())}-----END PKCS7-----\n"),
        "without the lines of PEM",
    ),
    "not base64": Forged(lambda: shown("no base64!"), "not in base64"),
    "base64 in another spelling": Forged(lambda: shown("QUJDRB=="), "not in base64"),
    "nothing": Forged(lambda: shown(""), "not in base64"),
    "truncated": Forged(lambda: shown(usual()[:-40]), "damaged"),
    "oversize": Forged(lambda: shown(base64_lines(bytes(40_000))), "over 16384 bytes"),
    "no string": Forged(
        lambda: Evidence(attestation=AttestationData("aws", b"17")), "do not fit", Malformed
    ),
    "an object with a member too many": Forged(
        lambda: Evidence(
            attestation=AttestationData("aws", b'{"pkcs7": "", "document": "", "x": 1}')
        ),
        "do not fit",
        Malformed,
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_forged_evidence_is_refused_with_its_reason(what: str) -> None:
    forged = FORGED[what]
    with pytest.raises(forged.error, match=forged.reason) as refused:
        attested(forged.make())
    assert str(refused.value).isprintable()


def test_an_instance_that_started_long_ago_is_refused_where_that_is_asked_for() -> None:
    limited = attestor(max_age=timedelta(minutes=30))
    assert attested(shown(usual()), limited).claim == CLAIM
    with pytest.raises(EvidenceExpired, match="max_age is 30m"):
        attested(shown(usual()), attestor(NOW + timedelta(hours=1), max_age=timedelta(minutes=30)))


def test_a_clock_of_aws_may_be_some_minutes_ahead() -> None:
    assert attested(of(pendingTime="2026-11-23T10:04:59Z")()).claim == CLAIM


def test_a_certificate_of_aws_that_has_ended_signs_no_more() -> None:
    ended = Signer.make(rsa_key(), not_after=datetime(2026, 11, 1, tzinfo=UTC))
    known = attestor(certificates={REGION: (ended.certificate,)})
    with pytest.raises(BadEvidence, match="ended at 2026-11-01"):
        attested(shown(ended.sign(document())), known)


def test_while_aws_changes_a_certificate_both_count() -> None:
    both = (aws().certificate, aws_elsewhere().certificate)
    changing = attestor(certificates={REGION: both})
    for signer in (aws(), aws_elsewhere()):
        assert attested(shown(signer.sign(document())), changing).claim == CLAIM


@given(st.text(max_size=60) | st.text("ABCab019+/=\n", max_size=60))
def test_no_text_makes_it_raise_anything_else(text: str) -> None:
    with pytest.raises(BadEvidence):
        attested(shown(text))


@given(at=st.integers(0, 5000), letter=st.sampled_from("ABCZaz09+/=-"))
def test_a_changed_letter_is_refused_wherever_it_is(at: int, letter: str) -> None:
    text = "".join(base64_lines(usual()).split())
    at %= len(text)
    changed = text[:at] + letter + text[at + 1 :]
    if changed != text:
        with pytest.raises(BadEvidence):
            attested(shown(changed))


@pytest.fixture
def table(tmp_path: Path) -> dict[str, Any]:
    for region, signer in ((REGION, aws()), ("eu-west-1", aws_elsewhere())):
        pem = signer.certificate.public_bytes(Encoding.PEM)
        (tmp_path / f"{region}.pem").write_bytes(pem)
    return {"certificates": str(tmp_path), "accounts": [ACCOUNT]}


def test_a_table_with_a_directory(table: dict[str, Any]) -> None:
    found = AwsAttestor.read({**table, "max_age": "20m"}, "[aws]")
    assert found.certificates == {
        REGION: (aws().certificate,),
        "eu-west-1": (aws_elsewhere().certificate,),
    }
    assert (found.accounts, found.max_age) == (frozenset({ACCOUNT}), timedelta(minutes=20))


def test_a_table_with_a_file_for_each_region(table: dict[str, Any], tmp_path: Path) -> None:
    files = {"us-east-1": str(tmp_path / f"{REGION}.pem")}
    found = AwsAttestor.read({**table, "certificates": files}, "[aws]")
    assert found.certificates == {"us-east-1": (aws().certificate,)}


def test_a_table_with_some_regions_only(table: dict[str, Any]) -> None:
    found = AwsSettings.read({**table, "regions": [REGION]}, "[aws]")
    assert set(found.certificates) == {REGION}


def test_tables_that_are_no_good(table: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "weak").write_bytes(
        Signer.make(rsa_key(1024)).certificate.public_bytes(Encoding.PEM)
    )
    (tmp_path / "others" / "ec").write_bytes(
        Signer.make(key("aws").private_key).certificate.public_bytes(Encoding.PEM)
    )
    for change, reason in (
        ({"accounts": []}, "name those whose instances count"),
        ({"accounts": ["1234"]}, "12 digits"),
        ({"accounts": ACCOUNT}, "there are certificates, accounts"),
        ({"regions": ["ap-south-1"]}, "no certificate of ap-south-1"),
        ({"regions": []}, "name that of a region at least"),
        ({"certificates": str(tmp_path / "others")}, "name that of a region at least"),
        ({"certificates": str(tmp_path / "none")}, "cannot be read"),
        ({"certificates": "relative"}, "no absolute path"),
        ({"certificates": {"mars": str(tmp_path / f"{REGION}.pem")}}, "no region"),
        (
            {"certificates": {REGION: str(tmp_path / "others" / "weak")}},
            "not the certificate of the form",
        ),
        (
            {"certificates": {REGION: str(tmp_path / "others" / "ec")}},
            "not the certificate of the form",
        ),
        ({"max_age": "soon"}, "max_age.*no duration|max_age.*not a duration"),
        ({"acounts": [ACCOUNT]}, "there are certificates, accounts, regions, max_age"),
    ):
        with pytest.raises(Malformed, match=reason):
            AwsAttestor.read({**table, **change}, "[aws]")
    with pytest.raises(Malformed, match="one table"):
        AwsAttestor.read([table, table], "[aws]")


def test_a_certificate_that_others_may_change_is_none(
    table: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / f"{REGION}.pem").chmod(0o666)
    with pytest.raises(PkiError, match=r"others|chmod|go-w"):
        AwsAttestor.read(table, "[aws]")
