"""Whatever bytes come, the judge says no in one of two ways; and no bytes are two things."""

from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pki.der import SEQUENCE, element
from pki.signing.errors import NotSignable, SigningRefused
from pki.signing.memory import Verdict
from tests.authorities import BACKEND, HOUR, NOW, key
from tests.pki.signing.conftest import Rig
from tests.pki.signing.remembered import JudgedKey
from tests.pki.signing.test_certificate import leaf
from tests.pki.signing.test_crl import listing
from tests.pki.signing.test_ocsp import GOOD, answer

RIG = Rig()
KEYS = (RIG.root_key, RIG.issuing_key, RIG.audit_key)
GENUINE = (
    leaf(RIG, serial=(1 << 100) + 7),
    listing(RIG, [1 << 90, (1 << 90) + 1], 5),
    answer(RIG, 5, GOOD, nonce=b"n" * 16),
)
heads = st.sampled_from(
    [
        b"",
        b"twisted-mesh ",
        b"twisted-mesh: does this key sign? ",
        b"twisted-mesh roots 1\n",
        b"mesh.local\n1\n",
    ]
)


def judged(one: JudgedKey, data: bytes) -> Verdict | None:
    with suppress(NotSignable, SigningRefused):
        return one.judge(data)
    return None


@given(data=st.builds(bytes.__add__, heads, st.binary(max_size=200)))
def test_bytes(data: bytes) -> None:
    for one in KEYS:
        judged(one, data)


@given(parts=st.lists(st.binary(max_size=40), max_size=8), tags=st.binary(min_size=8, max_size=8))
def test_der_of_anything(parts: list[bytes], tags: bytes) -> None:
    inner = b"".join(element(tag, part) for tag, part in zip(tags, parts, strict=False))
    for one in KEYS:
        judged(one, element(SEQUENCE, inner))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(which=st.sampled_from(GENUINE), at=st.integers(0), flip=st.integers(1, 255))
def test_a_genuine_one_with_a_byte_changed_is_signed_only_as_what_it_then_says(
    which: bytes, at: int, flip: int
) -> None:
    at %= len(which)
    spoiled = which[:at] + bytes([which[at] ^ flip]) + which[at + 1 :]
    verdict = judged(RIG.issuing_key, spoiled)
    if verdict is not None and verdict.kind == "certificate":
        assert str(verdict.facts["uri"]).startswith("spiffe://mesh.local/")
        assert verdict.facts["profile"] in ("workload", "ocsp-responder")


def test_no_genuine_one_is_signed_by_a_key_of_another_purpose() -> None:
    draft = RIG.issuing.draft(key(1).public_key, BACKEND, NOW, HOUR)
    for data in (*GENUINE, draft.tbs):
        assert judged(RIG.root_key, data) is None
        assert judged(RIG.audit_key, data) is None
