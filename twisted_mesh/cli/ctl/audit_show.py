"""``mesh-ctl audit show``: entries of the log, in lists, or one with the proof of its place."""

import binascii
from pathlib import Path

import msgspec
from attrs import frozen

from pki.audit.log import BadEntry, Checkpoint, Entry, Verifier
from pki.errors import Malformed
from pki.tlog.merkle import leaf_hash, verify_inclusion
from pki.validity import rfc3339
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.log_messages import LogEntry
from twisted_mesh.api.messages import LARGEST_PAGE
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.audit_report import told_of
from twisted_mesh.cli.status import DONE
from twisted_mesh.trust.log_witness import LogWitness, witness_path

_HEADINGS = ("ENTRY", "TIME", "ACT", "OBJECT", "ACTOR", "FACTS")


@frozen
class Listing:
    """``audit show`` without a position."""

    start: int | None
    """None: the newest."""
    limit: int
    act: str | None
    object: str | None
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        forward = self.start is not None
        found = await (self._forward if forward else self._backward)(administration)
        if self.as_json:
            output.put_json([_shown(entry) for entry in found])
        elif found:
            output.put_table(_HEADINGS, map(_cells, found))
        else:
            output.say("there is no such entry")
        return DONE

    async def _forward(self, administration: Administration) -> list[LogEntry]:
        found: list[LogEntry] = []
        position: int | None = self.start
        while position is not None and len(found) < self.limit:
            page = await administration.entries(position)
            found += filter(self._wanted, page.entries)
            position = page.next
        return found[: self.limit]

    async def _backward(self, administration: Administration) -> list[LogEntry]:
        found: list[LogEntry] = []
        end = (await administration.entries(0, 1)).size
        while end > 0 and len(found) < self.limit:
            start = max(0, end - LARGEST_PAGE)
            page = await administration.entries(start, end - start)
            found = [*filter(self._wanted, page.entries), *found]
            end = start
        return found[-self.limit :]

    def _wanted(self, entry: LogEntry) -> bool:
        if self.act is None and self.object is None:
            return True
        read = _entry_of(entry)
        if read is None:
            return False
        return self.act in (None, read.act) and (
            self.object is None or self.object.lower() in read.object.lower()
        )


@frozen
class Showing:
    """``audit show POSITION``: the entry, and that it is where it says."""

    position: int
    state: Path
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        witness = LogWitness(witness_path(self.state, f"{administration.client.address} mesh-ctl"))
        witness.recall()
        head = await administration.head()
        verifier = witness.verifier or Verifier.parse(head.verifier)
        if head.checkpoint is None:
            raise Malformed("the log is empty")
        checkpoint = verifier.open(head.checkpoint)
        if self.position >= checkpoint.size:
            raise Malformed(f"there is no entry {self.position}: the log has {checkpoint.size}")
        (entry,) = (await administration.entries(self.position, 1)).entries[:1] or (None,)
        if entry is None or entry.position != self.position:
            raise Malformed(f"the CA did not show entry {self.position}")
        proof = await administration.inclusion(self.position, checkpoint.size)
        hashes = tuple(hash_of(text) for text in proof.proof)
        leaf = hash_of(entry.leaf)
        if entry.entry is not None:
            leaf = leaf_hash(entry.entry.encode("utf-8", "surrogatepass"))
        verify_inclusion(leaf, self.position, checkpoint.size, hashes, checkpoint.root)
        self._put(entry, leaf, hashes, checkpoint)
        return DONE

    def _put(
        self, entry: LogEntry, leaf: bytes, proof: tuple[bytes, ...], checkpoint: Checkpoint
    ) -> None:
        if self.as_json:
            proven = {
                "leaf": leaf.hex(),
                "proof": [h.hex() for h in proof],
                "checkpoint": told_of(checkpoint),
            }
            output.put_json({**_shown(entry), **proven})
            return
        read = _entry_of(entry)
        facts: output.Facts = {"entry": str(entry.position)}
        if read is None:
            facts["text"] = entry.entry or "(pruned: only its hash is left)"
        else:
            facts |= {"time": rfc3339(read.at), "act": str(read.act), "object": read.object}
            facts |= {"actor": read.actor}
            facts |= {"facts": [f"{name}={value}" for name, value in read.facts.items()]}
        facts |= {"leaf": leaf.hex(), "proof": [h.hex() for h in proof]}
        facts["included"] = (
            f"yes, in the log of {checkpoint.size:,} entries of {rfc3339(checkpoint.at)}, "
            f"root {checkpoint.root.hex()}"
        )
        output.put_facts(facts)


def _entry_of(entry: LogEntry) -> Entry | None:
    """None where the text is pruned or damaged."""
    return parsed((entry.entry or "").encode("utf-8", "surrogatepass"))


def parsed(text: bytes | None) -> Entry | None:
    """An entry's text; None for what is none."""
    try:
        return Entry.parse(text or b"")
    except BadEntry:
        return None


def _shown(entry: LogEntry) -> dict[str, object]:
    try:
        read = msgspec.json.decode(entry.entry or "null")
    except msgspec.DecodeError:
        read = entry.entry
    return {"position": entry.position, "leaf": entry.leaf, "entry": read}


def _cells(entry: LogEntry) -> tuple[str, ...]:
    read = _entry_of(entry)
    if read is None:
        told = "(damaged)" if entry.entry is not None else "(pruned)"
        return (str(entry.position), "", told, "", "", "")
    facts = " ".join(f"{name}={value}" for name, value in read.facts.items())
    return (
        str(entry.position),
        rfc3339(read.at),
        str(read.act),
        read.object,
        read.actor,
        facts,
    )


def hash_of(text: str) -> bytes:
    """Of a proof, from hex. Raises :class:`Malformed`."""
    try:
        return binascii.unhexlify(text)
    except ValueError:
        raise Malformed("the CA's proof is none: it holds something else than hashes") from None
