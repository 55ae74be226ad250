"""The tables of a monitor's index, each made as it stands here and never otherwise."""

VERSION = "1"

#: In the order in which they are made.
TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    # How far each log was read: its first ``size`` entries, whose tree has these ``peaks``; the newest head of it.
    "CREATE TABLE logs (number INTEGER PRIMARY KEY, log_id BLOB NOT NULL UNIQUE, origin TEXT NOT NULL, "
    "size INTEGER NOT NULL, peaks BLOB NOT NULL, head TEXT NOT NULL, first_at INTEGER)",
    "CREATE TABLE issuers (number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE)",
    # ``recorded``: 0 to be compared with the CA's record, 1 is there, 2 is not, 3 nobody compares.
    "CREATE TABLE sightings (log INTEGER NOT NULL, position INTEGER NOT NULL, at INTEGER NOT NULL, "
    "kind INTEGER NOT NULL, issuer INTEGER NOT NULL, serial BLOB NOT NULL, key BLOB NOT NULL, "
    "not_before INTEGER NOT NULL, not_after INTEGER NOT NULL, recorded INTEGER NOT NULL, names TEXT NOT NULL, "
    "PRIMARY KEY (log, position)) WITHOUT ROWID",
    "CREATE INDEX sightings_serial ON sightings (serial)",
    "CREATE INDEX sightings_key ON sightings (key)",
    "CREATE INDEX sightings_at ON sightings (at)",
    "CREATE INDEX sightings_open ON sightings (log, position) WHERE recorded = 0",
    "CREATE TABLE names (name TEXT NOT NULL, log INTEGER NOT NULL, position INTEGER NOT NULL, "
    "PRIMARY KEY (name, log, position)) WITHOUT ROWID",
    "CREATE TABLE alerts (number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, body BLOB NOT NULL)",
    "CREATE TABLE counts (kind TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID",
    # What began and is not over: told once.
    "CREATE TABLE standing (log TEXT NOT NULL, kind TEXT NOT NULL, since INTEGER NOT NULL, "
    "PRIMARY KEY (log, kind)) WITHOUT ROWID",
    # Up to which alert each way of telling has told.
    "CREATE TABLE told (sink TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID",
    # Certificates of the CA's record that no log had when they were looked for.
    "CREATE TABLE missing (serial BLOB NOT NULL, issuer BLOB NOT NULL, since INTEGER NOT NULL, "
    "told INTEGER NOT NULL, PRIMARY KEY (serial, issuer)) WITHOUT ROWID",
)
