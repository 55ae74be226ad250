"""The next issuing CA where its root is not here: a CSR goes out, and what is made of it comes in.

It is checked in whole before anything is done, recorded, and takes effect by the write of one certificate, as what the
CA certifies itself. Cut short, the same is done again.
"""

from collections.abc import Iterator, Mapping, Sequence

from attrs import define, frozen
from cryptography import x509

from pki.codes import Code
from pki.crl.crl import Crl, crls_in, find_issuer, issuer_name, read_crl
from pki.errors import PkiError, Problem, Refused
from pki.issuing import rotation
from pki.issuing.authority import Authority
from pki.issuing.ca_request import CaRequest, build_ca_request
from pki.issuing.profile import ISSUING_NAME, ca_subject, generation_of
from pki.issuing.root_line import Phase, RootLine, fingerprint_of
from pki.issuing.upstream import IssuingChain, Wanted
from pki.keys import KeptKey, MemoryKey, key_id, spki_der, spki_pin
from pki.serial import serial_hex
from pki.svid.bundle import TrustBundle
from pki.svid.x509svid import load_certificates, subject_of
from pki.validity import rfc3339
from twisted_mesh.ca.authorities import Authorities
from twisted_mesh.ca.issuing_files import IssuingFiles
from twisted_mesh.ca.revocation.crl_publisher import CrlPublisher
from twisted_mesh.ca.root_files import RootFiles
from twisted_mesh.ca.rotation.steps import RotationSteps
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.runtime.log import logger

_log = logger("ca")


@frozen(eq=False, repr=False)
class Waiting:
    """An issuing CA that is to be certified: its key, and the roots that have not done so."""

    key: KeptKey
    generation: int
    roots: tuple[x509.Certificate, ...]
    prepared: Authority | None = None
    """It is there already, and lacks the certificate of another root."""


@frozen(eq=False, repr=False)
class Requested:
    """The CSR, and whom it is for."""

    pem: bytes
    request: CaRequest
    roots: tuple[x509.Certificate, ...]


@frozen(eq=False, repr=False)
class Installed:
    """What was installed, or would be."""

    generation: int
    chains: tuple[IssuingChain, ...]
    crls: tuple[Crl, ...]
    is_prepared: bool
    """Whether there is a next issuing CA by it, which takes over when its time comes."""


@define(eq=False, repr=False)
class Certification:
    """Asks for the certificate of the next issuing CA, and installs it. One caller at a time."""

    rotation_steps: RotationSteps
    publisher: CrlPublisher

    @property
    def authorities(self) -> Authorities:
        """Those of the moment."""
        return self.rotation_steps.authorities

    @property
    def _files(self) -> IssuingFiles:
        steps = self.rotation_steps
        return IssuingFiles(steps.state, steps.keys, self.authorities.root_line)

    # The CSR.

    async def request(self, by: str, *, anew: bool = False) -> Requested:
        """The CSR of the key that waits, which is drawn where there is none; the same one each time.

        ``anew``: for another key, as where a root has revoked the one that waits. Raises :class:`Refused`,
        :class:`StateError` and what keeps the act from being recorded.
        """
        steps = self.rotation_steps
        if anew:
            await self._forget_drawn()
        waiting = await self._waiting()
        made: bytes | None = await steps.aside(self._files.request_of, waiting.generation)
        request = self._parsed(made, waiting) if made is not None else None
        if made is None or request is None:
            made = await build_ca_request(
                waiting.key, steps.current.trust_domain, waiting.generation
            )
            request = CaRequest.parse(made, steps.current.trust_domain)
            facts = {
                "step": "requested",
                "generation": str(waiting.generation),
                "csr": request.fingerprint,
                "key": request.pin,
                "by": by,
            }
            await steps.record("rotate", request.key_id, facts)
            await steps.aside(self._files.keep_request, waiting.generation, made)
        return Requested(made, request, waiting.roots)

    def _parsed(self, made: bytes, waiting: Waiting) -> CaRequest | None:
        """A CSR that is of use; None for one of another key, or a damaged one."""
        try:
            found = CaRequest.parse(made, self.rotation_steps.current.trust_domain)
        except PkiError:
            return None
        return found if found.spki == spki_der(waiting.key.public_key) else None

    async def _forget_drawn(self) -> None:
        steps = self.rotation_steps
        generation, why = await steps.next_number(), ""
        if self._lacking() is not None:
            why = "is the prepared issuing CA's"
        elif announced := self.authorities.root_line.announced:
            drawn = await steps.draw_key(generation)
            why = (
                "is announced, and may be pinned" if spki_pin(drawn.public_key) == announced else ""
            )
        if why:
            remedy = (
                "have it certified, or take the rotation of the root back (mesh-ctl ca root revert)"
            )
            detail = f"the key that waits {why}, so that no other is made in its place"
            raise Refused([Problem(Code.CONFLICT, detail, remedy, subject="csr")])
        await steps.destroy(await steps.aside(self._files.forget_drawn, generation))

    def _lacking(self) -> Waiting | None:
        """The prepared issuing CA, where a root that is believed has not certified it."""
        authorities, prepared = self.authorities, self.authorities.prepared
        if prepared is None or not isinstance(prepared.key, MemoryKey | StoredKey):
            return None
        roots = tuple(r for r in authorities.roots if not authorities.rests_on(prepared, r))
        if not roots:
            return None
        generation = generation_of(prepared.certificate.subject)
        return Waiting(prepared.key, generation, roots, prepared)

    async def _waiting(self) -> Waiting:
        lacking = self._lacking()
        if lacking is not None:
            return lacking
        steps = self.rotation_steps
        generation = await steps.next_number()
        key = await steps.draw_key(generation)
        line = self.authorities.root_line
        away = tuple(r for r in line.certifying if self.authorities.key_of(r) is None)
        return Waiting(key, generation, away or line.certifying)

    # What comes back.

    async def install(
        self, certificates: bytes, crls: Sequence[bytes], by: str, *, dry_run: bool = False
    ) -> Installed:
        """Put certificates (PEM or DER, with those of CAs in between) and root CRLs to use.

        Raises :class:`Malformed`, and :class:`Refused` with every reason; then nothing was done.
        """
        problems: list[Problem] = []
        read = self._read_crls(crls, problems)
        chains: tuple[IssuingChain, ...] = ()
        waiting = None
        if certificates:
            waiting = await self._waiting()
            try:
                chains = self._chains(load_certificates(certificates, "the files"), waiting)
            except Refused as error:
                problems += error.problems
            problems += self._useless(chains, waiting)
        if problems:
            raise Refused(problems)
        certified = await self._proven(waiting, chains) if waiting is not None else {}
        generation = waiting.generation if waiting is not None else 0
        is_prepared = waiting is not None and waiting.prepared is None
        installed = Installed(generation, chains, tuple(crl for _, _, crl in read), is_prepared)
        if dry_run:
            return installed
        if waiting is not None:
            await self._keep(waiting, await self._completed(waiting, certified), chains, by)
        for root, der, _ in read:
            await self.publisher.of_root(root).install(der, by)
        return installed

    def _read_crls(
        self, crls: Sequence[bytes], problems: list[Problem]
    ) -> list[tuple[x509.Certificate, bytes, Crl]]:
        found, authorities = [], self.authorities
        for der in (each for data in crls for each in crls_in(data)):
            issuer = find_issuer(der, self.authorities.roots)
            if issuer is None:
                problems.append(
                    Problem(
                        Code.CRL_OTHER_ISSUER,
                        f"it is the CRL of {issuer_name(der)}, which is no root of this CA",
                        "bring the CRL that the root's machine has written: mesh-ctl ca root sign",
                        subject="CRL",
                    )
                )
                continue
            known = self.publisher.of_root(issuer)
            try:
                crl = read_crl(der, issuer, now=self.rotation_steps.now(), seen=known.highest)
            except Refused as error:
                problems += error.problems
                continue
            ours = (
                certificate
                for authority in authorities.every_issuing
                for certificate in authorities.certificates_of(authority)
                if authorities.root_line.root_of(certificate) == issuer
            )
            problems += known.objections(crl, ours)
            found.append((issuer, der, crl))
        return found

    def _wanted(self, waiting: Waiting) -> Wanted:
        current = self.rotation_steps.current
        return Wanted(
            current.trust_domain,
            ca_subject(ISSUING_NAME, current.trust_domain, waiting.generation),
            spki_der(waiting.key.public_key),
            current.lifetimes.maximum,
            self.rotation_steps.now(),
        )

    def _chains(
        self, found: Sequence[x509.Certificate], waiting: Waiting
    ) -> tuple[IssuingChain, ...]:
        self._refuse_twice(found)
        chains = IssuingChain.among(found, self.authorities.roots, self._wanted(waiting))
        line, given = self.authorities.root_line, {chain.root for chain in chains}
        if waiting.prepared is None:
            missing = [
                root
                for root in line.certifying
                if root not in given and self.authorities.key_of(root) is None
            ]
        else:
            missing = [root for root in given if root not in waiting.roots]
        if missing:
            names = " and ".join(f"{subject_of(r)} {fingerprint_of(r)}" for r in missing)
            detail = f"that issuing CA is to be certified by {names} too, whose key is not here"
            remedy = (
                "have the CSR certified there too, and install both certificates in one command"
            )
            if waiting.prepared is not None:
                detail = f"the prepared issuing CA has a certificate of {names} already"
                remedy = "install the one of the other root"
            raise Refused([Problem(Code.CONFLICT, detail, remedy, subject="chain")])
        return chains

    def _useless(self, chains: tuple[IssuingChain, ...], waiting: Waiting) -> Iterator[Problem]:
        """One that ends no later than what issues now would never take over, if that is what it is for."""
        line = self.authorities.line
        if self.authorities.root_line.phase is not Phase.SETTLED or line.is_revoked:
            return
        for chain in chains:
            end = chain.certificate.not_valid_after_utc
            if waiting.prepared is None and end <= line.active.ends_at:
                yield Problem(
                    Code.TTL_OUT_OF_RANGE,
                    f"it holds until {rfc3339(end)}, and the issuing CA of now until {rfc3339(line.active.ends_at)}: "
                    "it would never take over",
                    "have it certified for longer; where the root itself ends by then, rotate the root first",
                    subject="chain",
                )

    def _refuse_twice(self, found: Sequence[x509.Certificate]) -> None:
        for authority in self.authorities.every_issuing:
            for certificate in self.authorities.certificates_of(authority):
                if certificate in found:
                    raise Refused(
                        [
                            Problem(
                                Code.CONFLICT,
                                f"{authority.name} has that certificate already (serial "
                                f"{serial_hex(certificate.serial_number)})",
                                "nothing is to be done: it was installed before",
                                subject="chain",
                            )
                        ]
                    )

    async def _proven(
        self, waiting: Waiting, chains: tuple[IssuingChain, ...]
    ) -> dict[x509.Certificate, Authority]:
        """The issuing CA by each certificate that was brought, by their roots; each has issued as peers want it."""
        steps = self.rotation_steps
        found = {
            chain.root: Authority(chain.certificate, waiting.key, chain.certificates)
            for chain in chains
        }
        for root, authority in found.items():
            bundle = TrustBundle(steps.current.trust_domain, (root,))
            await rotation.prove(authority, bundle, steps.now())
        return found

    async def _completed(
        self, waiting: Waiting, brought: Mapping[x509.Certificate, Authority]
    ) -> tuple[Authority, ...]:
        """The same, and by each other root that is to certify it and whose key is here; the served root's first."""
        steps, line, found = self.rotation_steps, self.authorities.root_line, dict(brought)
        for root in line.certifying if waiting.prepared is None else ():
            if root not in found:
                found[root] = await steps.certify(root, waiting.key, waiting.generation)
        return tuple(found[root] for root in line.roots if root in found)

    def _line(self, chains: tuple[IssuingChain, ...]) -> RootLine:
        """The line of roots, with whatever stands between it and us."""
        between = (above for chain in chains for above in chain.certificates[1:])
        return self.authorities.root_line.with_between(between)

    async def _keep(
        self,
        waiting: Waiting,
        certified: tuple[Authority, ...],
        chains: tuple[IssuingChain, ...],
        by: str,
    ) -> None:
        steps, line = self.rotation_steps, self._line(chains)
        for chain in chains:
            facts = {"step": "installed", **_facts(chain, by)}
            await steps.record("rotate", key_id(waiting.key.public_key), facts)
        files = RootFiles(steps.state, steps.keys)
        await steps.aside(files.keep_between, line.between)
        steps.current.adopt(self.authorities.along(line))
        if waiting.prepared is not None or len(certified) > 1:
            await steps.keep_line(line.certified(one.certificate for one in certified))
        if waiting.prepared is None:
            await steps.take(certified[0])
        await steps.aside(self._files.forget_request, waiting.generation)
        for chain in chains:
            _log.info(
                "The certificate of an issuing CA is installed:\n  Subject: {subject}\n  Fingerprint: {fingerprint}\n"
                "  Root: {root}",
                event="issuing-installed",
                subject=subject_of(chain.certificate),
                fingerprint=fingerprint_of(chain.certificate),
                root=fingerprint_of(chain.root),
            )


def _facts(chain: IssuingChain, by: str) -> dict[str, str]:
    certificate = chain.certificate
    return {
        "generation": str(generation_of(certificate.subject)),
        "serial": serial_hex(certificate.serial_number),
        "fingerprint": fingerprint_of(certificate),
        "root": fingerprint_of(chain.root),
        "not_after": rfc3339(certificate.not_valid_after_utc),
        "by": by,
    }
