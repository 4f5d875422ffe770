-- +goose Up

-- One row per transaction holds all its events. Row ids are given before commit, so their order is not the order of
-- commits; within a key it is, because whoever writes a row has locked the aggregate first.
CREATE TABLE outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY,
    events       integer NOT NULL CHECK (events > 0),
    body         bytea NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz
) PARTITION BY RANGE (created_at);

-- A row that no hourly partition takes (nobody made it in time) lands here: nothing may fail because of housekeeping.
CREATE TABLE outbox_default PARTITION OF outbox DEFAULT;

-- The relay's reads: unpublished rows by id. Marking a row takes it out of the index.
CREATE INDEX outbox_unpublished ON outbox (id) WHERE published_at IS NULL;

-- Who relays. The advisory lock decides; this row shows whether the holder of the lock still lives.
CREATE TABLE relays (
    name        text COLLATE "C" PRIMARY KEY,
    holder      uuid NOT NULL,
    backend_pid integer NOT NULL,
    seen_at     timestamptz NOT NULL
);
