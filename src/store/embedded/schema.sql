-- The tables of the embedded store, the same in memory and in a file.
-- Times are milliseconds since 1970. Operators may read this file; only the hub writes it.
-- Every table ends with `crc`, the sum over its other columns in their order (see `sum.rs`); 0 in memory. A column that
-- an older format lacks has a default, for the rows that are carried over.

-- One row, in a file only: which store this is, and the sum over the text of these tables.
CREATE TABLE store (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    life    TEXT NOT NULL,
    version INTEGER NOT NULL,
    tables  INTEGER NOT NULL,
    created INTEGER NOT NULL,
    crc     INTEGER NOT NULL
);

-- In a file only: how many rows each table has and the sum of their sums, as of each commit; under the name `commits`
-- how many commits there were.
CREATE TABLE tallies (
    name TEXT PRIMARY KEY,
    rows INTEGER NOT NULL,
    sum  INTEGER NOT NULL,
    crc  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE topics (
    id      INTEGER PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    -- The newest offset, as far as `messages` does not tell it: brought up to date when the newest message goes.
    head    INTEGER NOT NULL,
    touched INTEGER NOT NULL,
    -- The mode that its messages were kept in, and, in mode `latest`, the newest offset that bounds took.
    mode    TEXT NOT NULL DEFAULT 'log',
    floor   INTEGER NOT NULL DEFAULT 0,
    crc     INTEGER NOT NULL
);

-- The lives of a topic, oldest first: each begins after its base offset.
CREATE TABLE lives (
    topic_id INTEGER NOT NULL,
    ordinal  INTEGER NOT NULL,
    epoch    TEXT NOT NULL,
    base     INTEGER NOT NULL,
    crc      INTEGER NOT NULL,
    PRIMARY KEY (topic_id, ordinal)
) WITHOUT ROWID;

-- The last ingest entry applied to a topic, for each source.
CREATE TABLE fences (
    topic_id INTEGER NOT NULL,
    source   TEXT NOT NULL,
    life     TEXT NOT NULL,
    ms       INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    crc      INTEGER NOT NULL,
    PRIMARY KEY (topic_id, source)
) WITHOUT ROWID;

-- Append only, in the order of commits; no index by topic, since one page a touched topic would be written with every
-- commit. Which row holds which offset of a topic is known in memory, and learnt from this table at opening.
CREATE TABLE messages (
    seq      INTEGER PRIMARY KEY,
    topic_id INTEGER NOT NULL,
    offset   INTEGER NOT NULL,
    time     INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    -- What it replaces in mode `latest`; part of the body too.
    key      TEXT,
    body     BLOB NOT NULL,
    crc      INTEGER NOT NULL
);

CREATE TABLE idempotency (
    id       INTEGER PRIMARY KEY,
    topic_id INTEGER NOT NULL,
    key      TEXT NOT NULL,
    digest   BLOB NOT NULL,
    epoch    TEXT NOT NULL,
    offset   INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    crc      INTEGER NOT NULL,
    UNIQUE (topic_id, key)
);

-- Places in topics that are remembered for somebody. `used`: when somebody last used it, with a grain.
CREATE TABLE cursors (
    topic_id INTEGER NOT NULL,
    owner    TEXT NOT NULL,
    name     TEXT NOT NULL,
    epoch    TEXT NOT NULL,
    offset   INTEGER NOT NULL,
    used     INTEGER NOT NULL,
    crc      INTEGER NOT NULL,
    PRIMARY KEY (topic_id, owner, name)
) WITHOUT ROWID;
CREATE INDEX cursors_used ON cursors (used);

-- Ingest entries that could not be used. `retried` counts retries over all letters: not null once sent back.
CREATE TABLE dead (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    source  TEXT NOT NULL,
    entry   TEXT NOT NULL,
    time    INTEGER NOT NULL,
    reason  TEXT NOT NULL,
    text    TEXT NOT NULL,
    fields  BLOB NOT NULL,
    retried INTEGER,
    crc     INTEGER NOT NULL
);
CREATE INDEX dead_retried ON dead (retried) WHERE retried IS NOT NULL;

-- Work queues. `lives`: its lives, oldest first, each with the number that it begins after, like `k3 0 x9 120`. `last`: the
-- newest number that was given out. `settings`: its own, a line each; null: those of the first rule that it meets.
-- `untold`: firings that nobody has said to be told. `totals`: the nine counters, in their order.
CREATE TABLE queues (
    id          INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    lives       TEXT NOT NULL,
    last        INTEGER NOT NULL,
    settings    TEXT,
    paused      INTEGER NOT NULL,
    armed       INTEGER NOT NULL,
    taken_since INTEGER NOT NULL,
    firings     INTEGER NOT NULL,
    untold      TEXT NOT NULL,
    totals      TEXT NOT NULL,
    crc         INTEGER NOT NULL
);

-- A job as it was put. The id is the queue's id times 2^48 plus its number, so that a queue's jobs lie together.
-- `spot`: 0 takeable since `until`, 1 behind the head of its group, 2 delayed until then, 3 dead since then, 4 dead and
-- the head of its group as ever.
CREATE TABLE jobs (
    id       INTEGER PRIMARY KEY,
    priority INTEGER NOT NULL,
    grp      TEXT,
    time     INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    spot     INTEGER NOT NULL,
    until    INTEGER NOT NULL,
    body     BLOB NOT NULL,
    crc      INTEGER NOT NULL
);

-- What has become of a job since; there is no row until something has. One in flight is written as takeable since its
-- delivery: leases end with the process, deliveries count.
CREATE TABLE job_states (
    id       INTEGER PRIMARY KEY,
    expires  INTEGER NOT NULL,
    spot     INTEGER NOT NULL,
    until    INTEGER NOT NULL,
    tries    INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    death    TEXT,
    crc      INTEGER NOT NULL
);

-- Deliveries that failed, the newest of each job.
CREATE TABLE job_attempts (
    id      INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    time    INTEGER NOT NULL,
    worker  TEXT NOT NULL,
    ending  TEXT NOT NULL,
    error   TEXT,
    crc     INTEGER NOT NULL,
    PRIMARY KEY (id, ordinal)
) WITHOUT ROWID;

-- What was put before: digests of keys and, where the content counts, of that; `number` is the job's.
CREATE TABLE queue_keys (
    queue_id INTEGER NOT NULL,
    key      BLOB NOT NULL,
    content  BLOB,
    number   INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    crc      INTEGER NOT NULL,
    PRIMARY KEY (queue_id, key)
) WITHOUT ROWID;

-- The last ingest entry, position or run applied to a queue, for each source.
CREATE TABLE queue_marks (
    queue_id INTEGER NOT NULL,
    source   TEXT NOT NULL,
    life     TEXT NOT NULL,
    ms       INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    crc      INTEGER NOT NULL,
    PRIMARY KEY (queue_id, source)
) WITHOUT ROWID;
