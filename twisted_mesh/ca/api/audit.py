"""The routes of the audit log: its checkpoints, its entries, and proofs of both."""

import msgspec

from twisted_mesh.ca.api.request import Call
from twisted_mesh.ca.api.response import Answer
from twisted_mesh.ca.parts import CaParts


async def checkpoint(ca: CaParts, call: Call) -> Answer:
    log = ca.log
    signed = log.latest or await log.extend()
    note = signed.note if signed else None
    told = {"verifier": str(log.key.verifier), "checkpoint": note}
    return Answer(msgspec.json.encode(told))


async def checkpoints(ca: CaParts, call: Call) -> Answer:
    start, limit = call.page()
    found = await ca.store.checkpoints(start, limit + 1)
    following = found[limit][0] if len(found) > limit else None
    notes = [note for _, note in found[:limit]]
    return Answer(msgspec.json.encode({"checkpoints": notes, "next": following}))


async def entries(ca: CaParts, call: Call) -> Answer:
    start, limit = call.page()
    listed, size = await ca.store.log_entries(start, limit)
    following = start + len(listed)
    told = {
        "entries": [
            {
                "position": logged.position,
                "leaf": logged.leaf.hex(),
                "entry": None if logged.entry is None else logged.entry.decode(),
            }
            for logged in listed
        ],
        "size": size,
        "next": following if listed and following < size else None,
    }
    return Answer(msgspec.json.encode(told))


async def proof(ca: CaParts, call: Call) -> Answer:
    """Of an entry's place (``position``, ``size``), or that one tree extends another (``from``, ``to``)."""
    store = ca.store
    size = (await store.log_head()).size
    if "position" in call.query:
        of = call.number("size", size, 1, size)
        position = call.number("position", 0, 0, of - 1)
        (logged,), _ = await store.log_entries(position, 1)
        hashes = await store.inclusion_proof(position, of)
        told = {"proof": [h.hex() for h in hashes], "leaf": logged.leaf.hex(), "size": of}
    else:
        to = call.number("to", size, 0, size)
        since = call.number("from", 0, 0, to)
        hashes = await store.consistency_proof(since, to) if since else ()
        told = {"proof": [h.hex() for h in hashes], "size": to}
    return Answer(msgspec.json.encode(told))
