"""Attests whoever has a certificate of another PKI, and proves that its key is his for the very key to be certified.

Nothing is taken twice: the proof is over a challenge of this CA, made a moment ago.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

import msgspec
from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from zope.interface import implementer

from pki.codes import Code
from pki.crl.crl import MAX_CRL_SIZE, crls_in
from pki.errors import HOSTILE_INPUT, Malformed, Problem
from pki.issuing.csr import load_csr
from pki.keys import spki_der
from pki.policy.selector import Selector, SelectorKind
from pki.spiffe import TrustDomain
from pki.svid.certificate import issuer_problems
from pki.svid.foreign_chain import judge_foreign
from pki.svid.path import Path
from pki.svid.possession import NotPossessed, demand_possession, statement
from pki.svid.x509svid import load_certificates, subject_of, uri_names
from twisted_mesh.attest.attestors_file import absolute, settings_of
from twisted_mesh.attest.challenges import Challenges
from twisted_mesh.attest.errors import BadEvidence, EvidenceExpired
from twisted_mesh.attest.evidence import Attestation, Evidence, read_data, seen
from twisted_mesh.attest.foreign_crls import ForeignCrls
from twisted_mesh.attest.interface import IAttestor, Means, Table
from twisted_mesh.attest.kinds import X509POP
from twisted_mesh.runtime.clock import Now
from twisted_mesh.state.directory import read_trusted

_KIND = "x509pop"
#: The longest signature that there is, of a post-quantum key, has 6,170 characters.
_MOST_CERTIFICATES, _LONGEST_PEM, _LONGEST_SIGNATURE = 10, 36 * 1024, 8 * 1024
_MOST_ROOTS, _MOST_CRLS, _MOST_NAMES, _LARGEST_FILE = 64, 64, 64, 1024 * 1024
_MOST_TOLD = 3
_TIMES = {Code.EXPIRED, Code.NOT_YET_VALID}


class PossessionData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a caller shows: its chain, and the signature that :mod:`pki.svid.possession` describes."""

    chain: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=_LONGEST_PEM)]],
        msgspec.Meta(min_length=1, max_length=_MOST_CERTIFICATES),
    ]
    """In PEM, one certificate each, the leaf first; the root may be missing."""
    challenge: str
    signature: Annotated[str, msgspec.Meta(max_length=_LONGEST_SIGNATURE)]
    """In base64url, without padding."""


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    roots: str | list[str]
    crls: list[str] = []
    extended_key_usage: Literal["clientAuth", "any"] = "clientAuth"


@frozen
class X509PopSettings:
    """What the table ``[x509pop]`` says."""

    roots: tuple[x509.Certificate, ...]
    """Whoever they vouch for is attested; one may be a CA below a root."""
    crls: tuple[bytes, ...] = field(default=(), repr=False)
    """In DER. Where there are some, each certificate below a root has to be covered by one."""
    any_usage: bool = False

    @classmethod
    def read(cls, table: Table, where: str) -> Self:
        """Raises :class:`Malformed` with what is wrong, and StateError for a file that cannot be read."""
        if not isinstance(table, Mapping):
            raise Malformed(f"{where}: there is one table, with all roots in it")
        told = settings_of(table, _Table, where)
        files = [told.roots] if isinstance(told.roots, str) else told.roots
        roots = tuple(dict.fromkeys(root for file in files for root in _roots(file, where)))
        if not 0 < len(roots) <= _MOST_ROOTS:
            raise Malformed(
                f"{where}: roots: there are {len(roots)}; name 1 at least, and {_MOST_ROOTS} at most"
            )
        crls = tuple(crl for file in told.crls for crl in _crls(file, where))
        if len(crls) > _MOST_CRLS:
            raise Malformed(f"{where}: crls: there are {len(crls)}, and {_MOST_CRLS} at most")
        return cls(roots, crls, told.extended_key_usage == "any")


@implementer(IAttestor)
@define(eq=False, repr=False)
class X509PopAttestor:
    """``x509pop`` selectors of whoever has the key of a certificate that leads to a configured root.

    It claims nothing: each proof is made anew, so that who has the key may attest as often as he likes.
    """

    settings: X509PopSettings
    challenges: Challenges
    trust_domain: TrustDomain
    now: Now
    blocked: Callable[[PublicKeyTypes], Problem | None] = lambda key: None
    """Why nothing is certified for a key."""
    _crls: ForeignCrls = field(init=False)
    name: ClassVar[str] = _KIND
    table: ClassVar[str] = _KIND
    kinds: ClassVar[tuple[SelectorKind, ...]] = X509POP

    @_crls.default
    def _of_settings(self) -> ForeignCrls:
        return ForeignCrls(self.settings.crls)

    @classmethod
    def read(cls, table: Table, where: str) -> X509PopSettings:
        """As :meth:`X509PopSettings.read`."""
        return X509PopSettings.read(table, where)

    @classmethod
    def of(cls, settings: X509PopSettings, means: Means) -> Self:
        """One that goes by the CA's clock and its challenges."""
        return cls(settings, means.challenges, means.trust_domain, means.now, means.blocked)

    async def challenge(self, kind: str, data: bytes) -> bytes | None:
        """What the caller has to sign, together with the key that it wants certified."""
        if kind != _KIND:
            return None
        return self.challenges.make(_KIND).encode("ascii")

    async def attest(self, evidence: Evidence) -> Attestation | None:
        """What the certificate says of its holder.

        Raises :class:`BadEvidence`, :class:`EvidenceExpired`, :class:`Malformed`, what a challenge that is no
        good raises, and :class:`AttestorUnavailable` where a CRL is stale.
        """
        shown = evidence.attestation
        if shown is None or shown.kind != _KIND:
            return None
        data = read_data(shown.data, PossessionData)
        self.challenges.check(_KIND, data.challenge)
        spki = _key_to_certify(evidence.csr)
        signed = statement(data.challenge, str(self.trust_domain), spki)
        chain = [_one_certificate(pem) for pem in data.chain]
        try:
            demand_possession(chain[0].public_key(), _signature(data.signature), signed)
        except NotPossessed as error:
            raise BadEvidence(str(error)) from None
        except HOSTILE_INPUT:
            raise BadEvidence("the key of this certificate cannot be decoded") from None
        if (problem := self.blocked(chain[0].public_key())) is not None:
            raise BadEvidence(f"the key of this certificate is blocked: {problem.detail}")
        paths = self._judged(chain)
        # The last, so that nothing is remembered of whoever is nobody.
        self.challenges.spend(_KIND, data.challenge)
        leaf = chain[0]
        return Attestation(
            f"{_KIND}:sha256:{leaf.fingerprint(SHA256()).hex()}",
            frozenset(_selectors(leaf, paths, self.trust_domain)),
        )

    def _judged(self, chain: Sequence[x509.Certificate]) -> list[Path]:
        """The paths that are good and of which nothing is revoked."""
        verdict = judge_foreign(
            chain, self.settings.roots, now=self.now(), any_usage=self.settings.any_usage
        )
        problems: Sequence[Problem] = verdict.problems
        good = []
        for path in verdict.paths:
            revoked = self._crls.problems(path, self.now())
            if not revoked:
                good.append(path)
            problems = problems or revoked
        if good:
            return good
        told = "; ".join(f"{p.subject}: {p.detail}" for p in problems[:_MOST_TOLD])
        error = EvidenceExpired if {p.code for p in problems} <= _TIMES else BadEvidence
        raise error(f"this certificate is not taken: {told} ({problems[0].rule})")


def _selectors(
    leaf: x509.Certificate, paths: Sequence[Path], trust_domain: TrustDomain
) -> Iterator[Selector]:
    """As SPIRE makes them; a value that is ambiguous makes none."""
    serial = leaf.serial_number
    yield from seen("x509pop:serialnumber", serial.to_bytes(-(-serial.bit_length() // 8)).hex())
    above = {cert for path in paths for cert in path[1:]}
    yield from seen("x509pop:ca:fingerprint", *map(_sha1, above))
    try:
        names = leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        uris = uri_names(leaf)
    except HOSTILE_INPUT:
        return
    if len(names) == 1:
        yield from seen("x509pop:subject:cn", names[0].value)
    ours = f"x509pop://{trust_domain}/"
    for uri in uris[:_MOST_NAMES]:
        key, _, value = uri.removeprefix(ours).partition("/")
        # With a colon in the key, two pairs would make one selector.
        if uri.startswith(ours) and key and value and ":" not in key:
            yield from seen("x509pop:san", f"{key}:{value}")


def _sha1(cert: x509.Certificate) -> str:
    """How SPIRE names a CA: it tells it apart, and nobody is believed for it."""
    return hashlib.sha1(cert.public_bytes(Encoding.DER), usedforsecurity=False).hexdigest()


def _key_to_certify(csr: str | None) -> bytes:
    """The SubjectPublicKeyInfo of a request; whether it is one of its owner's is for whoever reads it."""
    if csr is None:
        raise BadEvidence("a proof of this kind is for one key: send it with a CSR")
    try:
        return spki_der(load_csr(csr.encode("utf-8", "replace")).public_key())
    except HOSTILE_INPUT:
        raise BadEvidence("the key of the CSR cannot be decoded") from None


def _one_certificate(pem: str) -> x509.Certificate:
    found = load_certificates(pem.encode("utf-8", "replace"), "a part of the chain")
    if len(found) != 1:
        raise BadEvidence("each part of the chain is one certificate in PEM")
    return found[0]


def _signature(text: str) -> bytes:
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if not decoded or base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != text:
        raise BadEvidence("the signature is not in base64url without padding (RFC 7515)")
    return decoded


def _roots(file: str, where: str) -> tuple[x509.Certificate, ...]:
    path = absolute(file, f"{where}: roots")
    found = load_certificates(read_trusted(path, f"{where}: roots", _LARGEST_FILE), str(path))
    for root in found:
        for problem in issuer_problems(root, 0, ()):
            raise Malformed(f"{where}: roots: {path}: {subject_of(root)}: {problem.detail}")
    return found


def _crls(file: str, where: str) -> tuple[bytes, ...]:
    path = absolute(file, f"{where}: crls")
    try:
        return crls_in(read_trusted(path, f"{where}: crls", MAX_CRL_SIZE))
    except Malformed as error:
        raise Malformed(f"{where}: crls: {path}: {error}") from None
