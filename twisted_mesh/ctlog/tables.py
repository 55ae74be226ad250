"""The tables of a log's record, word for word: whatever else is in the file is refused."""

VERSION = "1"
TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), size INTEGER NOT NULL, root BLOB NOT NULL, "
    "timestamp INTEGER NOT NULL, note TEXT NOT NULL) STRICT",
    "CREATE TABLE entries (position INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT",
    "CREATE TABLE tiles (level INTEGER NOT NULL, number INTEGER NOT NULL, hashes BLOB NOT NULL, "
    "PRIMARY KEY (level, number)) STRICT",
    "CREATE TABLE issuers (fingerprint BLOB PRIMARY KEY, der BLOB NOT NULL) STRICT",
    "CREATE TABLE seen (digest BLOB PRIMARY KEY, position INTEGER NOT NULL, not_after INTEGER NOT NULL) "
    "STRICT, WITHOUT ROWID",
    "CREATE INDEX seen_by_end ON seen (not_after)",
)
