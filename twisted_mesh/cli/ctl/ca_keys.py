"""What ``mesh-ctl ca keys`` and ``rotate-issuing`` do: where each key is, proven by the signature of a fresh number."""

import base64
import secrets
from collections.abc import Sequence
from itertools import pairwise

import msgspec
from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from pki.audit.log import Verifier
from pki.errors import HOSTILE_INPUT, PkiError
from pki.keys import KeyAlgorithm, key_id, verify
from pki.keys.probe import probe
from pki.svid.path import issued_by
from pki.svid.x509svid import load_certificates
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.key_messages import KeyRow
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.options import confirmed
from twisted_mesh.cli.status import DONE, REFUSED

_BITS = 128
_UNFIT: tuple[type[BaseException], ...] = (InvalidSignature, PkiError, *HOSTILE_INPUT)


@frozen
class ShowingKeys:
    """``ca keys``."""

    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        roots = await administration.client.roots()
        nonce = secrets.token_hex(_BITS // 8)
        rows = (await administration.keys(nonce)).keys
        verdicts = [verdict(row, nonce, roots) for row in rows]
        if self.as_json:
            output.put_json(
                [
                    {**msgspec.to_builtins(row), "proven": found == _PROVEN, "verdict": found}
                    for row, found in zip(rows, verdicts, strict=True)
                ]
            )
        else:
            for row, found in zip(rows, verdicts, strict=True):
                _put(row, found)
        fails = any(
            found != _PROVEN and row.kind != "away"
            for row, found in zip(rows, verdicts, strict=True)
        )
        return REFUSED if fails else DONE


_PROVEN = "it has signed the number that was drawn just now"


def verdict(row: KeyRow, nonce: str, roots: Sequence[x509.Certificate]) -> str:
    """Whether a key is proven to be there: that of a certificate below one of ``roots``, or the log's. Never raises."""
    if row.signature is None:
        return row.problem or "it has signed nothing"
    words = probe(nonce)
    try:
        signature = base64.b64decode(row.signature, validate=True)
        if row.verifier:
            Verifier.parse(row.verifier).verify(signature, words)
            return _PROVEN
        chain = load_certificates(row.certificate.encode())
        if not _is_ours(chain, roots):
            return "its certificate is below no root of this CA: somebody else has answered"
        public = chain[0].public_key()
        algorithm = KeyAlgorithm.of(public)
        if algorithm is None or key_id(public) != row.key_id:
            raise InvalidSignature
        verify(public, signature, words, algorithm.hash)  # type: ignore[arg-type]
    except _UNFIT:
        return "THE SIGNATURE IS NOT OF THIS KEY: look at where it is kept"
    return _PROVEN


def _is_ours(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> bool:
    """Whether it is a root, or leads to one."""
    if chain[0] in roots:
        return True
    signed = all(issued_by(below, above) for below, above in pairwise(chain))
    return signed and any(issued_by(chain[-1], root) for root in roots)


def _put(row: KeyRow, found: str) -> None:
    output.put(f"{row.purpose}: {row.name}")
    facts: output.Facts = {"  key id": row.key_id}
    if row.algorithm:
        facts["  algorithm"] = row.algorithm
    facts["  where"] = _where(row)
    if row.own_pin:
        facts["  our pin"] = f"{row.own_pin} (mesh-signer --client-pin)"
    if flags := _flags(row):
        facts["  kept"] = flags
    facts["  proof"] = found
    output.put_facts(facts)
    output.put("")


def _where(row: KeyRow) -> str:
    if row.kind == "file":
        return "a file of the CA's state directory"
    if row.kind == "away":
        return "not here: it was taken away"
    made = " ".join(filter(None, (row.manufacturer, row.model, row.serial)))
    called = f", {row.label!r}" if row.label else f", {row.uri}"
    which = f" {row.id}" if row.id else ""
    if not row.store:
        return row.uri  # it begins with the kind
    return f"{row.kind} {row.store}{f' ({made})' if made else ''}{called}{which}"


def _flags(row: KeyRow) -> str:
    """What the store says of how the key is kept; it is the store's word."""
    told = (
        (row.extractable, "EXTRACTABLE", "not extractable"),
        (row.ever_extractable, "WAS EXTRACTABLE", "never was"),
        (row.sensitive, "sensitive", "NOT SENSITIVE"),
        (row.made_there, "made there", "BROUGHT THERE"),
    )
    return ", ".join((yes if flag else no) for flag, yes, no in told if flag is not None)


@frozen
class RotatingIssuing:
    """``ca rotate-issuing``."""

    yes: bool
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        if not confirmed("Make the next issuing CA, and have it issue now?", yes=self.yes):
            output.say("nothing was done")
            return REFUSED
        done = await administration.rotate_issuing()
        if self.as_json:
            output.put_json(msgspec.to_builtins(done))
            return DONE
        output.put_facts(
            {
                "issuing": done.subject,
                "key id": done.issuing,
                "valid until": done.not_after,
                "its key": _where(done.key),
                "retired": done.replaced,
            }
        )
        output.put(
            "The one before answers for what it issued until its end. Who fetches CRLs by hand fetches them now: there "
            "is one more."
        )
        return DONE
