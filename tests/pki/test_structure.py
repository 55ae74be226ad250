"""Damage that keeps the outline: elements of DER and JSON are swapped, doubled, cut and relabelled, all lengths right.

Bytes that are merely flipped are mostly refused by their outline; these get further. Nothing but PkiError may be
raised, and no input may take long.
"""

import base64
import json
import os
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from pki.crl.crl import read_crl
from pki.der import blocks, element, elements
from pki.errors import Malformed, PkiError
from pki.issuing.csr import IssuanceRequest, build_csr
from pki.keys.pkcs8 import read_pem
from pki.ocsp.request import OcspRequest
from pki.ocsp.response import judge_answer
from pki.ocsp.sign import Responder
from pki.svid.bundle import TrustBundle
from pki.svid.x509svid import load_certificates
from tests.answers import answer
from tests.authorities import BACKEND, MESH, NOW, key, mesh, pem, sign_crl

HOME = mesh()
LEAF = HOME.leaf(now=NOW)
ISSUER = HOME.issuing.certificate
ROUNDS = 4000 if os.environ.get("MESH_SOAK") else 120
#: Seconds of processor time for one input: the dearest legal one takes a hundredth.
LONGEST = 0.1
_CONSTRUCTED = 0x20
_TAGS = (
    0x01,
    0x02,
    0x03,
    0x04,
    0x05,
    0x06,
    0x0C,
    0x13,
    0x16,
    0x17,
    0x18,
    0x30,
    0x31,
    0x80,
    0xA0,
    0xA3,
)
_EXTREMES = (b"", b"\0", b"\xff", b"\x80" + bytes(8), b"\x7f" + b"\xff" * 20, bytes(300))


def damaged(der: bytes, draw: Random) -> bytes:
    """``der`` with one or two elements of it, however deep, made into something else."""
    for _ in range(draw.choice((1, 1, 2))):
        der = _damaged(der, draw)
    return der


def _damaged(der: bytes, draw: Random) -> bytes:
    try:
        parts = list(elements(der))
    except Malformed:
        return der
    if not parts:
        return der
    at = draw.randrange(len(parts))
    whole = [part.whole for part in parts]
    chosen = parts[at]
    if chosen.tag & _CONSTRUCTED and chosen.content and draw.random() < 0.8:
        whole[at] = element(chosen.tag, _damaged(chosen.content, draw))
    elif chosen.tag in (0x03, 0x04) and chosen.content and draw.random() < 0.5:
        skip = 1 if chosen.tag == 0x03 else 0  # the count of unused bits
        inner = chosen.content[:skip] + _damaged(chosen.content[skip:], draw)
        whole[at] = element(chosen.tag, inner)
    else:
        kind = draw.choice(("drop", "double", "tag", "content", "swap", "wrap", "many"))
        whole[at] = {
            "drop": b"",
            "double": chosen.whole * 2,
            "tag": element(draw.choice(_TAGS), chosen.content),
            "content": element(chosen.tag, draw.choice(_EXTREMES)),
            "swap": whole[draw.randrange(len(whole))],
            "wrap": element(0x30, chosen.whole * draw.choice((1, 1, 20))),
            "many": chosen.whole * draw.choice((3, 50)),
        }[kind]
    return b"".join(whole)


def damaged_json(value: Any, draw: Random) -> Any:
    """The same for a document."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        name = draw.choice(sorted(value))
        return {**value, name: damaged_json(value[name], draw)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        at = draw.randrange(len(value))
        return [*value[:at], damaged_json(value[at], draw), *value[at + 1 :]]
    if isinstance(value, str) and len(value) > 200 and draw.random() < 0.8:
        return base64.b64encode(damaged(base64.b64decode(value), draw)).decode()
    extremes = (None, True, -1, 2**70, 1e308, "", "\ud800", "A" * 500, [], {}, [[value]] * 50)
    return draw.choice(extremes)


def _bundle(draw: Random) -> bytes:
    return json.dumps(damaged_json(json.loads(HOME.bundle.to_jwks()), draw)).encode()


def _of(der: bytes, label: str = "") -> Callable[[Random], bytes]:
    def make(draw: Random) -> bytes:
        found = damaged(der, draw)
        return pem(found, label) if label else found

    return make


def _only_der(armoured: bytes) -> bytes:
    return blocks(armoured)[0].der


_KEY = base64.b64decode(b"".join(key(9).to_pem(b"passphrase").splitlines()[1:-1]))
_IDENTITY = Responder(ISSUER, HOME.issuing.key).identity
KINDS: dict[str, tuple[Callable[[Random], bytes], Callable[[bytes], object]]] = {
    "csr": (
        _of(_only_der(build_csr(key(9), BACKEND, ["localhost"])), "CERTIFICATE REQUEST"),
        lambda data: IssuanceRequest.parse(data, str(BACKEND), trust_domain=MESH),
    ),
    "crl": (_of(sign_crl(HOME.issuing)), lambda data: read_crl(data, ISSUER, now=NOW)),
    "ocsp request": (
        _of(OcspRequest((_IDENTITY.cert_id(1), _IDENTITY.cert_id(2)), b"nonce").to_der()),
        OcspRequest.parse,
    ),
    "ocsp answer": (
        _of(answer(HOME, LEAF, NOW)),
        lambda data: judge_answer(data, LEAF, ISSUER, now=NOW),
    ),
    "certificates": (
        _of(_only_der(HOME.bundle.to_pem()), "CERTIFICATE"),
        lambda data: load_certificates(data, "it"),
    ),
    "bundle": (_bundle, lambda data: TrustBundle.from_jwks(MESH, data)),
}


@pytest.mark.filterwarnings(
    "ignore"
)  # cryptography says of some things that it will refuse them some day
@pytest.mark.parametrize("kind", KINDS)
def test_damage_that_keeps_the_outline_is_told_in_time(kind: str) -> None:
    make, read = KINDS[kind]
    for seed in range(ROUNDS):
        data = make(Random(f"{kind} {seed}"))
        started = time.thread_time()
        try:
            read(data)
        except PkiError as error:
            assert str(error), seed
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        assert time.thread_time() - started < LONGEST, seed


def test_a_damaged_key_file_is_told_in_time() -> None:
    for seed in range(ROUNDS // 10):
        data = pem(damaged(_KEY, Random(seed)), "ENCRYPTED PRIVATE KEY")
        started = time.thread_time()
        try:
            read_pem(data, b"passphrase")
        except PkiError as error:
            assert str(error), seed
        assert time.thread_time() - started < 2.0, seed
