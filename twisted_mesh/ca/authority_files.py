"""The CA's own certificates and keys on disk: made at the first start, loaded at the later ones."""

from datetime import datetime, timedelta

from cryptography import x509

from pki.issuing.authority import Authority
from pki.issuing.profile import ISSUING, ISSUING_NAME, ca_subject, generation_of
from pki.issuing.root_line import RootLine
from pki.issuing.rotation import resumable
from pki.keys import KeyAlgorithm
from pki.serial import serial_pairs
from pki.spiffe import TrustDomain
from pki.svid.x509svid import certificates_pem, subject_of
from pki.validity import rfc3339
from twisted_mesh.ca.authorities import Authorities
from twisted_mesh.ca.issuing_files import IssuingFiles, WrongState
from twisted_mesh.ca.key_drawing import KeyDrawing, in_place
from twisted_mesh.ca.revoked_authorities import NAME as REVOKED
from twisted_mesh.ca.revoked_authorities import RevokedAuthorities
from twisted_mesh.ca.root_files import RootFiles
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.keystores.stores import KeyStores
from twisted_mesh.runtime.clock import RELEASE
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateDirectory, write_whole
from twisted_mesh.state.key_files import KeyFiles

_log = logger("ca")


async def load_or_create(
    state: StateDirectory,
    keys: KeyFiles,
    trust_domain: TrustDomain,
    now: datetime,
    *,
    root_key: KeySpec,
    issuing_key: KeySpec,
    issuing_life: timedelta = ISSUING.lifetime,
    stores: KeyStores | None = None,
) -> Authorities:
    """The authorities of ``state``. Raises :class:`StateError` with the file to look at.

    The active issuing CA may have ended, if its successor is there or can be made: that is done by
    :mod:`twisted_mesh.ca.rotation.rotator`.
    """
    state.sweep()
    keys.check()
    if not state.root_certificate.exists():
        if state.first_request.exists():
            raise WrongState(
                f"this CA waits for the certificate of its first issuing CA ({state.first_request} is the CSR): have "
                "it certified, and install what comes back (mesh-ctl ca root install)"
            )
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
        drawing = KeyDrawing(keys, trust_domain, stores or KeyStores(), in_place)
        await _create(
            state,
            drawing,
            now,
            root_key=root_key,
            issuing_key=issuing_key,
            issuing_life=issuing_life,
        )
    state.unfinished.unlink(missing_ok=True)
    state.first_request.unlink(missing_ok=True)
    authorities = _load(state, keys, trust_domain, now)
    keys.seal()
    return authorities


async def _create(
    state: StateDirectory,
    drawing: KeyDrawing,
    now: datetime,
    *,
    root_key: KeySpec,
    issuing_key: KeySpec,
    issuing_life: timedelta,
) -> None:
    """A root and an issuing CA. The root's certificate is written last: it says that all is there.

    What was cut short is made anew, but for keys in a store: those are taken up, so that none is left over there.
    """
    for name, spec in (("root.key", root_key), ("issuing.key", issuing_key)):
        if not spec.is_stored:
            drawing.files.remove(name)
    if now < RELEASE.at:
        raise WrongState(
            f"here it is {rfc3339(now)}, and this program came out on {RELEASE.at:%Y-%m-%d}: no root is made by a "
            "clock that cannot be right; set this machine's clock, and start again"
        )
    trust_domain = drawing.trust_domain
    signer = await drawing.draw("root.key", root_key, "root-1", tell_generating_root)
    root = await Authority.create_root(signer, trust_domain, now)
    key = await drawing.draw(
        "issuing.key", issuing_key, "issuing-1", tell_generating, [root.key_id]
    )
    issuing = await root.create_issuing(key, trust_domain, now, lifetime=issuing_life)
    write_whole(state.ca / "issuing.crt", certificates_pem([issuing.certificate]), 0o644)
    write_whole(state.root_certificate, certificates_pem([root.certificate]), 0o644)
    tell_certificate("Root CA certificate created", root.certificate)


def _load(
    state: StateDirectory, keys: KeyFiles, trust_domain: TrustDomain, now: datetime
) -> Authorities:
    files = RootFiles(state, keys)
    line = files.load(trust_domain)
    root_keys = files.load_keys(line)
    _refuse_early_root(line, now)
    active, others = IssuingFiles(state, keys, line).load(now)
    revoked = RevokedAuthorities(state.ca / REVOKED).load()
    authorities = (
        Authorities(line.served, None, active, root_line=line, revoked=revoked)
        .with_issuing(active, others)
        .with_root_keys(root_keys)
    )
    files.demand_signed((active, *others))  # one that is revoked goes once another has signed
    _refuse_other_domain(authorities, trust_domain)
    files.tidy(line, root_keys)
    _refuse_ended(authorities, keys, now)
    return authorities


def _refuse_other_domain(authorities: Authorities, trust_domain: TrustDomain) -> None:
    """Below a root of somebody else's, which names no trust domain, what it has certified of ours does."""
    subject = authorities.issuing.certificate.subject
    if subject != ca_subject(ISSUING_NAME, trust_domain, generation_of(subject)):
        raise WrongState(
            f"the issuing CA is {authorities.issuing.name}, and not of {trust_domain}: choose another --trust-domain "
            "or --state-dir"
        )


def _refuse_early_root(line: RootLine, now: datetime) -> None:
    """A root that has ended is no reason not to start: who asks on the socket gets another one made."""
    root = line.served
    if now < root.not_valid_before_utc:
        raise WrongState(
            f"{subject_of(root)} is valid from {rfc3339(root.not_valid_before_utc)} to "
            f"{rfc3339(root.not_valid_after_utc)}, and here it is {rfc3339(now)}: check this machine's clock"
        )


def _refuse_ended(authorities: Authorities, keys: KeyFiles, now: datetime) -> None:
    """An active one that is not valid now is fine, if there is another or if one can be made."""
    line = authorities.line
    if now > authorities.root.not_valid_after_utc:
        return  # no issuing CA could be valid: another root is wanted first, and whoever asks on the socket gets one
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


def tell_generating_root(algorithm: KeyAlgorithm) -> None:
    """The same of a root's."""
    _log.info(
        "Generating Root CA key pair ({algorithm})...",
        event="root-generating",
        algorithm=algorithm.label,
    )


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
