"""What ``mesh-ctl ca root offline`` and ``sign`` do. Nobody is asked: they work on files, on the root's own machine."""

from contextlib import closing
from datetime import timedelta
from pathlib import Path

from attrs import evolve, frozen

from pki.errors import Malformed, Refused
from pki.issuing.csr import MAX_CSR_SIZE
from pki.issuing.root_line import fingerprint_of
from pki.keys import KeyAlgorithm
from pki.serial import serial_hex, serial_pairs
from pki.spiffe import TrustDomain
from pki.svid.revocation_set import GIVEN_REASONS, Reason
from pki.svid.x509svid import subject_of
from pki.validity import rfc3339
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.key_stores import Named, spec_of, with_stores
from twisted_mesh.cli.ctl.options import confirmed
from twisted_mesh.cli.status import DONE, REFUSED
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.keystores.stores import KeyStores
from twisted_mesh.offline.root import OfflineRoot
from twisted_mesh.offline.signing import Plan, Signed, Wishes, carry_out, deliver, plan
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.state.directory import read_file
from twisted_mesh.state.passphrase import read_passphrase


@frozen
class Brought:
    """The files of a root that a CA had."""

    key: Path
    certificate: Path
    crl: Path | None


@frozen
class NewRoot:
    """What kind of a root is wanted."""

    trust_domain: str
    key: str
    """Its algorithm, or the URI of where its key is made, or is."""
    generation: int
    brought: Brought | None


@frozen
class Asked:
    """What is to be signed."""

    csr: Path | None
    out: Path
    days: int
    crl_days: int | None
    revoke: tuple[str, ...]
    reason: str


def make(
    path: Path, wanted: NewRoot, passphrase_file: Path | None, named: Named, *, as_json: bool
) -> int:
    """``ca root offline``; the exit status, as below."""
    passphrase = read_passphrase(passphrase_file)
    brought = wanted.brought
    spec = None
    if brought is None:
        spec = spec_of(wanted.key, "--algorithm", KeyAlgorithm.EC_P384)
        named = evolve(named, spec=spec)

    async def making(stores: KeyStores) -> int:
        if brought is not None:
            root = await OfflineRoot.adopt(
                path,
                brought.key,
                brought.certificate,
                crl_file=brought.crl,
                passphrase=passphrase,
                now=wall_clock,
                stores=stores,
            )
        else:
            root = await OfflineRoot.create(
                path,
                TrustDomain.parse(wanted.trust_domain),
                spec or KeySpec(KeyAlgorithm.RSA_4096),
                passphrase=passphrase,
                now=wall_clock,
                generation=wanted.generation,
                stores=stores,
            )
        with closing(root):
            return _made(path, root, as_json=as_json)

    return with_stores(named, path, making)


def _made(path: Path, root: OfflineRoot, *, as_json: bool) -> int:
    certificate = root.authority.certificate
    if as_json:
        output.put_json(
            {
                "directory": str(path),
                "trust_domain": str(root.trust_domain),
                "subject": subject_of(certificate),
                "fingerprint": fingerprint_of(certificate),
                "not_after": rfc3339(certificate.not_valid_after_utc),
                "log": str(root.log.key.verifier),
            }
        )
        return DONE
    output.put_facts(
        {
            "root": subject_of(certificate),
            "fingerprint": fingerprint_of(certificate),
            "valid until": rfc3339(certificate.not_valid_after_utc),
            "certificate": str(root.state.root_certificate),
            "log's key": str(root.log.key.verifier),
        }
    )
    key = root.authority.key
    if isinstance(key, StoredKey):
        output.put(
            f"Its key is {key.uri}, and what is in {root.state.private} only refers to it. Make a second copy of the "
            "directory, which has the log, and whatever copy the token's maker allows of the key."
        )
        return DONE
    output.put(
        f"Its key is in {root.state.private} and nowhere else: make a second copy of the whole directory, and keep "
        "both where no network is."
    )
    return DONE


def sign(
    path: Path,
    asked: Asked,
    passphrase_file: Path | None,
    named: Named,
    *,
    yes: bool,
    as_json: bool,
) -> int:
    """``ca root sign``."""
    passphrase = read_passphrase(passphrase_file)
    csr = read_file(asked.csr, "the CSR", MAX_CSR_SIZE) if asked.csr is not None else None
    wishes = Wishes(
        csr,
        timedelta(days=asked.days),
        asked.revoke,
        _reason(asked.reason),
        timedelta(days=asked.crl_days) if asked.crl_days is not None else None,
    )

    async def signing(stores: KeyStores) -> int:
        with closing(OfflineRoot.open(path, passphrase, wall_clock, stores)) as root:
            try:
                planned = plan(root, wishes)
            except Refused as error:
                for problem in error.problems:
                    output.say(str(problem))
                output.say("nothing was signed")
                return REFUSED
            if not as_json:
                _show(root, planned)
            if not confirmed("Sign this?", yes=yes):
                output.say("nothing was signed")
                return REFUSED
            signed = await carry_out(root, planned)
            files = deliver(root, signed, asked.out)
            _tell(root, planned, signed, files, as_json=as_json)
        return DONE

    return with_stores(named, path, signing)


def _show(root: OfflineRoot, planned: Plan) -> None:
    certificate = root.authority.certificate
    output.put_facts({"root": subject_of(certificate), "fingerprint": fingerprint_of(certificate)})
    if (request := planned.request) is not None:
        output.put("")
        output.put_facts(
            {
                "CSR": request.fingerprint,
                "key": request.pin,
                "key id": request.key_id,
                "subject": request.subject.rfc4514_string(),
            }
        )
        output.put(
            "Compare the first two with what mesh-ctl ca root csr shows on the CA's machine."
        )
    output.put("")
    facts: output.Facts = {}
    if planned.again is not None:
        facts["certificate"] = f"made before, serial {serial_pairs(planned.again.serial_number)}"
    if planned.draft is not None:
        facts["certificate"] = f"serial {serial_pairs(planned.draft.serial)}"
        facts["valid until"] = rfc3339(planned.draft.not_after)
    if planned.revoking:
        facts["revokes"] = [
            f"serial {serial_pairs(revoked.serial)}, {revoked.reason}"
            for revoked in planned.revoking
        ]
    facts["CRL until"] = rfc3339(planned.crl_until)
    output.put_facts(facts)


def _tell(
    root: OfflineRoot,
    planned: Plan,
    signed: Signed,
    files: tuple[Path, ...],
    *,
    as_json: bool,
) -> None:
    checkpoint = root.log.checkpoint
    if as_json:
        told: dict[str, object] = {
            "root": fingerprint_of(root.authority.certificate),
            "crl": {
                "number": str(signed.number),
                "next_update": rfc3339(signed.crl_until),
                "entries": len(root.acts.revoked),
            },
            "revoked": [serial_hex(revoked.serial) for revoked in planned.revoking],
            "files": [str(file) for file in files],
            "log": {"size": checkpoint.size, "root": checkpoint.root.hex()},
        }
        if planned.request is not None and signed.certificate is not None:
            told["csr"] = planned.request.fingerprint
            told["certificate"] = {
                "serial": serial_hex(signed.certificate.serial_number),
                "fingerprint": fingerprint_of(signed.certificate),
                "key": planned.request.pin,
                "not_after": rfc3339(signed.certificate.not_valid_after_utc),
                "made_before": planned.again is not None,
            }
        output.put_json(told)
        return
    output.put("")
    facts: output.Facts = {}
    if signed.certificate is not None:
        facts["certificate"] = fingerprint_of(signed.certificate)
    facts["CRL"] = (
        f"number {signed.number}, {output.counted(len(root.acts.revoked), 'entry', 'entries')}, "
        f"until {rfc3339(signed.crl_until)}"
    )
    facts["log"] = f"{checkpoint.size} entries, {checkpoint.root.hex()}"
    facts["files"] = [str(file) for file in files]
    output.put_facts(facts)
    is_first = signed.generation == 1
    wanted = " ".join(str(file) for file in files if is_first or file.name != "root.crt")
    output.put(f"Bring them to the CA's machine: mesh-ctl ca root install {wanted}")


def _reason(text: str) -> Reason:
    if text not in GIVEN_REASONS:
        raise Malformed(f"--reason is one of {', '.join(GIVEN_REASONS)}")
    return Reason(text)
