"""Entries, tokens, claims and federated trust domains at a restore: none is un-deleted, un-revoked or un-spent.

``main`` is the record that is restored, ``present`` the one that is here.
"""

import sqlite3

from pki.errors import PkiError
from pki.policy.entry import DEFAULT_ENTRY, RegistrationEntry
from twisted_mesh.stores import schema

_SPEND = """
UPDATE main.tokens SET
    revoked_at = coalesce(tokens.revoked_at, p.revoked_at),
    request = CASE WHEN tokens.spent_at IS NULL THEN p.request ELSE tokens.request END,
    serial = CASE WHEN tokens.spent_at IS NULL THEN p.serial ELSE tokens.serial END,
    spent_at = coalesce(tokens.spent_at, p.spent_at)
FROM present.tokens p WHERE p.id = tokens.id
"""
#: One that was deleted and made anew is another.
_DELETED = """
SELECT e.id FROM main.entries e LEFT JOIN present.entries p
    ON p.id = e.id AND p.document = e.document AND p.created_at = e.created_at
WHERE p.id IS NULL
"""
#: A live token with another secret is another one: who wrote the backup chose it.
_REPLACED = """
DELETE FROM main.tokens WHERE EXISTS
    (SELECT 1 FROM present.tokens p WHERE p.id = tokens.id AND p.digest != tokens.digest)
"""
#: What was heard here last is told on: a bundle never goes back because of us.
_HEARD = """
UPDATE main.federation SET bundle = p.bundle, sequence = p.sequence, fetched_at = p.fetched_at
FROM present.federation p WHERE p.trust_domain = federation.trust_domain
    AND p.relationship = federation.relationship AND p.sequence >= federation.sequence AND p.bundle IS NOT NULL
"""
_ENDED = """
DELETE FROM main.federation WHERE NOT EXISTS
    (SELECT 1 FROM present.federation p
     WHERE p.trust_domain = federation.trust_domain AND p.created_at = federation.created_at)
"""
#: Who has used a claim here last has used it there, too; what was let go here and not there stays used.
_USE = "INSERT OR REPLACE INTO main.claims SELECT * FROM present.claims"
#: What is blocked here stays blocked; what was let go here and not there is blocked again.
_BLOCK = "INSERT OR IGNORE INTO main.blocked_keys SELECT * FROM present.blocked_keys"
#: A key that was compromised is so for good.
_COMPROMISED = """
UPDATE main.blocked_keys SET serial = p.serial FROM present.blocked_keys p
WHERE p.spki = blocked_keys.spki AND blocked_keys.serial IS NULL AND p.serial IS NOT NULL
"""
_UNUSED = """
SELECT id, document FROM main.entries e
WHERE NOT EXISTS (SELECT 1 FROM main.tokens t WHERE t.entry = e.id)
    AND NOT EXISTS (SELECT 1 FROM main.certificates c WHERE c.entry = e.id)
"""


def carry_over(connection: sqlite3.Connection, *, deletions: bool) -> None:
    """``deletions``: whether ``present`` has known all that is in ``main``, so that it deleted what it lacks."""
    connection.execute(_SPEND)
    connection.execute(_REPLACED)
    connection.execute(_USE)
    connection.execute(_HEARD)
    connection.execute(_BLOCK)
    connection.execute(_COMPROMISED)
    _keep_bans(connection)
    if deletions:
        connection.execute(_ENDED)
        deleted = connection.execute(_DELETED).fetchall()
        connection.executemany("DELETE FROM main.tokens WHERE entry = ?", deleted)
        connection.executemany("DELETE FROM main.entries WHERE id = ?", deleted)
        connection.execute(
            "DELETE FROM main.tokens WHERE id NOT IN (SELECT id FROM present.tokens)"
        )
    settled = connection.execute(
        "INSERT OR IGNORE INTO main.meta SELECT name, value FROM present.meta WHERE name = 'default-entry'"
    )
    if settled.rowcount:
        connection.execute(
            "INSERT OR IGNORE INTO main.entries SELECT * FROM present.entries WHERE id = ?",
            (DEFAULT_ENTRY,),
        )


def _keep_bans(connection: sqlite3.Connection) -> None:
    """An agent that is banned here is banned by the record that is restored: its own entry counts no more there."""
    missing = (
        "SELECT id, document FROM present.entries WHERE id NOT IN (SELECT id FROM main.entries)"
    )
    for name, document in connection.execute(missing).fetchall():
        try:
            is_ban = RegistrationEntry.from_document(document).is_ban
        except (PkiError, TypeError):  # to be looked at by people
            continue
        if is_ban:
            connection.execute(
                "INSERT INTO main.entries SELECT * FROM present.entries WHERE id = ?", (name,)
            )


def settle(connection: sqlite3.Connection, *, keep_live: bool) -> None:
    """Leave no token that might buy a second certificate, and no entry of a token that is gone.

    ``keep_live``: whether it is known of those that count as live that they are.
    """
    # What was under way may have come to its end since: such an intent, written off, gives no token back.
    connection.execute(
        "UPDATE main.tokens SET serial = NULL WHERE serial IN (SELECT c.serial FROM main.certificates c "
        "JOIN main.intents i ON i.certificate = c.id)"
    )
    # Nor is a claim free by that.
    connection.execute(
        "UPDATE main.claims SET serial = ?, was = NULL WHERE serial IN (SELECT c.serial FROM main.certificates c "
        "JOIN main.intents i ON i.certificate = c.id)",
        (schema.serial_text(0),),
    )
    if not keep_live:
        connection.execute("DELETE FROM main.tokens WHERE spent_at IS NULL AND revoked_at IS NULL")
    for name, document in connection.execute(_UNUSED).fetchall():
        try:
            is_of_token = RegistrationEntry.from_document(document).is_of_token
        except (PkiError, TypeError):  # to be looked at by people
            continue
        if is_of_token:
            connection.execute("DELETE FROM main.entries WHERE id = ?", (name,))
