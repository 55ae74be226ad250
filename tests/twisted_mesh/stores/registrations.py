"""Registration entries and join tokens to keep, and the commands that a CA tells of them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from attrs import evolve

from pki.audit.log import Act
from pki.policy.entry import EntryMembers, RegistrationEntry, read_entry
from pki.spiffe import TrustDomain
from tests.twisted_mesh.stores.certificates import NOW, entry
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores.commands import (
    BlockKey,
    CreateEntry,
    CreateToken,
    DeleteEntry,
    EndFederation,
    Federate,
    KeepBundle,
    RevokeToken,
    SettleDefaultEntry,
    UnblockKey,
)
from twisted_mesh.stores.records import BlockedKey, IssuedToken, StoredEntry, StoredFederation
from twisted_mesh.stores.sql import SqlStore
from twisted_mesh.stores.sqlite import Sqlite

TEN_MINUTES = timedelta(minutes=10)


def entry_of(name: str, *selectors: str) -> RegistrationEntry:
    """Without selectors one that was made for a token."""
    return read_entry(
        name,
        TrustDomain("mesh.local"),
        EntryMembers(
            selectors=selectors or [f"token:{name}"],
            spiffe_id="spiffe://mesh.local/service/**",
            comment=f"made for {name}",
        ),
    )


def stored(name: str, *selectors: str) -> StoredEntry:
    return StoredEntry(entry_of(name, *selectors), NOW)


def token_of(number: int, bound_to: str, **changes: Any) -> IssuedToken:
    token = IssuedToken(hashlib.sha256(b"%d" % number).digest(), bound_to, NOW + TEN_MINUTES, NOW)
    return evolve(token, **changes)


def create_entry(name: str, *selectors: str) -> CreateEntry:
    return CreateEntry(entry_of(name, *selectors), NOW, entry(Act.ADMINISTER, 1))


def delete_entry(name: str) -> DeleteEntry:
    return DeleteEntry(name, NOW, entry(Act.ADMINISTER, 2))


def create_token(token: IssuedToken, new_entry: StoredEntry | None = None) -> CreateToken:
    return CreateToken(token, entry(Act.ADMINISTER, 3), new_entry)


def revoke_token(token: IssuedToken, **changes: Any) -> RevokeToken:
    return evolve(RevokeToken(token.id, NOW, entry(Act.ADMINISTER, 4)), **changes)


def settle_default(chosen: RegistrationEntry | None) -> SettleDefaultEntry:
    return SettleDefaultEntry(chosen, NOW, entry(Act.ADMINISTER, 5))


def federated(name: str, **changes: Any) -> StoredFederation:
    """A trust domain that is federated with, with no bundle yet."""
    return evolve(StoredFederation(TrustDomain(name), b"{}", NOW), **changes)


def federate(name: str, **changes: Any) -> Federate:
    return Federate(federated(name, **changes), entry(Act.ADMINISTER, 6))


def keep_bundle(name: str, sequence: int, **changes: Any) -> KeepBundle:
    kept = KeepBundle(TrustDomain(name), b"%d" % sequence, sequence, NOW)
    return evolve(kept, **changes)


def end_federation(name: str) -> EndFederation:
    return EndFederation(TrustDomain(name), entry(Act.ADMINISTER, 8))


def block_key(spki: str, **changes: Any) -> BlockKey:
    """By an administrator, at ``NOW``."""
    return BlockKey(evolve(BlockedKey(spki, NOW), **changes), entry(Act.ADMINISTER, 10))


def unblock_key(spki: str) -> UnblockKey:
    return UnblockKey(spki, entry(Act.ADMINISTER, 11))


@contextmanager
def opened(path: Path, calls: ThreadCalls) -> Iterator[SqlStore]:
    store = SqlStore(Sqlite(path), calls)
    store.start()
    yield store
    calls.result(store.stop())
