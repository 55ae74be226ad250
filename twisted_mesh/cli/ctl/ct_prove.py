"""What ``mesh-ctl ct prove`` does: each receipt of a certificate is followed to its entry, in a tree that is signed."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from attrs import evolve, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from pki.ct.entry import SignedEntry, merkle_leaf_of, signed_entry_of
from pki.ct.evidence import MissingEntry
from pki.ct.log_list import Log, LogList
from pki.ct.receipt import Receipt, judge_receipts
from pki.ct.sct import moment
from pki.ct.tree_head import WitnessKey, cosignatures_of
from pki.errors import HOSTILE_INPUT, PkiError
from pki.serial import serial_hex
from pki.svid.x509svid import load_certificates, subject_of
from pki.tlog.merkle import leaf_hash, verify_inclusion
from pki.validity import rfc3339
from twisted_mesh.cli import running
from twisted_mesh.cli.ctl import ct_sources, output
from twisted_mesh.cli.program import Unusable
from twisted_mesh.cli.running import reactor
from twisted_mesh.cli.status import DONE, REFUSED, UNREACHABLE
from twisted_mesh.monitor.source import Source, view_of
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.state.directory import read_file, write_whole


@frozen
class ProveOptions:
    """The options, understood."""

    ct_logs_key: str | None
    copy: str | None
    issuer: Path | None
    witnesses: tuple[WitnessKey, ...]
    cosigned: int
    evidence: Path | None
    timeout: float

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "ProveOptions":
        """Raises :class:`PkiError`."""
        witnesses = tuple(dict.fromkeys(map(WitnessKey.parse, options["witnesses"])))
        cosigned = options["cosigned"]
        if cosigned is not None and cosigned > len(witnesses):
            raise Unusable(
                f"--cosigned {cosigned}: there are {len(witnesses)} witnesses, name more with --witness"
            )
        return cls(
            options["ct_logs_key"],
            options["copy"],
            Path(options["issuer"]) if options["issuer"] else None,
            witnesses,
            len(witnesses) if cosigned is None else cosigned,
            Path(options["evidence"]) if options["evidence"] else None,
            ct_sources.seconds(options["timeout"], "--timeout"),
        )


@frozen
class Proof:
    """What became of one receipt."""

    log: str
    position: int | None
    signed_at: str
    proven: bool
    detail: str
    size: int | None = None
    """Of the tree in which its entry was looked for."""
    cosigned_by: tuple[str, ...] = ()
    evidence: str = ""
    is_away: bool = False
    """Whether the log could not be asked, so that nothing is known."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "log": self.log,
            "position": self.position,
            "receipt_at": self.signed_at,
            "proven": self.proven,
            "detail": self.detail,
            "tree_size": self.size,
            "cosigned_by": list(self.cosigned_by),
            "evidence": self.evidence or None,
        }


def prove(path: Path, list_path: Path, options: ProveOptions, *, as_json: bool) -> int:
    """``ct prove``; its exit status."""
    logs = ct_sources.logs_of(list_path, options.ct_logs_key)
    ct_sources.refuse_many(logs.logs, options.copy)
    leaf, issuer = _chain(path, options.issuer)

    async def work() -> int:
        receipts = judge_receipts(leaf, issuer, logs, wall_clock())
        proofs = [await _Proving(leaf, issuer, options).prove(receipt) for receipt in receipts]
        return _put(leaf, proofs, as_json=as_json)

    return running.run("mesh-ctl", work)


def _chain(path: Path, issuer: Path | None) -> tuple[x509.Certificate, x509.Certificate]:
    leaf, *above = load_certificates(read_file(path, "the certificate"), str(path))
    if issuer is not None:
        above = list(load_certificates(read_file(issuer, "--issuer"), str(issuer)))
    for one in above:
        with suppress(InvalidSignature, *HOSTILE_INPUT):
            leaf.verify_directly_issued_by(one)
            return leaf, one
    raise Unusable(
        f"{path} has not got the certificate of the CA that issued it, over whose key receipts are: name it with "
        "--issuer FILE"
    )


@frozen
class _Proving:
    leaf: x509.Certificate
    issuer: x509.Certificate
    options: ProveOptions

    async def prove(self, receipt: Receipt) -> Proof:
        sct = receipt.sct
        name = receipt.log.origin if receipt.log else sct.log_id.hex()
        proof = Proof(name, sct.leaf_index, rfc3339(sct.at), False, receipt.objection)
        log = receipt.log
        if log is None or receipt.objection:
            return proof
        if sct.leaf_index is None:
            return evolve(proof, detail="the receipt does not say where its entry is")
        try:
            source = ct_sources.source_of(log, self.options.copy, self.options.timeout, reactor)
            return await self._included(proof, receipt, log, source)
        except PkiError as error:
            return evolve(proof, detail=str(error), is_away=True)

    async def _included(self, proof: Proof, receipt: Receipt, log: Log, source: Source) -> Proof:
        sct, position = receipt.sct, receipt.sct.leaf_index or 0
        signed = await source.checkpoint()
        head = signed.head
        seen = cosignatures_of(signed.note, self.options.witnesses)
        proof = evolve(proof, size=head.size, cosigned_by=tuple(one.witness.name for one in seen))
        entry: SignedEntry = signed_entry_of(self.leaf, self.issuer)
        missing = MissingEntry(
            self.leaf.public_bytes(Encoding.DER),
            self.issuer.public_bytes(Encoding.DER),
            sct,
            signed.note,
        )
        if position >= head.size:
            if head.timestamp <= sct.timestamp + 1000 * log.mmd:
                return evolve(
                    proof,
                    detail=f"its entry need not be there yet: the tree has {head.size}",
                    is_away=True,
                )
            return self._broken(proof, missing, log, "the tree does not reach there")
        view = view_of(source, signed)
        (found,) = await view.leaf_hashes(position, position + 1)
        path = await view.inclusion_proof(position)
        verify_inclusion(found, position, head.size, path, head.root)
        if found != leaf_hash(merkle_leaf_of(entry, sct.timestamp, sct.extensions)):
            missing = evolve(missing, found=found, proof=path)
            return self._broken(proof, missing, log, "another entry is there")
        if len(seen) < self.options.cosigned:
            return evolve(
                proof,
                detail=f"its entry is there, but {len(seen)} of {self.options.cosigned} witnesses have cosigned that "
                "tree",
            )
        at = rfc3339(moment(head.timestamp))
        return evolve(
            proof, proven=True, detail=f"in the tree of {head.size} entries, signed at {at}"
        )

    def _broken(self, proof: Proof, missing: MissingEntry, log: Log, why: str) -> Proof:
        """The log has broken its word; that is kept where it is wanted."""
        detail = f"the log has broken its word: {missing.verify(LogList((log,)))}"
        written = ""
        if (directory := self.options.evidence) is not None:
            data = missing.to_bytes()
            path = directory / f"ct-entry-missing-{sha256(data).hexdigest()[:16]}.json"
            write_whole(path, data, 0o644)
            written = str(path)
        else:
            why += "; --evidence DIR keeps what proves that"
        return evolve(proof, detail=f"{detail} ({why})", evidence=written)


def _put(leaf: x509.Certificate, proofs: Sequence[Proof], *, as_json: bool) -> int:
    is_proven = bool(proofs) and all(proof.proven for proof in proofs)
    if as_json:
        output.put_json(
            {
                "subject": subject_of(leaf),
                "serial": serial_hex(leaf.serial_number),
                "proven": is_proven,
                "receipts": [proof.as_json() for proof in proofs],
            }
        )
    else:
        output.put_facts(
            {"certificate": subject_of(leaf), "serial": serial_hex(leaf.serial_number)}
        )
        for proof in proofs:
            word = "ok" if proof.proven else "fail"
            where = "" if proof.position is None else f" entry {proof.position}"
            output.put(f"{output.status_word(word, 4)}  {proof.log}{where}: {proof.detail}")
            if proof.evidence:
                output.put(f"      evidence: {proof.evidence}")
        if not proofs:
            output.put("It has no receipts (SCTs): no log was shown it, or it was issued without.")
    if is_proven:
        return DONE
    doubtful = [proof for proof in proofs if not proof.proven]
    return UNREACHABLE if doubtful and all(proof.is_away for proof in doubtful) else REFUSED
