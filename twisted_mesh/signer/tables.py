"""The tables of a signer's record, word for word: whatever else is in the file is refused."""

VERSION = "2"
#: Which versions have as many of the tables, the first ones, and no other.
EARLIER = {"1": 9}
TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "CREATE TABLE keys (name TEXT PRIMARY KEY, purpose TEXT NOT NULL, algorithm TEXT NOT NULL, label TEXT NOT NULL, "
    "spki BLOB NOT NULL UNIQUE, store TEXT NOT NULL, is_made_here INTEGER NOT NULL, made_at TEXT NOT NULL) STRICT",
    "CREATE TABLE certified (key TEXT NOT NULL, serial TEXT NOT NULL, sha256 TEXT NOT NULL, "
    "not_after INTEGER NOT NULL, PRIMARY KEY (key, serial)) STRICT, WITHOUT ROWID",
    "CREATE INDEX certified_by_end ON certified (not_after)",
    "CREATE TABLE ca_certificates (sha256 TEXT PRIMARY KEY, key TEXT NOT NULL, der BLOB NOT NULL) STRICT",
    "CREATE TABLE crls (key TEXT PRIMARY KEY, number TEXT NOT NULL, sha256 TEXT NOT NULL) STRICT",
    "CREATE TABLE listed (key TEXT NOT NULL, serial TEXT NOT NULL, not_after INTEGER, PRIMARY KEY (key, serial)) "
    "STRICT, WITHOUT ROWID",
    "CREATE TABLE checkpoints (key TEXT PRIMARY KEY, origin TEXT NOT NULL, size INTEGER NOT NULL, "
    "root BLOB NOT NULL) STRICT",
    "CREATE TABLE approvals (pin TEXT PRIMARY KEY, until INTEGER NOT NULL, by TEXT NOT NULL, "
    "is_logged INTEGER NOT NULL) STRICT",
    # Since version 2.
    "CREATE TABLE precertificates (key TEXT NOT NULL, serial TEXT NOT NULL, sha256 TEXT NOT NULL, "
    "not_after INTEGER NOT NULL, PRIMARY KEY (key, serial)) STRICT, WITHOUT ROWID",
    "CREATE INDEX precertificates_by_end ON precertificates (not_after)",
)
