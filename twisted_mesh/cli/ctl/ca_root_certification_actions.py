"""What ``mesh-ctl ca root csr`` and ``install`` do: they ask the CA, or work on its files before its first start."""

import base64
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import msgspec
from attrs import evolve, frozen
from msgspec.structs import replace

from pki.der import blocks, pem
from pki.errors import Malformed
from pki.keys import KeyAlgorithm
from pki.pem import CERTIFICATE, CRL
from pki.spiffe import TrustDomain
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.certification_messages import (
    Installation,
    InstallationAnswer,
    IssuingRequest,
)
from twisted_mesh.ca.api.certification import installed_answer, requested_answer
from twisted_mesh.ca.first_installation import FirstInstallation
from twisted_mesh.ca.rotation.certification import Installed, Requested
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.key_stores import Named, spec_of, with_stores
from twisted_mesh.cli.ctl.options import Reach, confirmed
from twisted_mesh.cli.status import DONE, REFUSED
from twisted_mesh.keystores.stores import KeyStores
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.state.directory import StateDirectory, read_file, write_whole
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.state.passphrase import read_passphrase


def is_first(reach: Reach) -> bool:
    """Whether no CA has ever started in the state directory, so that there is none to be asked."""
    if not reach.is_local:
        return False
    state = StateDirectory(reach.state)
    try:
        return not os.path.lexists(state.root_certificate) and not os.path.lexists(state.socket)
    except OSError:
        return False


@contextmanager
def _opened(
    reach: Reach, passphrase: bytes | None, stores: KeyStores
) -> Iterator[FirstInstallation]:
    state = StateDirectory(reach.state)
    keys = KeyFiles(state.private, passphrase, stores.key)
    first = FirstInstallation(state, keys, wall_clock)
    first.open()
    try:
        yield first
    finally:
        first.close()


@frozen
class Asking:
    """``ca root csr``."""

    out: Path | None
    new_key: bool
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        self._put(await administration.request_certification(new_key=self.new_key))
        return DONE

    def first(
        self, reach: Reach, algorithm: str, passphrase_file: Path | None, named: Named
    ) -> int:
        """Of a CA that never started."""
        trust_domain = TrustDomain.parse(reach.trust_domain)
        spec = spec_of(algorithm, "--algorithm", KeyAlgorithm.EC_P256)
        passphrase = read_passphrase(passphrase_file)

        async def asking(stores: KeyStores) -> int:
            with _opened(reach, passphrase, stores) as first:
                made, request = await first.request(trust_domain, spec, stores, anew=self.new_key)
            self._put(requested_answer(Requested(made, request, ())))
            return DONE

        private = StateDirectory(reach.state).private
        return with_stores(evolve(named, spec=spec), private, asking)

    def _put(self, made: IssuingRequest) -> None:
        if self.out is not None:
            write_whole(self.out, made.csr.encode(), 0o644)
        if self.as_json:
            output.put_json(msgspec.to_builtins(made))
            return
        facts: output.Facts = {
            "CSR": made.fingerprint,
            "key": made.key,
            "key id": made.key_id,
            "subject": made.subject,
        }
        if made.roots:
            facts["for the root"] = made.roots
        if self.out is None:
            output.put(made.csr)
        output.put_facts(facts)
        where = str(self.out) if self.out is not None else "FILE"
        output.put(
            "Compare the first two where it is certified: by an offline root of yours with mesh-ctl ca root sign "
            f"{where}. Then bring back what was made: mesh-ctl ca root install."
        )


@frozen
class Installing:
    """``ca root install``."""

    certificates: bytes
    """All of them, in PEM."""
    crls: list[bytes]
    """Each in DER."""
    dry_run: bool
    yes: bool
    as_json: bool

    @classmethod
    def of(cls, files: Iterable[Path], *, dry_run: bool, yes: bool, as_json: bool) -> Self:
        """What is in the files. Raises :class:`Malformed` and :class:`StateError`."""
        certificates, crls = [], []
        for path in files:
            for block in blocks(read_file(path, "the file")):
                if block.label == CERTIFICATE:
                    certificates.append(pem(CERTIFICATE, block.der))
                elif block.label == CRL:
                    crls.append(block.der)
                else:
                    raise Malformed(
                        f"{path} holds {block.label}: name files with certificates and CRLs only"
                    )
        return cls(b"".join(certificates), crls, dry_run, yes, as_json)

    async def __call__(self, administration: Administration) -> int:
        crls = [base64.b64encode(crl).decode() for crl in self.crls]
        asked = Installation(self.certificates.decode(), crls, dry_run=True)
        if not self._goes_on(await administration.install(asked)):
            return DONE if self.dry_run else REFUSED
        self._put(await administration.install(replace(asked, dry_run=False)))
        return DONE

    def first(self, reach: Reach, passphrase_file: Path | None, named: Named) -> int:
        """Of a CA that never started."""
        passphrase = read_passphrase(passphrase_file)

        async def installing(stores: KeyStores) -> int:
            with _opened(reach, passphrase, stores) as first:
                found = await first.look_at(self.certificates, self.crls)
                installed = Installed(
                    1, (found.chain,), (found.crl,) if found.crl is not None else (), False
                )
                if not self._goes_on(installed_answer(installed, done=False)):
                    return DONE if self.dry_run else REFUSED
                first.install(found, f"unix:uid:{os.getuid()}")
            self._put(installed_answer(installed, done=True), first=True)
            return DONE

        return with_stores(named, StateDirectory(reach.state).private, installing)

    def _goes_on(self, looked_at: InstallationAnswer) -> bool:
        if self.dry_run:
            self._put(looked_at)
            return False
        if not self.as_json and not self.yes:
            self._show(looked_at)
        if confirmed("Install this?", yes=self.yes):
            return True
        output.say("nothing was installed")
        return False

    def _put(self, answer: InstallationAnswer, *, first: bool = False) -> None:
        if self.as_json:
            output.put_json(msgspec.to_builtins(answer))
            return
        self._show(answer)
        if not answer.done:
            output.put("It fits, and would be installed.")
        elif first:
            output.put(
                "It is installed. Start the CA (mesh-ca): it never has a root's key, and says in time when its "
                "successor has to be certified."
            )
        elif answer.prepared:
            output.put(
                "It is installed: the next issuing CA is prepared, and takes over by itself."
            )
        else:
            output.put("It is installed.")

    def _show(self, answer: InstallationAnswer) -> None:
        for certificate in answer.certificates:
            facts: output.Facts = {
                "certificate": certificate.fingerprint,
                "subject": certificate.subject,
                "key": certificate.key,
                "valid until": certificate.not_after,
                "root": certificate.root,
            }
            if certificate.chain:
                facts["in between"] = certificate.chain
            output.put_facts(facts)
        for crl in answer.crls:
            entries = output.counted(crl.entries, "entry", "entries")
            output.put_facts(
                {"CRL": f"number {crl.number}, {entries}, until {crl.next_update}", "of": crl.root}
            )
