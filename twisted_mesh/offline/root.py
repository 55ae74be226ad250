"""An offline root on its own machine: a directory with its key, its certificate, and the log that is its record."""

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self

from attrs import define, field
from cryptography import x509

from pki.audit.log import LogKey
from pki.audit.root_acts import RootActs, begin_entry, crl_entry, revoke_entry
from pki.crl.crl import Crl, read_crl
from pki.errors import Malformed, Refused
from pki.issuing.authority import Authority
from pki.issuing.ca_above import root_problems
from pki.issuing.root_line import fingerprint_of
from pki.keys import KeptKey, MemoryKey, key_id
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.x509svid import certificates_pem, is_certified, load_certificates, uri_names
from pki.validity import rfc3339
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.keystores.stores import KeyStores
from twisted_mesh.offline.log import OfflineLog, actor
from twisted_mesh.runtime.clock import RELEASE, Now
from twisted_mesh.state.directory import (
    AlreadyRunning,
    StateDirectory,
    StateError,
    read_file,
    write_whole,
)
from twisted_mesh.state.key_files import KeyFiles

_LOG = "audit.jsonl"


@define(eq=False, repr=False)
class OfflineRoot:
    """A root with its key at hand, and what it has done so far."""

    state: StateDirectory
    authority: Authority
    trust_domain: TrustDomain
    log: OfflineLog
    acts: RootActs
    now: Now
    kept: Path = field(init=False)
    """Where each certificate is kept that it has signed, by its serial."""

    def __attrs_post_init__(self) -> None:
        self.kept = self.state.ca / "issued"

    @classmethod
    def open(
        cls, path: Path, passphrase: bytes | None, now: Now, stores: KeyStores | None = None
    ) -> Self:
        """The one in a directory, for this process alone. Raises :class:`StateError`.

        Its log is held against all that was signed of it first. ``stores`` are where its key may be instead.
        """
        state = StateDirectory(path)
        if not state.root_certificate.exists():
            raise StateError(
                f"there is no offline root in {path}: name its directory, or make one (mesh-ctl ca root offline)"
            )
        _own(state)
        keys = KeyFiles(state.private, passphrase, (stores or KeyStores()).key)
        keys.check()
        certificate = _certificate(state.root_certificate)
        key = keys.kept("root.key", is_known=True)
        if not is_certified(key, certificate):
            raise StateError(
                f"{keys.path('root.key')} is not the key of {state.root_certificate}: put both back from one copy"
            )
        trust_domain = _trust_domain(certificate, state.root_certificate)
        name = _log_name(trust_domain, certificate)
        log_key = keys.load("audit.key", partial(LogKey.from_pem, name))
        log = OfflineLog(state.ca / _LOG, log_key, now)
        log.load()
        keys.seal()
        acts = RootActs.of(key_id(certificate.public_key()), log.entries)
        _refuse_slow_clock(now(), log.entries[-1].at)
        return cls(state, Authority(certificate, key), trust_domain, log, acts, now)

    @classmethod
    async def create(
        cls,
        path: Path,
        trust_domain: TrustDomain,
        root_key: KeySpec,
        *,
        passphrase: bytes | None,
        now: Now,
        generation: int = 1,
        stores: KeyStores | None = None,
    ) -> Self:
        """A new root in a directory of its own. Raises :class:`StateError`, and what stores raise."""
        stores = stores or KeyStores()
        state, keys = _begun(path, passphrase, stores)
        _refuse_slow_clock(now(), RELEASE.at)
        key: KeptKey
        if root_key.is_stored:
            key = await stores.make(root_key, f"{trust_domain} root-{generation}")
        else:
            key = MemoryKey.generate(root_key.algorithm)
        authority = await Authority.create_root(key, trust_domain, now(), generation)
        return await cls._finish(state, keys, authority, now=now, step="root-made")

    @classmethod
    async def adopt(
        cls,
        path: Path,
        key_file: Path,
        certificate_file: Path,
        *,
        crl_file: Path | None,
        passphrase: bytes | None,
        now: Now,
        stores: KeyStores | None = None,
    ) -> Self:
        """A root whose key was taken away from its CA (``ca detach-root``), in a directory of its own.

        ``crl_file`` is the CRL that the CA has of it: what it revoked there stays revoked, and the numbers go on.
        Raises :class:`StateError`, :class:`Malformed` and :class:`Refused`.
        """
        certificate = _certificate(certificate_file)
        crl = None
        if crl_file is not None:
            made = read_file(crl_file, "the root's CRL")
            crl = read_crl(made, certificate, now=now())
        source = KeyFiles(key_file.parent, passphrase, (stores or KeyStores()).key)
        key = source.kept(key_file.name, is_known=True)
        if not is_certified(key, certificate):
            raise Malformed(
                f"{key_file} is not the key of {certificate_file}: name the two of one root"
            )
        trust_domain = _trust_domain(certificate, certificate_file)
        if problems := root_problems(certificate, trust_domain, now()):
            raise Refused(problems)
        state, keys = _begun(path, passphrase, stores or KeyStores())
        authority = Authority(certificate, key)
        return await cls._finish(state, keys, authority, now=now, step="root-brought", crl=crl)

    @classmethod
    async def _finish(
        cls,
        state: StateDirectory,
        keys: KeyFiles,
        authority: Authority,
        *,
        now: Now,
        step: str,
        crl: Crl | None = None,
    ) -> Self:
        """Keep all of it; the certificate is written last, and says that all is there."""
        certificate, root = authority.certificate, authority.key_id
        trust_domain = _trust_domain(certificate, state.root_certificate)
        if not isinstance(authority.key, MemoryKey | StoredKey):
            raise AssertionError("an offline root's key has a file")
        keys.write("root.key", authority.key)
        log_key = LogKey.generate(_log_name(trust_domain, certificate))
        keys.write("audit.key", log_key)
        log = OfflineLog(state.ca / _LOG, log_key, now)
        at, who = now(), actor()
        carried = [revoke_entry(at, who, revocation) for revocation in crl or ()]
        if crl is not None:
            carried.append(
                crl_entry(
                    at,
                    who,
                    root,
                    crl.number or 0,
                    next_update=crl.next_update,
                    entries=len(carried),
                )
            )
        begun = begin_entry(
            at, who, root, certificate, step=step, fingerprint=fingerprint_of(certificate)
        )
        await log.record(begun, *carried)
        write_whole(state.root_certificate, certificates_pem([certificate]), 0o644)
        state.unfinished.unlink(missing_ok=True)
        acts = RootActs.of(root, log.entries)
        return cls(state, authority, trust_domain, log, acts, now)

    def close(self) -> None:
        """Let another process have it."""
        self.state.unlock()


def _own(state: StateDirectory) -> None:
    state.prepare()
    try:
        state.lock()
    except AlreadyRunning:
        raise AlreadyRunning(
            f"another mesh-ctl is at work in {state.root}, or a CA: let it end first"
        ) from None
    state.sweep()


def _begun(
    path: Path, passphrase: bytes | None, stores: KeyStores
) -> tuple[StateDirectory, KeyFiles]:
    """A directory with nothing in it that is of use to anybody. Raises :class:`StateError`."""
    state = StateDirectory(path)
    foreign = (state.root_certificate, state.ca / "issuing.crt", state.ca / "mesh.db")
    if found := next((each for each in foreign if each.exists()), None):
        raise StateError(
            f"{found} is there already: an offline root has a directory of its own, best on a medium of its own, and "
            "never on the CA's machine"
        )
    _own(state)
    keys = KeyFiles(state.private, passphrase, stores.key)
    if keys.exists("root.key") and not state.unfinished.exists():
        raise StateError(
            f"{keys.path('root.key')} is there, and no certificate of it: choose another directory"
        )
    # Until it is gone, nothing here has been used: what was cut short is made anew.
    write_whole(state.unfinished, b"", 0o600)
    return state, keys


def _certificate(path: Path) -> x509.Certificate:
    found = load_certificates(read_file(path, "the root's certificate"), str(path))
    if len(found) != 1:
        raise Malformed(
            f"{path} holds {len(found)} certificates: name the file with the root's alone"
        )
    return found[0]


def _trust_domain(root: x509.Certificate, path: Path) -> TrustDomain:
    names = uri_names(root)
    if len(names) != 1:
        raise Malformed(f"{path} names no trust domain: it is no root of a mesh")
    return SpiffeId.parse(names[0]).trust_domain


def _log_name(trust_domain: TrustDomain, root: x509.Certificate) -> str:
    return f"{trust_domain}/audit/root-{key_id(root.public_key())[:16]}"


def _refuse_slow_clock(now: datetime, earliest: datetime) -> None:
    """A machine that is off most of the time forgets what time it is."""
    if now < earliest:
        raise StateError(
            f"here it is {rfc3339(now)}, and it was {rfc3339(earliest)} already: set this machine's clock right; "
            "certificates and CRLs are dated by it"
        )
