"""A CA that never has a root's key: its first issuing CA is certified elsewhere, before it starts for the first time.

No CA runs meanwhile. ``issuing.csr`` beside a missing ``root.crt`` says that it waits; the write of ``root.crt``, which
is the last, ends that, and from then on the CA starts as any whose root's key was taken away.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from attrs import define, frozen
from cryptography import x509

from pki.audit.log import Act
from pki.codes import Code
from pki.crl.crl import Crl, crls_in, read_crl
from pki.errors import Problem, Refused
from pki.issuing import rotation
from pki.issuing.authority import Authority
from pki.issuing.ca_above import root_problems
from pki.issuing.ca_request import CaRequest, build_ca_request, trust_domain_of
from pki.issuing.profile import WORKLOAD, generation_of
from pki.issuing.root_line import fingerprint_of
from pki.issuing.upstream import IssuingChain, Wanted
from pki.keys import KeptKey, MemoryKey, key_id, spki_der
from pki.serial import serial_hex
from pki.spiffe import TrustDomain
from pki.svid.bundle import TrustBundle
from pki.svid.certificate import is_self_issued
from pki.svid.x509svid import certificates_pem, load_certificates, subject_of
from pki.validity import rfc3339
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.issuing_files import WrongState
from twisted_mesh.ca.revocation.crl_publisher import crl_name
from twisted_mesh.ca.root_files import RootFiles
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.keystores.stores import KeyStores
from twisted_mesh.runtime.clock import RELEASE, Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateDirectory, StateError, read_file, write_whole
from twisted_mesh.state.key_files import KeyFiles, remove_file

_log = logger("ca")
_KEY = "issuing.key"


class _Note(msgspec.Struct, forbid_unknown_fields=True):
    """What the CA records at its first start."""

    key_id: str
    facts: dict[str, str]


@frozen(eq=False, repr=False)
class FirstChain:
    """What is to be installed; it was looked at."""

    chain: IssuingChain
    crl: Crl | None
    crl_der: bytes
    key: KeptKey
    csr: str


@define(eq=False, repr=False)
class FirstInstallation:
    """The files of a CA before its first start, for this process alone."""

    state: StateDirectory
    keys: KeyFiles
    now: Now
    longest_leaf: timedelta = WORKLOAD.lifetime
    """As the CA will have it by default."""

    def open(self) -> None:
        """Own the state directory. Raises :class:`StateError`, also where a CA is in it."""
        self.state.prepare()
        self.state.lock()
        if self.state.root_certificate.exists():
            raise WrongState(
                f"there is a CA in {self.state.root} already, and it does not answer: start it, and ask it again"
            )
        if (self.state.ca / "mesh.db").exists():
            raise WrongState(
                f"{self.state.root_certificate} is gone, and {self.state.ca / 'mesh.db'} shows that this CA has "
                "issued: restore it from a backup"
            )
        if self.state.unfinished.exists():
            raise WrongState(
                f"a first start was cut short in {self.state.root}, which made a root of its own: choose an empty "
                "--state-dir"
            )
        self.state.sweep()

    def close(self) -> None:
        """Let another process have it."""
        self.state.unlock()

    async def request(
        self,
        trust_domain: TrustDomain,
        spec: KeySpec,
        stores: KeyStores | None = None,
        *,
        anew: bool = False,
    ) -> tuple[bytes, CaRequest]:
        """The CSR of the first issuing CA; the same each time, unless ``anew``.

        Raises :class:`StateError`, and what stores raise.
        """
        path = self.state.first_request
        if path.exists() and not anew:
            made = read_file(path, "the CSR")
            if (whose := trust_domain_of(made)) != trust_domain:
                raise WrongState(
                    f"{path} is the CSR of a CA of {whose}: say --trust-domain {whose}, or --new-key for another CA"
                )
            found = CaRequest.parse(made, trust_domain)
            if found.spki == spki_der(self._key().public_key):
                return made, found
        now = self.now()
        if now < RELEASE.at:
            raise WrongState(
                f"here it is {rfc3339(now)}, which cannot be right: set this machine's clock, and ask again"
            )
        # Without a CSR beside it a key is of no use to anybody.
        remove_file(path)
        key: KeptKey
        if spec.is_stored:
            key = await (stores or KeyStores()).make(spec, f"{trust_domain} issuing-1")
        else:
            key = MemoryKey.generate(spec.algorithm)
        self.keys.write(_KEY, key)
        made = await build_ca_request(key, trust_domain, 1)
        write_whole(path, made, 0o644)
        return made, CaRequest.parse(made, trust_domain)

    def _key(self) -> KeptKey:
        return self.keys.kept(_KEY)

    async def look_at(self, certificates: bytes, crls: Sequence[bytes]) -> FirstChain:
        """Read what was certified; the root is among it. Raises :class:`Malformed` and :class:`Refused`."""
        path = self.state.first_request
        if not path.exists():
            raise WrongState(
                f"nothing waits for a certificate in {self.state.root}: begin with mesh-ctl ca root csr"
            )
        made, key = read_file(path, "the CSR"), self._key()
        trust_domain = trust_domain_of(made)
        request = CaRequest.parse(made, trust_domain)
        found = load_certificates(certificates, "the files")
        root, problems = _root(found, trust_domain, self.now())
        chain = None
        if root is not None:
            wanted = Wanted(
                trust_domain, request.subject, request.spki, self.longest_leaf, self.now()
            )
            try:
                (chain,) = IssuingChain.among(found, [root], wanted)
            except Refused as error:
                problems += error.problems
        crl, der = self._crl(crls, root, problems)
        if problems or chain is None:
            raise Refused(dict.fromkeys(problems))
        candidate = Authority(chain.certificate, key, chain.certificates)
        await rotation.prove(candidate, TrustBundle(trust_domain, (chain.root,)), self.now())
        return FirstChain(chain, crl, der, key, request.fingerprint)

    def _crl(
        self, crls: Sequence[bytes], root: x509.Certificate | None, problems: list[Problem]
    ) -> tuple[Crl | None, bytes]:
        ders = [der for data in crls for der in crls_in(data)]
        if len(ders) > 1:
            problems.append(
                _problem(Code.CONFLICT, "there is more than one CRL", "bring the root's")
            )
        if not ders or root is None:
            return None, b""
        try:
            return read_crl(ders[0], root, now=self.now()), ders[0]
        except Refused as error:
            problems += error.problems
            return None, b""

    def install(self, looked_at: FirstChain, by: str) -> None:
        """Write it. The root's certificate is the last: it says that all is there. Raises :class:`StateError`."""
        chain, ca = looked_at.chain, self.state.ca
        certificate = chain.certificate
        if chain.certificates[1:]:
            RootFiles(self.state, self.keys).keep_between(chain.certificates[1:])
        write_whole(ca / "issuing.crt", certificates_pem([certificate]), 0o644)
        if looked_at.crl_der:
            write_whole(ca / crl_name(chain.root), looked_at.crl_der, 0o644)
        facts = {
            "step": "installed",
            "csr": looked_at.csr,
            "serial": serial_hex(certificate.serial_number),
            "fingerprint": fingerprint_of(certificate),
            "root": fingerprint_of(chain.root),
            "not_after": rfc3339(certificate.not_valid_after_utc),
            "installed_at": rfc3339(self.now()),
            "by": by,
        }
        note = msgspec.json.encode(_Note(key_id(certificate.public_key()), facts))
        write_whole(self.state.installed, note, 0o600)
        self.keys.seal()
        write_whole(self.state.root_certificate, certificates_pem([chain.root]), 0o644)
        remove_file(self.state.first_request)


async def take_note_of_installation(state: StateDirectory, log: AuditLog) -> None:
    """Record what was installed before the first start, and remove the word of it. Raises :class:`StateError`."""
    path = state.installed
    if not path.exists():
        return
    try:
        note = msgspec.json.decode(read_file(path, "the note of an installation"), type=_Note)
    except (msgspec.DecodeError, ValueError):
        raise StateError(f"{path} is damaged: remove it; its act is then in no log") from None
    await log.record(Act.ROTATE, note.key_id, note.facts)
    remove_file(path)


def _root(
    found: Sequence[x509.Certificate], trust_domain: TrustDomain, now: datetime
) -> tuple[x509.Certificate | None, list[Problem]]:
    """The one root among the files, and what is against it."""
    roots = [cert for cert in dict.fromkeys(found) if is_self_issued(cert)]
    if len(roots) != 1:
        what = "no root is" if not roots else f"{len(roots)} roots are"
        return None, [
            _problem(
                Code.NOT_A_ROOT,
                f"{what} among the files, and a CA begins with one",
                "name the files of the issuing CA's certificate, of all CAs above it, and of the root",
            )
        ]
    (root,) = roots
    problems = root_problems(root, trust_domain, now)
    if generation_of(root.subject) > 1:
        problems.append(
            _problem(
                Code.CONFLICT,
                f"{subject_of(root)} follows another root, and a CA begins with the first",
                "make one of generation 1: mesh-ctl ca root offline",
            )
        )
    return root, problems


def _problem(code: Code, detail: str, remedy: str) -> Problem:
    return Problem(code, detail, remedy, subject="chain")
