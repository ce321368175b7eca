"""The tables of the ledger, and how older ones become these.

Each entry of `MIGRATIONS` leads from one version (`PRAGMA user_version`) to the next. Entries are never changed, only
added: there are ledgers out there. Statements are kept apart by a semicolon and an empty line.

There is no index on states and owners: they change with every commit, and are asked for when a batch begins.

`asked` counts how often each holder asked for the same content: on disk, as a batch may be long, until the holder goes.
`totals` holds what was spent, so that a limit is checked without adding up a hundred thousand rows. A job's `points`
are 0 while it is planned, what it is expected to cost from the POST on, and what the service charged when it is over.
"""

MIGRATIONS = (
    """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL DEFAULT 'planned',
    fingerprint TEXT NOT NULL,
    request TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    since REAL,
    token TEXT,
    task_id TEXT UNIQUE,
    points INTEGER NOT NULL DEFAULT 0,
    info TEXT,
    paths TEXT,
    error TEXT,
    owner TEXT,
    changed_at REAL NOT NULL
);

CREATE TABLE owners (owner TEXT PRIMARY KEY, lease_until REAL NOT NULL) WITHOUT ROWID;

CREATE TABLE asked (
    owner TEXT,
    fingerprint TEXT,
    times INTEGER NOT NULL,
    PRIMARY KEY (owner, fingerprint)
) WITHOUT ROWID;

CREATE TABLE totals (points INTEGER NOT NULL);

INSERT INTO totals VALUES (0);

CREATE TRIGGER spending AFTER UPDATE OF points ON jobs WHEN new.points <> old.points
BEGIN
    UPDATE totals SET points = points + new.points - old.points;
END
""",
    """
ALTER TABLE jobs ADD COLUMN sent TEXT
""",
)
