"""Certificate signing requests: what a caller asks for, once its proof of possession has held."""

import binascii
import hashlib
from collections.abc import Collection
from datetime import timedelta
from functools import lru_cache
from ipaddress import ip_address
from itertools import islice
from typing import Self

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pki.codes import Code
from pki.der import SEQUENCE, blocks, der_labels
from pki.errors import Malformed, Problem, Refused, discreet, printable
from pki.issuing.certification_request import (
    BadRequestForm,
    CertificationRequest,
    alternative_names_in,
    read_request,
    subject_text,
)
from pki.issuing.request_key import proven_key
from pki.keys import KeyAlgorithm, MemoryKey, PublicKey, spki_der
from pki.pem import REQUEST, listed
from pki.spiffe import NotASpiffeId, SpiffeId, TrustDomain
from pki.svid import names
from pki.svid.names import BadDnsName, IPAddress, alternative_names, subject_for

MAX_CSR_SIZE = 32 * 1024
_MAX_NAMES = 64
#: Names that are refused and told of: those who see to them come back.
_MOST_TOLD = 16
_LONGEST_REMEMBERED = 1024
#: As nearly every program writes it: one block and nothing else, which needs no reader of all that there is.
_BEGIN, _END = b"-----BEGIN CERTIFICATE REQUEST-----", b"-----END CERTIFICATE REQUEST-----"
#: GeneralNames that no SVID carries, by their tags (RFC 5280 section 4.2.1.6).
_OTHER_NAMES = {
    0xA0: "an otherName",
    0x81: "an e-mail address",
    0xA3: "an X.400 address",
    0xA4: "a directory name",
    0xA5: "an EDI party's name",
    0x88: "a registered ID",
}


@frozen
class IssuanceRequest:
    """A parsed CSR whose proof of possession has been checked, plus what was asked for.

    Only the key and the names come out of a CSR. What else it requests (a CA flag, key usages,
    a subject) is never copied into a certificate.
    """

    spiffe_id: SpiffeId
    public_key: PublicKey
    dns_names: tuple[str, ...]
    ip_addresses: tuple[IPAddress, ...]
    ttl: timedelta | None
    subject: str
    """The subject that the CSR carries: for the log, not for the certificate."""
    digest: str
    """SHA-256 of the CSR's DER, in hex."""
    spki: bytes = field(repr=False)
    """The SubjectPublicKeyInfo of ``public_key``, in DER."""

    @spki.default
    def _encoded_key(self) -> bytes:
        return spki_der(self.public_key)

    @classmethod
    def parse(
        cls,
        pem: bytes,
        requested_id: str,
        ttl: timedelta | None = None,
        *,
        trust_domain: TrustDomain,
        forbidden_keys: Collection[bytes] = (),
        allowed: Collection[KeyAlgorithm] = (),
    ) -> Self:
        """Read a CSR in PEM.

        ``forbidden_keys`` are SubjectPublicKeyInfos that no workload may have: the CAs' own. ``allowed`` are the kinds
        of keys that one may have, all that are not weak if none are given.
        Raises :class:`Malformed` where it is no CSR at all, and :class:`Refused` with every rule
        that it breaks.
        """
        csr = load_csr(pem)
        problems: list[Problem] = []
        spiffe_id = _requested_id(requested_id, trust_domain, problems)
        key = proven_key(csr, forbidden_keys, problems)
        if key is not None and allowed and KeyAlgorithm.of(key.public_key) not in allowed:
            problems.append(_of_another_kind(key.public_key, allowed))
        named = _named(csr.subject, csr.attributes, requested_id)
        problems += named.problems
        if ttl is not None and ttl < timedelta(seconds=1):
            problems.append(
                _problem(Code.TTL_OUT_OF_RANGE, "the least lifetime is 1s", "ask for more", "ttl")
            )
        if problems or spiffe_id is None or key is None:
            raise Refused(problems)
        return cls(
            spiffe_id=spiffe_id,
            public_key=key.public_key,
            dns_names=named.dns_names,
            ip_addresses=named.ip_addresses,
            ttl=ttl,
            subject=named.subject,
            digest=hashlib.sha256(csr.der).hexdigest(),
            spki=key.spki,
        )


def load_csr(pem: bytes) -> CertificationRequest:
    """The one CSR in ``pem``, or in DER, unchecked. Raises :class:`Malformed`."""
    if len(pem) > MAX_CSR_SIZE:
        raise Malformed(f"a CSR has at most {MAX_CSR_SIZE} bytes, this one {len(pem)}")
    return read_request(_der_of(pem))


def _der_of(data: bytes) -> bytes:
    """The one CSR of a file in PEM or DER. Raises :class:`Malformed`."""
    lines = data.rstrip(b"\r\n")
    if lines.startswith(_BEGIN) and lines.endswith(_END):
        body = lines[len(_BEGIN) : -len(_END)]
        try:
            if body.startswith((b"\n", b"\r\n")):
                # It takes base64 and nothing else: no second block, no header.
                return binascii.a2b_base64(body.translate(None, b"\r\n"), strict_mode=True)
        except binascii.Error:
            pass  # the reader of all that there is says what is wrong
    if data[:1] == bytes((SEQUENCE,)) and not der_labels(data):
        return data  # whoever reads it says what is wrong
    try:
        held = blocks(data)
    except Malformed as error:
        raise Malformed(f"the CSR cannot be read as PEM: {error}") from None
    labels = [block.label for block in held]
    if labels == [REQUEST]:
        return held[0].der
    found = listed(labels) if REQUEST not in labels else f"{len(labels)} things, {listed(labels)}"
    raise Malformed(
        f"the CSR is not exactly one PEM block of CERTIFICATE REQUEST but {found}: send what `openssl req` writes"
    )


def build_csr(
    key: MemoryKey,
    spiffe_id: SpiffeId,
    dns_names: Collection[str] = (),
    ip_addresses: Collection[IPAddress] = (),
) -> bytes:
    """A CSR in PEM that proves possession of ``key`` and asks for those names."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject_for(spiffe_id))
        .add_extension(alternative_names(spiffe_id, dns_names, ip_addresses), critical=False)
        .sign(key.private_key, key.algorithm.hash)
        .public_bytes(serialization.Encoding.PEM)
    )


def _requested_id(
    requested_id: str, trust_domain: TrustDomain, problems: list[Problem]
) -> SpiffeId | None:
    try:
        spiffe_id = SpiffeId.parse(requested_id)
    except NotASpiffeId as error:
        problems.append(
            _problem(error.code, str(error), f"ask for spiffe://{trust_domain}/service/NAME")
        )
        return None
    if spiffe_id.trust_domain != trust_domain:
        problems.append(
            _problem(
                Code.WRONG_TRUST_DOMAIN,
                f"this CA issues for {trust_domain}, not for {spiffe_id.trust_domain}",
                f"ask for an ID below spiffe://{trust_domain}/, or ask the CA of {spiffe_id.trust_domain}",
            )
        )
    elif not spiffe_id.path:
        problems.append(
            _problem(
                Code.NOT_AN_SVID, "a workload's ID has a path", f"ask for {spiffe_id}/service/NAME"
            )
        )
    elif spiffe_id.is_reserved and spiffe_id.agent is None:
        problems.append(
            _problem(
                Code.RESERVED_ID,
                f"{spiffe_id} is reserved: /mesh/** names the mesh itself",
                "choose another path",
            )
        )
    return spiffe_id


def _of_another_kind(key: PublicKey, allowed: Collection[KeyAlgorithm]) -> Problem:
    algorithm = KeyAlgorithm.of(key)
    found = algorithm.label if algorithm else "of a kind or size that has no name here"
    return _problem(
        Code.FORBIDDEN_KEY,
        f"this CA certifies keys of {', '.join(allowed)} only, and the CSR's is {found}",
        f"make a key of {' or '.join(allowed)}, or have the CA started with another --leaf-key",
        "csr",
    )


@frozen
class _Names:
    """What a workload's CSRs have in common, whatever the key: who they are for, decoded."""

    subject: str
    dns_names: tuple[str, ...]
    ip_addresses: tuple[IPAddress, ...]
    problems: tuple[Problem, ...]


def _named(subject: bytes, attributes: bytes, requested_id: str) -> _Names:
    """``subject`` and ``attributes`` are in DER."""
    if len(subject) + len(attributes) > _LONGEST_REMEMBERED:
        return _decoded(subject, attributes, requested_id)
    return _remembered(subject, attributes, requested_id)


@lru_cache(maxsize=1024)
def _remembered(subject: bytes, attributes: bytes, requested_id: str) -> _Names:
    """Workloads come back with the same names and another key, at each renewal."""
    return _decoded(subject, attributes, requested_id)


def _decoded(subject: bytes, attributes: bytes, requested_id: str) -> _Names:
    problems: list[Problem] = []
    dns_names: dict[str, None] = {}
    ip_addresses: dict[IPAddress, None] = {}
    try:
        found = tuple(islice(alternative_names_in(attributes), _MAX_NAMES + 1))
        if len(found) > _MAX_NAMES:
            problems.append(
                _problem(
                    Code.TOO_MANY_NAMES,
                    f"a CSR names at most {_MAX_NAMES}, and this one more",
                    "ask for fewer, or for several certificates",
                    "csr",
                )
            )
            found = ()
        for tag, content in found:
            if len(problems) == _MOST_TOLD:
                break
            match tag:
                case names.DNS_NAME:
                    dns_names.update(_dns_name(content, problems))
                case names.IP_ADDRESS:
                    ip_addresses.update(_address(content, problems))
                case names.URI:
                    _check_uri(_text(content), requested_id, problems)
                case _:
                    what = _OTHER_NAMES.get(tag, "a name of a kind that there is not")
                    problems.append(_unsupported(f"the CSR carries {what}"))
    except BadRequestForm as bad:
        problems.append(_problem(bad.code, bad.detail, bad.remedy, "csr"))
    return _Names(subject_text(subject), tuple(dns_names), tuple(ip_addresses), tuple(problems))


def _dns_name(content: bytes, problems: list[Problem]) -> dict[str, None]:
    try:
        return {names.dns_name(_text(content)): None}
    except BadDnsName as bad:
        problems.append(_problem(bad.code, bad.detail, bad.remedy, "csr"))
        return {}


def _check_uri(uri: str, requested_id: str, problems: list[Problem]) -> None:
    if uri != requested_id:
        problems.append(
            _problem(
                Code.WRONG_URI,
                f"the CSR names the URI {printable(uri, 120)!r}, "
                f"and {discreet(requested_id, 120)!r} was requested",
                "let the CSR carry the requested ID as its only URI, or none",
                "csr",
            )
        )


def _address(content: bytes, problems: list[Problem]) -> dict[IPAddress, None]:
    """An address has 4 or 16 bytes; twice as many are a network, and others mostly its text."""
    if len(content) in (4, 16):
        return {ip_address(content): None}
    try:
        written = names.address(content.decode("ascii"))
    except (Malformed, UnicodeDecodeError):
        what = "a network" if len(content) in (8, 32) else f"an IP address of {len(content)} bytes"
        problems.append(
            _unsupported(f"the CSR carries {what}, and an address has 4 or 16", "name each address")
        )
    else:
        problems.append(
            _unsupported(
                f"the CSR carries the IP address {written} as text, and an address has 4 or 16 bytes",
                f"ask for it as IP:{written} with openssl, or san=ip:{written} with keytool",
            )
        )
    return {}


def _text(content: bytes) -> str:
    """A name that should be ASCII, as whoever wrote it saw it."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _unsupported(detail: str, remedy: str = "use URI, DNS and IP names only") -> Problem:
    return _problem(Code.UNSUPPORTED_NAME, detail, remedy, "csr")


def _problem(code: Code, detail: str, remedy: str, subject: str = "requested_id") -> Problem:
    return Problem(code=code, detail=detail, remedy=remedy, subject=subject)
