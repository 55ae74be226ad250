"""Certificate signing requests: what a caller asks for, once its proof of possession has held."""

import hashlib
from collections.abc import Collection
from datetime import timedelta
from functools import lru_cache
from typing import Self

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from pki.codes import Code
from pki.der import blocks, inside
from pki.errors import HOSTILE_INPUT, Malformed, Problem, Refused, discreet, printable
from pki.keys import MemoryKey, PublicKey, is_strong, kind_of, spki_der, weaknesses
from pki.pem import REQUEST, listed
from pki.spiffe import NotASpiffeId, SpiffeId, TrustDomain
from pki.svid.names import BadDnsName, IPAddress, alternative_names, dns_name, subject_for
from pki.svid.x509svid import extension

MAX_CSR_SIZE = 32 * 1024
_MAX_NAMES = 64
_LONGEST_REMEMBERED = 1024


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

    @classmethod
    def parse(
        cls,
        pem: bytes,
        requested_id: str,
        ttl: timedelta | None = None,
        *,
        trust_domain: TrustDomain,
        forbidden_keys: Collection[bytes] = (),
    ) -> Self:
        """Read a CSR in PEM.

        ``forbidden_keys`` are SubjectPublicKeyInfos that no workload may have: the CAs' own.
        Raises :class:`Malformed` where it is no CSR at all, and :class:`Refused` with every rule
        that it breaks.
        """
        csr = load_csr(pem)
        problems: list[Problem] = []
        spiffe_id = _requested_id(requested_id, trust_domain, problems)
        info = csr.tbs_certrequest_bytes
        key = _public_key(csr, info, forbidden_keys, problems)
        named = _named(_encoded_names(csr, info, requested_id))
        problems += named.problems
        if ttl is not None and ttl < timedelta(seconds=1):
            problems.append(
                _problem(Code.TTL_OUT_OF_RANGE, "the least lifetime is 1s", "ask for more", "ttl")
            )
        if problems or spiffe_id is None or key is None:
            raise Refused(problems)
        return cls(
            spiffe_id=spiffe_id,
            public_key=key,
            dns_names=named.dns_names,
            ip_addresses=named.ip_addresses,
            ttl=ttl,
            subject=named.subject,
            digest=hashlib.sha256(csr.public_bytes(serialization.Encoding.DER)).hexdigest(),
        )


def load_csr(pem: bytes) -> x509.CertificateSigningRequest:
    """The one CSR in ``pem``, unchecked. Raises :class:`Malformed`."""
    if len(pem) > MAX_CSR_SIZE:
        raise Malformed(f"a CSR has at most {MAX_CSR_SIZE} bytes, this one {len(pem)}")
    der = _der_of(pem)
    try:
        return x509.load_der_x509_csr(der)
    except HOSTILE_INPUT:
        raise Malformed(
            "the CSR cannot be decoded: its PEM or DER is damaged or cut short"
        ) from None


def _der_of(data: bytes) -> bytes:
    """The one CSR of a file in PEM or DER. Raises :class:`Malformed`."""
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
    elif spiffe_id.is_reserved:
        problems.append(
            _problem(
                Code.RESERVED_ID,
                f"{spiffe_id} is reserved: /mesh/** names the mesh itself",
                "choose another path",
            )
        )
    return spiffe_id


def _public_key(
    csr: x509.CertificateSigningRequest,
    info: bytes,
    forbidden: Collection[bytes],
    problems: list[Problem],
) -> PublicKey | None:
    try:
        key = csr.public_key()
        digest = csr.signature_hash_algorithm
        weak = weaknesses(key)
        strong = is_strong(csr)
        # A signature is checked with the stranger's key, at the price that this key sets: only a good one's is.
        proven = _is_proven(csr, info, key) if strong and not weak else None
    except HOSTILE_INPUT:
        problems.append(
            _problem(
                Code.WEAK_KEY,
                "the CSR's public key or signature algorithm is unknown or malformed (a point not on its curve, say)",
                "make a new key and CSR",
                "csr",
            )
        )
        return None
    problems += weak
    if not strong:
        problems.append(
            _problem(
                Code.WEAK_SIGNATURE,
                f"the CSR is signed with {digest.name if digest else 'an unknown hash'}",
                "sign it with SHA-256, SHA-384 or SHA-512",
                "csr",
            )
        )
    elif proven is False:
        problems.append(
            _problem(
                Code.NO_POSSESSION,
                "the CSR's signature does not match its key: possession of the private key is not proven",
                "make the CSR anew with the key that it names",
                "csr",
            )
        )
    if not isinstance(key, PublicKey):
        return None
    if spki_der(key) in forbidden:
        problems.append(
            _problem(
                Code.FORBIDDEN_KEY,
                "this is a certificate authority's own key",
                "make a key of your own",
                "csr",
            )
        )
    return key


def _is_proven(csr: x509.CertificateSigningRequest, info: bytes, key: PublicKeyTypes) -> bool:
    """The same as ``csr.is_signature_valid``, which decodes the key once more."""
    kind, oid = kind_of(key), csr.signature_algorithm_oid
    if kind is None or oid not in kind.verifiable:
        return csr.is_signature_valid
    try:
        kind.verify(key, csr.signature, info, kind.verifiable[oid])
    except InvalidSignature:
        return False
    return True


@frozen
class _EncodedNames:
    """What a workload's CSRs have in common, whatever the key: who they are for, in DER."""

    subject: bytes
    attributes: bytes
    requested_id: str
    csr: x509.CertificateSigningRequest = field(eq=False)


@frozen
class _Names:
    """The same, decoded."""

    subject: str
    dns_names: tuple[str, ...]
    ip_addresses: tuple[IPAddress, ...]
    problems: tuple[Problem, ...]


def _encoded_names(
    csr: x509.CertificateSigningRequest, info: bytes, requested_id: str
) -> _EncodedNames:
    """``info`` is a CertificationRequestInfo (RFC 2986 section 4.1) that cryptography has parsed."""
    start, _ = inside(info, 0)
    _, start = inside(info, start)  # after the version
    _, end = inside(info, start)
    _, rest = inside(info, end)  # after the key
    return _EncodedNames(info[start:end], info[rest:], requested_id, csr)


def _named(encoded: _EncodedNames) -> _Names:
    if len(encoded.subject) + len(encoded.attributes) > _LONGEST_REMEMBERED:
        return _decoded(encoded)
    return _remembered(encoded)


@lru_cache(maxsize=1024)
def _remembered(encoded: _EncodedNames) -> _Names:
    """Workloads come back with the same names and another key, at each renewal."""
    return _decoded(encoded)


def _decoded(encoded: _EncodedNames) -> _Names:
    problems: list[Problem] = []
    dns_names, ip_addresses = _names(encoded.csr, encoded.requested_id, problems)
    subject = _subject(encoded.csr, problems)
    return _Names(subject, dns_names, ip_addresses, tuple(problems))


def _subject(csr: x509.CertificateSigningRequest, problems: list[Problem]) -> str:
    try:
        return printable(csr.subject.rfc4514_string())
    except HOSTILE_INPUT:
        problems.append(
            _problem(
                Code.MALFORMED,
                "the CSR's subject cannot be decoded",
                "leave it empty: it is not copied into the certificate",
                "csr",
            )
        )
        return ""


def _names(
    csr: x509.CertificateSigningRequest, requested_id: str, problems: list[Problem]
) -> tuple[tuple[str, ...], tuple[IPAddress, ...]]:
    try:
        names = list(extension(csr, x509.SubjectAlternativeName) or ())
    except HOSTILE_INPUT:
        problems.append(
            _problem(
                Code.MALFORMED,
                "the CSR's extensions cannot be decoded, or one appears twice",
                "make the CSR anew",
                "csr",
            )
        )
        return (), ()
    if len(names) > _MAX_NAMES:
        problems.append(
            _problem(
                Code.TOO_MANY_NAMES,
                f"a CSR names at most {_MAX_NAMES}, this one {len(names)}",
                "",
                "csr",
            )
        )
        return (), ()
    dns_names: list[str] = []
    ip_addresses: list[IPAddress] = []
    for name in names:
        value = name.value
        if isinstance(name, x509.UniformResourceIdentifier):
            if value != requested_id:
                problems.append(
                    _problem(
                        Code.WRONG_URI,
                        f"the CSR names the URI {printable(str(value), 120)!r}, "
                        f"and {discreet(requested_id, 120)!r} was requested",
                        "let the CSR carry the requested ID as its only URI, or none",
                        "csr",
                    )
                )
        elif isinstance(name, x509.DNSName):
            try:
                dns_names.append(dns_name(name.value))
            except BadDnsName as bad:
                problems.append(_problem(bad.code, bad.detail, bad.remedy, "csr"))
        elif isinstance(value, IPAddress):
            ip_addresses.append(value)
        else:
            problems.append(
                _problem(
                    Code.UNSUPPORTED_NAME,
                    f"the CSR carries a {type(name).__name__}",
                    "use URI, DNS and IP names only",
                    "csr",
                )
            )
    return tuple(dict.fromkeys(dns_names)), tuple(dict.fromkeys(ip_addresses))


def _problem(code: Code, detail: str, remedy: str, subject: str = "requested_id") -> Problem:
    return Problem(code=code, detail=detail, remedy=remedy, subject=subject)
