"""The tables of a witness's record, word for word: whatever else is in the file is refused."""

VERSION = "1"
TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "CREATE TABLE heads (origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, "
    "timestamp INTEGER NOT NULL, note TEXT NOT NULL, cosigned_at INTEGER NOT NULL) STRICT, WITHOUT ROWID",
)
