"""The CA's own certificates and keys: made at the first start, loaded at the later ones."""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Self

from attrs import define, evolve, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from pki.issuing.authority import Authority
from pki.issuing.profile import ISSUING
from pki.issuing.publication import Publication
from pki.issuing.rotation import Line, Term, resumable
from pki.jwt_svid.jwks import JwtAuthority
from pki.keys import KeyAlgorithm, MemoryKey, spki_der
from pki.policy.policy import Lifetimes
from pki.serial import serial_pairs
from pki.spiffe import TrustDomain
from pki.svid.bundle import BadBundle, BundleSet, TrustBundle
from pki.svid.revocation_set import Revocation
from pki.svid.x509svid import certificates_pem, subject_of, uri_names, validity_of
from pki.validity import rfc3339
from twisted_mesh.ca.issuing_files import IssuingFiles, WrongState, read_certificate
from twisted_mesh.ca.notifier import Notifier
from twisted_mesh.runtime.clock import RELEASE
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateDirectory, write_whole
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.state.key_owner import owner_of

_log = logger("ca")
__all__ = [
    "Authorities",
    "CurrentAuthorities",
    "WrongState",
    "load_or_create",
    "load_root_key",
    "tell_certificate",
]


@frozen
class Authorities:
    """The root, with its key if it is here, and the issuing CAs below it. Replaced whole."""

    root: x509.Certificate
    root_key: MemoryKey | None
    issuing: Authority
    """The active one: it issues."""
    prepared: Authority | None = None
    """The next one."""
    retired: tuple[Authority, ...] = ()
    """Those that answer for what they issued, the latest generation first."""

    @property
    def fingerprint(self) -> str:
        """Of the root: what a caller pins."""
        return "sha256:" + self.root.fingerprint(hashes.SHA256()).hex()

    def issuer(self, key_id: str) -> Authority | None:
        """The issuing CA whose key has that id."""
        return next((found for found in self.every_issuing if found.key_id == key_id), None)

    @property
    def every_issuing(self) -> tuple[Authority, ...]:
        """The active one, the prepared one, and those that are retired."""
        return (self.issuing, *((self.prepared,) if self.prepared else ()), *self.retired)

    @property
    def line(self) -> Line:
        """What rotation is decided by."""
        return Line(
            Term.of(self.issuing.certificate),
            Term.of(self.prepared.certificate) if self.prepared else None,
            tuple(Term.of(authority.certificate) for authority in self.retired),
        )

    def forbidden_keys(self) -> frozenset[bytes]:
        """The CAs' own public keys: no workload may have them certified."""
        return self._public_keys

    @cached_property
    def _public_keys(self) -> frozenset[bytes]:
        certificates = (self.root, *(ca.certificate for ca in self.every_issuing))
        return frozenset(spki_der(certificate.public_key()) for certificate in certificates)

    def bundle(self, trust_domain: TrustDomain) -> TrustBundle:
        """What members of that trust domain are believed by: the root."""
        return TrustBundle(trust_domain, (self.root,), sequence=1, refresh_hint=300)

    def with_issuing(self, active: Authority, others: tuple[Authority, ...]) -> Self:
        """The latest of ``others`` is the prepared one, if it is later than ``active``; the rest is retired."""
        others = tuple(sorted(others, key=_generation, reverse=True))
        if others and _generation(others[0]) > _generation(active):
            return evolve(self, issuing=active, prepared=others[0], retired=others[1:])
        return evolve(self, issuing=active, prepared=None, retired=others)

    def with_prepared(self, prepared: Authority) -> Self:
        """The same, with the next one; one that was prepared before is retired."""
        return self.with_issuing(self.issuing, (prepared, *self.every_issuing[1:]))

    def with_active(self, active: Authority) -> Self:
        """The same, with ``active``, which is one of them, in the place of the one that issued."""
        return self.with_issuing(active, tuple(ca for ca in self.every_issuing if ca is not active))

    def without(self, forgotten: Authority) -> Self:
        """The same, without one of the retired."""
        return evolve(self, retired=tuple(ca for ca in self.retired if ca is not forgotten))


@frozen
class JwtPublished:
    """The public keys that verify JWT-SVIDs, as the bundle has them."""

    authorities: tuple[JwtAuthority, ...] = ()
    sequence: int = 1
    """Of the whole bundle: the root never changes."""


@frozen(repr=False, hash=False)
class Published:
    """All that the CA tells of whom to believe, but for what was revoked of leaves. Replaced whole."""

    bundles: BundleSet = field(factory=BundleSet)
    issuers: Mapping[str, tuple[x509.Certificate, ...]] = field(factory=dict)
    """By the key id of each issuing CA whose leaves may be in use: what is to be served above them, no root."""
    revoked_authorities: tuple[Revocation, ...] = ()
    """Of CA certificates, roots too; all of them."""
    withdrawn_pins: frozenset[str] = frozenset()
    """``sha256/BASE64`` of the SPKIs of CA keys that nobody is to rely on any more."""

    @cached_property
    def edition(self) -> str:
        """Of what it says: the same text for the same, after a restart too."""
        told = hashlib.sha256()
        for bundle in self.bundles:
            told.update(f"{bundle.trust_domain} {len(bundle.roots)} ".encode() + bundle.to_jwks())
        for key_id, above in sorted(self.issuers.items()):
            told.update(f"{key_id} {len(above)} ".encode() + certificates_pem(above))
        for revoked in self.revoked_authorities:
            told.update(f"{revoked.issuer} {revoked.serial} {revoked.expires_at} ".encode())
        told.update(" ".join(sorted(self.withdrawn_pins)).encode())
        return told.hexdigest()[:32]


@define(eq=False, repr=False)
class CurrentAuthorities:
    """Who issues at this moment, for how long at most, and where certificates say that things are published."""

    trust_domain: TrustDomain
    lifetimes: Lifetimes
    """Of the certificates that are issued for callers."""
    current: Authorities
    notifier: Notifier | None = None
    """Wakes whoever waits for something else to be published."""
    _published_at: str | None = field(default=None, init=False)
    _jwt: JwtPublished = field(factory=JwtPublished, init=False)
    _bundle: TrustBundle = field(init=False)
    _told: Published = field(factory=Published, init=False)

    def __attrs_post_init__(self) -> None:
        self._issue_by(self.current)

    def adopt(self, authorities: Authorities) -> None:
        """From now on ``authorities.issuing`` issues."""
        before = self._told
        self._issue_by(authorities)
        if self.notifier is not None and self._told is not before:
            self.notifier.announce()

    def publish_at(self, base: str) -> None:
        """From now on certificates say that what is published of their issuer is found below ``base``."""
        self._published_at = base
        self.adopt(self.current)

    def publish_jwt(self, published: JwtPublished) -> None:
        """From now on these keys verify the tokens of the trust domain."""
        self._jwt = published
        self.adopt(self.current)

    def bundle(self) -> TrustBundle:
        """What members of the trust domain are believed by."""
        return self._bundle

    def bundles(self) -> BundleSet:
        """The same, as all that is believed here."""
        return self._told.bundles

    @property
    def published(self) -> Published:
        """What is told of whom to believe: another object whenever it says something else."""
        return self._told

    def _issue_by(self, authorities: Authorities) -> None:
        self.current = self._issuing_ours(authorities)
        self._bundle = evolve(
            self.current.bundle(self.trust_domain),
            sequence=self._jwt.sequence,
            jwt_authorities=self._jwt.authorities,
        )
        told = Published(
            BundleSet.of(self._bundle),
            {ca.key_id: ca.intermediates for ca in self.current.every_issuing},
        )
        if told != self._told:
            self._told = told

    def _issuing_ours(self, authorities: Authorities) -> Authorities:
        """The same, with an active one that issues SVIDs as they are settled here."""
        issuing = authorities.issuing
        workload = evolve(
            issuing.workload,
            lifetime=self.lifetimes.maximum,
            publication=self._publication(issuing),
        )
        if issuing.workload == workload:
            return authorities
        return evolve(authorities, issuing=evolve(issuing, workload=workload))

    def _publication(self, issuing: Authority) -> Publication | None:
        base = self._published_at
        if base is None:
            return None
        # Each names its issuer: after a succession there are several.
        return Publication(
            f"{base}/crl/{issuing.key_id}", f"{base}/ocsp", f"{base}/issuer/{issuing.key_id}"
        )


def _generation(authority: Authority) -> int:
    return Term.of(authority.certificate).generation


async def load_or_create(
    state: StateDirectory,
    keys: KeyFiles,
    trust_domain: TrustDomain,
    now: datetime,
    *,
    root_algorithm: KeyAlgorithm,
    issuing_algorithm: KeyAlgorithm,
    issuing_life: timedelta = ISSUING.lifetime,
) -> Authorities:
    """The authorities of ``state``. Raises :class:`StateError` with the file to look at.

    The active issuing CA may have ended, if its successor is there or can be made: that is done by
    :mod:`twisted_mesh.ca.rotation.rotator`.
    """
    state.sweep()
    keys.check()
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
        await _create(
            state,
            keys,
            trust_domain,
            now,
            root_algorithm=root_algorithm,
            issuing_algorithm=issuing_algorithm,
            issuing_life=issuing_life,
        )
    state.unfinished.unlink(missing_ok=True)
    authorities = _load(state, keys, trust_domain, now)
    keys.seal()
    return authorities


async def _create(
    state: StateDirectory,
    keys: KeyFiles,
    trust_domain: TrustDomain,
    now: datetime,
    *,
    root_algorithm: KeyAlgorithm,
    issuing_algorithm: KeyAlgorithm,
    issuing_life: timedelta,
) -> None:
    """A root and an issuing CA. The root's certificate is written last: it says that all is there."""
    if now < RELEASE.at:
        raise WrongState(
            f"here it is {rfc3339(now)}, and this program came out on {RELEASE.at:%Y-%m-%d}: no root is made by a "
            "clock that cannot be right; set this machine's clock, and start again"
        )
    _log.info(
        "Generating Root CA key pair ({algorithm})...",
        event="root-generating",
        algorithm=root_algorithm.label,
    )
    root_key = MemoryKey.generate(root_algorithm)
    root = await Authority.create_root(root_key, trust_domain, now)
    keys.write("root.key", root_key)
    tell_generating(issuing_algorithm)
    key = MemoryKey.generate(issuing_algorithm)
    issuing = await root.create_issuing(key, trust_domain, now, lifetime=issuing_life)
    keys.write("issuing.key", key)
    write_whole(state.ca / "issuing.crt", certificates_pem([issuing.certificate]), 0o644)
    write_whole(state.root_certificate, certificates_pem([root.certificate]), 0o644)
    tell_certificate("Root CA certificate created", root.certificate)


def _load(
    state: StateDirectory, keys: KeyFiles, trust_domain: TrustDomain, now: datetime
) -> Authorities:
    root = read_certificate(state.root_certificate)
    if uri_names(root) != [str(trust_domain.id)]:
        raise WrongState(
            f"{state.root_certificate} is the root of {' '.join(uri_names(root)) or 'another mesh'}, not of "
            f"{trust_domain.id}: choose another --trust-domain or --state-dir"
        )
    root_key = load_root_key(keys, root)
    try:
        TrustBundle(trust_domain, (root,)).to_jwks_object()
    except BadBundle as error:
        raise WrongState(f"{state.root_certificate} cannot be told to anybody: {error}") from None
    if not validity_of(root).contains(now):
        raise WrongState(
            f"{subject_of(root)} is valid from {rfc3339(root.not_valid_before_utc)} to "
            f"{rfc3339(root.not_valid_after_utc)}, and here it is {rfc3339(now)}: check this machine's clock"
        )
    active, others = IssuingFiles(state, keys, root).load(now)
    authorities = Authorities(root, root_key, active).with_issuing(active, others)
    _refuse_ended(authorities, keys, now)
    return authorities


def _refuse_ended(authorities: Authorities, keys: KeyFiles, now: datetime) -> None:
    """An active one that is not valid now is fine, if there is another or if one can be made."""
    line = authorities.line
    if now < line.active.validity.not_before and resumable(line.retired, now) is None:
        raise WrongState(
            f"the issuing CA is valid from {rfc3339(line.active.validity.not_before)}, and here it is "
            f"{rfc3339(now)}: check this machine's clock; if that is right now and was ahead at an earlier start, "
            f"bring back from a backup what was active then, issuing.crt and {keys.path('issuing.key')}"
        )
    successor = line.prepared is not None and line.prepared.validity.contains(now)
    if now > line.active.ends_at and authorities.root_key is None and not successor:
        raise WrongState(
            f"the issuing CA is not valid at {rfc3339(now)}, and the root's key is not here to make another: "
            f"check this machine's clock, or bring {keys.path('root.key')} back and start again"
        )


def load_root_key(keys: KeyFiles, root: x509.Certificate) -> MemoryKey | None:
    """The root's key, if it is here. Raises :class:`StateError` for a key that is not the root's."""
    if not keys.exists("root.key"):
        return None
    key = keys.load("root.key", MemoryKey.from_known_pem)
    if spki_der(key.public_key) != spki_der(root.public_key()):
        owner = owner_of(key, keys.directory.parent)
        raise WrongState(
            f"{keys.path('root.key')} is not the key of {keys.directory.parent / 'root.crt'}{owner}: restore both from "
            "one backup"
        )
    return key


def tell_generating(algorithm: KeyAlgorithm) -> None:
    """Say that a key is being made: one of RSA takes a moment."""
    _log.info(
        "Generating issuing CA key pair ({algorithm})...",
        event="issuing-generating",
        algorithm=algorithm.label,
    )


def tell_certificate(title: str, cert: x509.Certificate) -> None:
    """A CA certificate's facts, as people see them at the start."""
    _log.info(
        "{title}:\n  Subject: {subject}\n  Serial: {serial}\n  Valid: {not_before} to {not_after}\n"
        "  Key Usage: Certificate Sign, CRL Sign",
        event="ca-certificate",
        title=title,
        subject=subject_of(cert),
        serial=serial_pairs(cert.serial_number),
        not_before=rfc3339(cert.not_valid_before_utc),
        not_after=rfc3339(cert.not_valid_after_utc),
    )
