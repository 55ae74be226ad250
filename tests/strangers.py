"""Every reader of a stranger's bytes, with the dearest input that is known for it: for the bench and the tests.

A reader is here if its bytes come from somebody who has proven nothing, or from a peer, a CA or a file that may lie.
"""

import base64
import hashlib
import json
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from tempfile import NamedTemporaryFile
from typing import Any
from unittest.mock import patch

from attrs import evolve, frozen
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from twisted.internet.address import IPv4Address

from pki.audit.log import LogKey, Verifier
from pki.crl.crl import MAX_CRL_SIZE, read_crl
from pki.ct.entry import EntryType, SignedEntry
from pki.ct.precertificate import with_scts
from pki.ct.receipt import SctDemand
from pki.ct.sct import list_bytes
from pki.der import blocks, element, elements, integer
from pki.errors import PkiError, printable
from pki.issuing.csr import IssuanceRequest, build_csr
from pki.jwt_svid.jwks import JwtAuthority
from pki.keys import KeyAlgorithm, MemoryKey
from pki.keys.kind import KeyKind, base64url
from pki.keys.pkcs8 import read_pem
from pki.ocsp.request import MAX_REQUEST_SIZE, OcspRequest, decode_get
from pki.ocsp.response import MAX_ANSWER_SIZE, judge_answer
from pki.ocsp.sign import Responder
from pki.policy.entry import EntryMembers, read_entry
from pki.svid.bundle import TrustBundle
from pki.svid.x509svid import Purpose, load_certificates
from pki.tlog.merkle import verify_consistency
from pki.validity import rfc3339
from tests.answers import answer
from tests.authorities import (
    BACKEND,
    MESH,
    NOW,
    Mesh,
    key,
    mesh,
    pem,
    rsa_key,
    sign_crl,
    signed_anew,
    tlv,
)
from tests.hostile import dear_chain
from tests.pki.ct.logs import LOGS, ONE, TWO
from tests.twisted_mesh.api.test_client import bundle_asked
from tests.twisted_mesh.http.test_server import Rig
from tests.twisted_mesh.tls.wires import End
from twisted_mesh.api.messages import SignRequest
from twisted_mesh.attest.jwks import LARGEST_JWKS, MOST_KEYS, KeySet
from twisted_mesh.attest.jwt_evidence import EvidenceToken
from twisted_mesh.backup.archive import DATABASE, FORMAT, ROOT, Archive, Manifest, Member
from twisted_mesh.cli.ctl.why_caller import saved_request
from twisted_mesh.http.answer_reader import LARGEST_HEAD
from twisted_mesh.http.json import parse_json
from twisted_mesh.proxy.http_filter import HttpFilter
from twisted_mesh.proxy.http_message import MOST_HEAD
from twisted_mesh.proxy.listener import Listener, Mode, Target
from twisted_mesh.proxy.seam import Caller
from twisted_mesh.trust.judge import Judge

_KIB = 1024
#: What a body of the API may have.
_BODY = 64 * _KIB


@frozen
class Reader:
    """One reader, and what is given to it."""

    name: str
    """As the table of docs/SECURITY.md has it."""
    dearest: str
    """What is known to cost most for each byte."""
    most: int
    """Bytes that are read at most."""
    make: Callable[[int], bytes]
    """The dearest input of about that size."""
    read: Callable[[bytes], object]
    """What raises nothing but PkiError."""
    checks: int = 0
    """Signatures at most that the input makes it check, whatever its size."""
    largest: int = 0
    """What the tests read at most, where ``most`` would take them too long."""

    @property
    def size(self) -> int:
        """Of the largest input that is measured."""
        return self.largest or self.most


@cache
def _mesh() -> Mesh:
    return mesh()


def refused(read: Callable[[bytes], object], data: bytes) -> None:
    """Read, and be refused or not: nothing else may be raised."""
    with suppress(PkiError):
        read(data)


def _spki(public_key: rsa.RSAPublicKey) -> bytes:
    return public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _with_key(spki: bytes) -> bytes:
    """A CSR that names that key, signed by another."""
    (whole,) = elements(blocks(build_csr(key(), BACKEND))[0].der)
    body, *_ = elements(whole.content)
    parts = [spki if at == 2 else one.whole for at, one in enumerate(elements(body.content))]
    return pem(signed_anew(tlv(0x30, b"".join(parts)), rsa_key()), "CERTIFICATE REQUEST")


def _csr_of_a_dear_key(size: int) -> bytes:
    bits = 3072 if size >= 2048 else 2048
    n = Random(size).getrandbits(bits) | 1 << (bits - 1) | 1
    return _with_key(_spki(rsa.RSAPublicNumbers((1 << (bits - 2)) | 1, n).public_key()))


def _csr_of_names(size: int) -> bytes:
    name = "abcdefghijkl1." * max(1, size // 350)
    return build_csr(key(), BACKEND, [name] * 16)


def _read_csr(data: bytes) -> object:
    return IssuanceRequest.parse(data, str(BACKEND), trust_domain=MESH)


def _pems(size: int) -> bytes:
    each = _mesh().bundle.to_pem()
    return each * max(1, size // len(each))


def _jwks(size: int) -> bytes:
    one = json.loads(_mesh().bundle.to_jwks())["keys"][0]
    return json.dumps({"keys": [one] * max(1, size // len(json.dumps(one)))}).encode()


def _crl(size: int) -> bytes:
    return sign_crl(_mesh().issuing, serials=range(1 << 60, (1 << 60) + max(1, size // 30)))


def _read_crl(data: bytes) -> object:
    return read_crl(data, _mesh().issuing.certificate, now=NOW)


def _ocsp_request(size: int) -> bytes:
    identity = Responder(_mesh().issuing.certificate, _mesh().issuing.key).identity
    number = max(1, size // 100)
    return OcspRequest(tuple(map(identity.cert_id, range(1 << 60, (1 << 60) + number)))).to_der()


def _ocsp_get(size: int) -> bytes:
    return b"%2b" * (size // 3)


@cache
def _leaf() -> x509.Certificate:
    return _mesh().leaf(now=NOW)


@cache
def _ocsp_answer(size: int) -> bytes:
    """A good answer with as many more certificates as fit: each might have signed it."""
    good = answer(_mesh(), _leaf(), NOW)
    (whole,) = elements(good)
    status, bytes_ = elements(whole.content)
    (response,) = elements(bytes_.content)
    kind, body = elements(response.content)
    (basic,) = elements(body.content)
    parts = [part.whole for part in elements(basic.content)][:3]
    own = _mesh().issuing.certificate.public_bytes(serialization.Encoding.DER)
    more = own * max(1, (size - 1024) // len(own))
    flipped = parts[2][:-1] + bytes((parts[2][-1] ^ 1,))
    basic_der = tlv(0x30, parts[0] + parts[1] + flipped + tlv(0xA0, tlv(0x30, more)))
    return tlv(0x30, status.whole + tlv(0xA0, tlv(0x30, kind.whole + tlv(0x04, basic_der))))


def _read_answer(data: bytes) -> object:
    return judge_answer(data, _leaf(), _mesh().issuing.certificate, now=NOW)


def _nested(size: int) -> bytes:
    return b'{"csr": ' + b'["\\ud83d\\ude00",' * (size // 15)


def _read_json(data: bytes) -> object:
    return parse_json(data, SignRequest)


def _strings(size: int) -> bytes:
    text = "\\ud83d\\ude00" * (size // 12)
    return b'{"csr": "' + text.encode() + b'", "requested_id": "x"}'


def _note(size: int) -> bytes:
    line = "— mesh.local/log " + base64.b64encode(bytes(68)).decode() + "\n"
    text = "mesh.local/log\n1\n" + "A" * 43 + "=\n\n"
    return (text + line * max(1, size // 2 // len(line))).encode()


@cache
def _verifier() -> Verifier:
    return LogKey.generate("mesh.local/log").verifier


def _read_note(data: bytes) -> object:
    return _verifier().open(data.decode())


def _proof(size: int) -> bytes:
    return bytes(size)


def _read_proof(data: bytes) -> object:
    hashes = [data[at : at + 32] for at in range(0, len(data) - 31, 32)]
    return verify_consistency(2**61 + 1, 2**62 - 1, bytes(32), bytes(32), hashes)


def _text(size: int) -> bytes:
    return b"\x1b" * size


def _read_text(data: bytes) -> object:
    return printable(data.decode("latin-1"))


def _entry(size: int) -> bytes:
    return b"unix:user:" + b"\\" * size


def _read_entry(data: bytes) -> object:
    return read_entry(
        "x",
        MESH,
        EntryMembers(
            selectors=[data.decode()] * 64, spiffe_id="spiffe://mesh.local/{unix:user}" * 9
        ),
    )


def _key_file(size: int) -> bytes:
    """PBKDF2 with two billion rounds."""
    oid = bytes.fromhex
    parameters = tlv(0x30, element(0x04, bytes(max(8, size - 200))) + integer(2**31 - 1))
    derivation = tlv(0x30, oid("06092a864886f70d01050c") + parameters)
    cipher = tlv(0x30, oid("060960864801650304012a") + element(0x04, bytes(16)))
    scheme = tlv(0x30, oid("06092a864886f70d01050d") + tlv(0x30, derivation + cipher))
    return pem(tlv(0x30, scheme + element(0x04, bytes(32))), "ENCRYPTED PRIVATE KEY")


def _read_key(data: bytes) -> object:
    return read_pem(data, b"passphrase")


@cache
def _judge_of_all() -> Judge:
    return End(True).judge


def _judge() -> Judge:
    """One that has refused nothing yet: a stranger never sends the same twice."""
    return evolve(_judge_of_all())


def _chain(size: int) -> bytes:
    """Ten certificates in PEM; a smaller one has fewer."""
    return b"".join(map(pem, dear_chain()[: max(1, min(10, size // 1800))]))


def _read_chain(data: bytes) -> object:
    presented = [block.der for block in blocks(data)]
    return _judge().verdict_on_der(presented, Purpose.CLIENT)


def _receipts(size: int) -> bytes:
    """Sixteen of two logs that are known, none of them good, among extensions of nine bytes."""
    body = mesh().leaf().tbs_certificate_bytes
    scts = [log.sct(SignedEntry(EntryType.X509, b"x"), n) for n in range(8) for log in (ONE, TWO)]
    body = with_scts(body, list_bytes(scts))
    (outer,) = elements(body)
    *fields, wrapped = elements(outer.content)
    (listed,) = elements(wrapped.content)
    small = b"".join(
        b"\x30\x07\x06\x03%b\x04\x00" % bytes((0x2A, n >> 7 | 0x80, n & 0x7F))
        for n in range(0x100, 0x100 + max(0, size - len(body)) // 9)
    )
    extensions = tlv(0xA3, tlv(0x30, small + listed.content))
    front = b"".join(field.whole for field in fields)
    issuing = mesh().issuing.key
    assert isinstance(issuing, MemoryKey)
    return signed_anew(tlv(0x30, front + extensions), issuing.private_key)  # type: ignore[arg-type]


def _read_receipts(data: bytes) -> object:
    cert = x509.load_der_x509_certificate(data)
    return SctDemand(2, LOGS).problems((cert, mesh().issuing.certificate), NOW)


def _head(size: int) -> bytes:
    return b"GET /now HTTP/1.1\r\nHost: a\r\n" + b"x:y\r\n" * (size // 5) + b"\r\n"


def _answer_head(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + b"x:y\r\n" * (size // 5 - 8)


def _read_answer_head(data: bytes) -> object:
    rig = bundle_asked()
    for at in range(0, len(data), 16 * _KIB):
        rig.wire.protocol.dataReceived(data[at : at + 16 * _KIB])
    return rig.outcome


def _saved_request(size: int) -> bytes:
    csr = _csr_of_names(size * 9 // 10).decode()
    return json.dumps({"csr": csr, "requested_id": str(BACKEND)}).encode()


def _explain(data: bytes) -> object:
    with NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return saved_request(file.name).judged(MESH)


def _archive(size: int) -> bytes:
    """As many files of no bytes as fit."""
    names = [ROOT, DATABASE, *(f"ca/{number}.crt" for number in range(max(1, size // 670)))]
    nothing = hashlib.sha256().hexdigest()
    members = [Member(name, 0, nothing) for name in names]
    said = (FORMAT, rfc3339(NOW), "1", nothing, "", 0, 0, None, 0, [], members)
    manifest = Manifest(*said)
    target = BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in (("manifest.json", manifest.to_bytes()), *((n, b"") for n in names)):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, BytesIO(content))
    return target.getvalue()


def _read_archive(data: bytes) -> object:
    with NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        archive = Archive.open(Path(file.name))
        try:
            return archive.read()
        finally:
            archive.close()


def _chunks(size: int) -> bytes:
    """A byte in each chunk."""
    head = b"POST /now HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"1\r\nx\r\n" * (size // 6) + b"0\r\n\r\n"


def _read_http(data: bytes) -> object:
    talk = Rig().talk()
    for at in range(0, len(data), 16 * _KIB):
        talk.say(data[at : at + 16 * _KIB])
    return talk.wire.value()


def _blanks(size: int) -> bytes:
    """A value that is none, behind blanks and more blanks."""
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX:"
    return head + b" " * (size - len(head) - 5) + b"\x01\r\n\r\n"


def _read_proxied(data: bytes) -> object:
    here = IPv4Address("TCP", "127.0.0.1", 1)
    listener = Listener("in", Mode.SERVER, "127.0.0.1:0", Target("127.0.0.1", 1))
    return HttpFilter(Caller(listener, here, here)).from_caller(data)


def _token(size: int) -> bytes:
    """In JSON, with claims of many small parts."""
    whole = size * 3 // 4 - 200
    claims = f'{{"iss":"x","a":[{",".join(["[0]"] * (whole // 4))}]}}'
    header = base64url(b'{"alg":"RS256","kid":"one"}')
    return json.dumps(f"{header}.{base64url(claims.encode())}.AAAA").encode()


def _issuers_keys(size: int) -> bytes:
    """One key on the dearest curve, by as many names as are taken, and filled up to that size."""
    each = LARGEST_JWKS // MOST_KEYS - 300
    key = ec.generate_private_key(ec.SECP521R1()).public_key()
    jwk = JwtAuthority.of(key).to_jwk("sig")
    names = range(min(MOST_KEYS, size * MOST_KEYS // LARGEST_JWKS))
    return json.dumps(
        {"keys": [{**jwk, "kid": str(name), "x5c": ["A" * (each - 100)]} for name in names]}
    ).encode()


READERS = (
    Reader(
        "token of an issuer",
        "claims of many small parts",
        16 * _KIB,
        _token,
        EvidenceToken.read,
    ),
    Reader(
        "JWKS of an issuer",
        "a hundred names of a key of P-521",
        LARGEST_JWKS,
        _issuers_keys,
        KeySet.parse,
    ),
    Reader(
        "chain of a handshake",
        "ten certificates of one name, RSA-3072, exponents of 3,071 bits",
        18 * _KIB,
        _chain,
        _read_chain,
    ),
    Reader(
        "receipts in a certificate",
        "16 of known logs, none of them good, among extensions of nine bytes",
        24 * _KIB,
        _receipts,
        _read_receipts,
        checks=2,
    ),
    Reader(
        "CSR, its key",
        "RSA-3072 with an exponent of 3,071 bits",
        2 * _KIB,
        _csr_of_a_dear_key,
        _read_csr,
    ),
    Reader(
        "CSR, its names",
        "16 long ones that are none",
        28 * _KIB,
        _csr_of_names,
        _read_csr,
        checks=1,
    ),
    Reader(
        "certificates in PEM",
        "one after another",
        1024 * _KIB,
        _pems,
        lambda data: load_certificates(data, "x"),
        largest=128 * _KIB,
    ),
    Reader(
        "trust bundle",
        "one JWK again and again",
        32768 * _KIB,
        _jwks,
        lambda data: TrustBundle.from_jwks(MESH, data),
        largest=128 * _KIB,
    ),
    Reader(
        "CRL", "entries of 30 bytes", MAX_CRL_SIZE, _crl, _read_crl, checks=1, largest=512 * _KIB
    ),
    Reader(
        "OCSP request",
        "certificates without end",
        MAX_REQUEST_SIZE,
        _ocsp_request,
        OcspRequest.parse,
    ),
    Reader(
        "OCSP request by GET",
        "a path that is percent-encoded throughout",
        16 * _KIB,
        _ocsp_get,
        decode_get,
    ),
    Reader(
        "OCSP answer, staple",
        "as many certificates of the responder's name as fit",
        MAX_ANSWER_SIZE,
        _ocsp_answer,
        _read_answer,
        checks=9,
    ),
    Reader("JSON, nested", "brackets and escapes", _BODY, _nested, _read_json),
    Reader("JSON, one string", "pairs of surrogates, escaped", _BODY, _strings, _read_json),
    Reader("HTTP head", "lines of five bytes", 16 * _KIB, _head, _read_http),
    Reader("HTTP body", "a byte in each chunk", 384 * _KIB, _chunks, _read_http, largest=96 * _KIB),
    Reader("HTTP head, proxied", "blanks, and no value", MOST_HEAD, _blanks, _read_proxied),
    Reader("HTTP body, proxied", "a byte in each chunk", 256 * _KIB, _chunks, _read_proxied),
    Reader(
        "HTTP head of a server",
        "lines of five bytes, without an end",
        LARGEST_HEAD + 16 * _KIB,
        _answer_head,
        _read_answer_head,
    ),
    Reader(
        "saved request, for `why`",
        "16 long names that are none",
        30 * _KIB,
        _saved_request,
        _explain,
        checks=1,
    ),
    Reader(
        "backup archive",
        "files of no bytes, as many as a manifest can name",
        5 * 1024 * _KIB,
        _archive,
        _read_archive,
        largest=512 * _KIB,
    ),
    Reader(
        "signed note of a log", "signatures of others without end", 128 * _KIB, _note, _read_note
    ),
    Reader("proof of a log", "hashes without end", 2 * _KIB, _proof, _read_proof),
    Reader(
        "registration entry",
        "64 selectors that all have to be read",
        _BODY // 64,
        _entry,
        _read_entry,
    ),
    Reader("text for the log", "control characters only", _BODY, _text, _read_text),
    Reader("encrypted key file", "two billion rounds of PBKDF2", 64 * _KIB, _key_file, _read_key),
)


@contextmanager
def counted_checks() -> Iterator[list[str]]:
    """The signatures that are checked with keys of the mesh's kinds meanwhile."""
    seen: list[str] = []
    with ExitStack() as stack:
        for kind in {type(algorithm.kind) for algorithm in KeyAlgorithm}:
            stack.enter_context(patch.object(kind, "verify", _noting(seen, kind)))
        yield seen


def _noting(seen: list[str], kind: type[KeyKind[Any, Any]]) -> Callable[..., None]:
    really = kind.verify

    def noted(self: KeyKind[Any, Any], *given: Any) -> None:
        seen.append(self.label)
        really(self, *given)

    return noted


def seconds(reader: Reader, data: bytes, rounds: int = 3) -> float:
    """Of processor time that reading takes; the least of so many rounds."""
    found = []
    for _ in range(rounds):
        started = time.thread_time()
        refused(reader.read, data)
        found.append(time.thread_time() - started)
    return min(found)
