"""The CA's own certificates and keys on disk: made at the first start, loaded at the later ones."""

from datetime import datetime
from functools import lru_cache

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from pki.authority import Authority
from pki.bundle import TrustBundle
from pki.errors import HOSTILE_INPUT, PkiError
from pki.keys import KeyAlgorithm, MemoryKey, spki_der
from pki.profile import generation_of
from pki.serial import serial_pairs
from pki.spiffe import TrustDomain
from pki.svid import certificates_pem, load_certificates, subject_of, uri_names, validity_of
from pki.validity import spoken_time
from twisted_mesh.events import logger
from twisted_mesh.state import StateDirectory, StateError, read_file, write_whole

_log = logger("ca")


class WrongState(StateError):
    """The files of the state directory do not fit each other, or not these options."""


@frozen
class Authorities:
    """The root, with its key if it is here, and the issuing CA below it."""

    root: x509.Certificate
    root_key: MemoryKey | None
    issuing: Authority

    @property
    def fingerprint(self) -> str:
        """Of the root: what a caller pins."""
        return "sha256:" + self.root.fingerprint(hashes.SHA256()).hex()

    def issuer(self, key_id: str) -> Authority | None:
        """The issuing CA whose key has that id."""
        return self.issuing if self.issuing.key_id == key_id else None

    def forbidden_keys(self) -> frozenset[bytes]:
        """The CAs' own public keys: no workload may have them certified."""
        return _public_keys((self.root, self.issuing.certificate))

    def bundle(self, trust_domain: TrustDomain) -> TrustBundle:
        return TrustBundle(trust_domain, (self.root,), sequence=1, refresh_hint=300)


@lru_cache(maxsize=16)
def _public_keys(certificates: tuple[x509.Certificate, ...]) -> frozenset[bytes]:
    return frozenset(spki_der(certificate.public_key()) for certificate in certificates)


async def load_or_create(
    state: StateDirectory,
    trust_domain: TrustDomain,
    root_algorithm: KeyAlgorithm,
    issuing_algorithm: KeyAlgorithm,
    now: datetime,
) -> Authorities:
    """The authorities of ``state``. Raises :class:`StateError` with the file to look at."""
    if not state.root_certificate.exists():
        if (
            not state.unfinished.exists()
            and any(state.private.glob("*.key"))
            and (state.ca / "issuing.crt").exists()
        ):
            raise WrongState(
                f"{state.root_certificate} is gone but its issuing CA is there: restore it from a backup; "
                f"if its first start was cut short, remove {state.ca / 'issuing.crt'} and start again"
            )
        if (state.ca / "mesh.db").exists():
            raise WrongState(
                f"{state.root_certificate} is gone, and {state.ca / 'mesh.db'} shows that this CA has issued: restore "
                "it from a backup, or start anew in an empty --state-dir"
            )
        # Until it is gone, nothing here has been used: a first start that was cut short is made anew.
        write_whole(state.unfinished, b"", 0o600)
        await _create(state, trust_domain, root_algorithm, issuing_algorithm, now)
    state.unfinished.unlink(missing_ok=True)
    return await _load(state, trust_domain, issuing_algorithm, now)


async def _create(
    state: StateDirectory,
    trust_domain: TrustDomain,
    root_algorithm: KeyAlgorithm,
    issuing_algorithm: KeyAlgorithm,
    now: datetime,
) -> None:
    """A root and an issuing CA. The root's certificate is written last: it says that all is there."""
    _log.info(
        "Generating Root CA key pair ({algorithm})...",
        event="root-generating",
        algorithm=root_algorithm.label,
    )
    root_key = MemoryKey.generate(root_algorithm)
    root = await Authority.create_root(root_key, trust_domain, now)
    write_whole(state.private / "root.key", root_key.to_pem(), 0o600)
    await _create_issuing(state, root, trust_domain, issuing_algorithm, now)
    write_whole(state.root_certificate, certificates_pem([root.certificate]), 0o644)
    tell_certificate("Root CA certificate created", root.certificate)


async def _create_issuing(
    state: StateDirectory,
    root: Authority,
    trust_domain: TrustDomain,
    algorithm: KeyAlgorithm,
    now: datetime,
    *,
    generation: int = 1,
) -> None:
    _log.info(
        "Generating issuing CA key pair ({algorithm})...",
        event="issuing-generating",
        algorithm=algorithm.label,
    )
    _keep_issuing(state, generation - 1)
    key = MemoryKey.generate(algorithm)
    issuing = await root.create_issuing(key, trust_domain, now, generation)
    write_whole(state.private / "issuing.key", key.to_pem(), 0o600)
    write_whole(state.ca / "issuing.crt", certificates_pem([issuing.certificate]), 0o644)


def _keep_issuing(state: StateDirectory, generation: int) -> None:
    """Set the issuing CA that is to be replaced aside: it may be the clock that is wrong."""
    for source, kept, mode in (
        (state.ca / "issuing.crt", state.ca / f"issuing-{generation}.crt", 0o644),
        (state.private / "issuing.key", state.private / f"issuing-{generation}.key", 0o600),
    ):
        if generation and source.exists():
            write_whole(kept, read_file(source, "the issuing CA"), mode)


async def _load(
    state: StateDirectory, trust_domain: TrustDomain, algorithm: KeyAlgorithm, now: datetime
) -> Authorities:
    (root,) = _certificates(state, "root.crt")
    if uri_names(root) != [str(trust_domain.id)]:
        raise WrongState(
            f"{state.root_certificate} is the root of {' '.join(uri_names(root)) or 'another mesh'}, not of "
            f"{trust_domain.id}: choose another --trust-domain or --state-dir"
        )
    root_key = _root_key(state, root)
    if not validity_of(root).contains(now):
        raise WrongState(
            f"{subject_of(root)} is valid from {spoken_time(root.not_valid_before_utc)} to "
            f"{spoken_time(root.not_valid_after_utc)}, and here it is {spoken_time(now)}: check this machine's clock"
        )
    # Before the key is looked at: of a replacement that was cut short, only the key is there.
    (certificate,) = _certificates(state, "issuing.crt")
    if now < certificate.not_valid_before_utc:
        raise WrongState(
            f"the issuing CA is valid from {spoken_time(certificate.not_valid_before_utc)}, and here it is "
            f"{spoken_time(now)}: check this machine's clock; if that is right now and was ahead at an earlier start, "
            f"bring back what was set aside then, issuing-{generation_of(certificate.subject) - 1}.crt and .key"
        )
    if now > certificate.not_valid_after_utc:
        if root_key is None:
            raise WrongState(
                f"the issuing CA is not valid at {spoken_time(now)}, and the root's key is not here to make another: "
                f"check this machine's clock, or bring {state.private / 'root.key'} back and start again"
            )
        await _create_issuing(
            state,
            Authority(root, root_key),
            trust_domain,
            algorithm,
            now,
            generation=generation_of(certificate.subject) + 1,
        )
    return Authorities(root, root_key, _issuing(state, root))


def _root_key(state: StateDirectory, root: x509.Certificate) -> MemoryKey | None:
    path = state.private / "root.key"
    if not path.exists():
        return None
    key = _key(state, "root.key")
    if spki_der(key.public_key) != spki_der(root.public_key()):
        raise WrongState(
            f"{path} is not the key of {state.root_certificate}: restore both from one backup"
        )
    return key


def _issuing(state: StateDirectory, root: x509.Certificate) -> Authority:
    (certificate,) = _certificates(state, "issuing.crt")
    key = _key(state, "issuing.key")
    try:
        certificate.verify_directly_issued_by(root)
        return Authority(certificate, key, (certificate,))
    except Exception:  # a wrong key, another root, a broken signature: one remedy for all
        raise WrongState(
            f"{state.ca / 'issuing.crt'} does not fit {state.private / 'issuing.key'} and {state.root_certificate}: "
            "restore all three from one backup"
        ) from None


def _certificates(state: StateDirectory, name: str) -> tuple[x509.Certificate]:
    path = state.ca / name
    found = load_certificates(read_file(path, "the certificate"), str(path))
    if len(found) != 1:
        raise WrongState(f"{path} holds {len(found)} certificates instead of one")
    try:
        uri_names(found[0])
    except HOSTILE_INPUT:
        raise WrongState(
            f"{path} holds a certificate that cannot be decoded: restore it from a backup"
        ) from None
    return (found[0],)


def _key(state: StateDirectory, name: str) -> MemoryKey:
    path = state.private / name
    pem = read_file(path, "the key")
    if path.stat().st_mode & 0o077:
        raise WrongState(
            f"{path} can be read by others: chmod 600 {path}, and think about who may have read it"
        )
    try:
        return MemoryKey.from_pem(pem)
    except PkiError as error:
        raise WrongState(f"{path}: {error}") from None


def tell_certificate(title: str, cert: x509.Certificate) -> None:
    """A CA certificate's facts, as people see them at the start."""
    _log.info(
        "{title}:\n  Subject: {subject}\n  Serial: {serial}\n  Valid: {not_before} to {not_after}\n"
        "  Key Usage: Certificate Sign, CRL Sign",
        event="ca-certificate",
        title=title,
        subject=subject_of(cert),
        serial=serial_pairs(cert.serial_number),
        not_before=spoken_time(cert.not_valid_before_utc),
        not_after=spoken_time(cert.not_valid_after_utc),
    )
