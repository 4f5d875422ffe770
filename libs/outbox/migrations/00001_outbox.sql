-- +goose Up

-- One row per transaction holds all its events, packed. Ids are given before the commit, so their order is not that of the
-- commits; within a key it is, because whoever writes a row has locked the aggregate first. The table cannot be unique on
-- (aggregate, sequence), for it is partitioned: the lock guarantees that, and `waybill verify` checks it.
CREATE TABLE outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY,
    events       integer NOT NULL CHECK (events > 0),
    body         bytea NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(), -- when the transaction began
    published_at timestamptz
) PARTITION BY RANGE (created_at);

-- Bodies are mostly ids, and compressing them costs more than it saves.
ALTER TABLE outbox ALTER COLUMN body SET STORAGE EXTERNAL;

-- The relay's reads. Marking a row takes it out.
CREATE INDEX outbox_unpublished ON outbox (id) WHERE published_at IS NULL;

-- The relay makes a partition per hour in advance. A row that none of them takes lands here, because nothing may fail for
-- want of housekeeping.
CREATE TABLE outbox_default PARTITION OF outbox DEFAULT;

-- +goose StatementBegin
-- The first ones, so that the table need not be altered while the first rows come.
DO $$
DECLARE h timestamptz;
BEGIN
    FOR h IN SELECT date_trunc('hour', now(), 'UTC') + n * interval '1 hour' FROM generate_series(0, 3) AS n LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF outbox FOR VALUES FROM (%L) TO (%L) WITH (fillfactor = 80,
            autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0)',
            'outbox_p' || to_char(h AT TIME ZONE 'UTC', 'YYYYMMDDHH24'), h, h + interval '1 hour');
    END LOOP;
END $$;
-- +goose StatementEnd

-- Who relays. The advisory lock decides; this row shows whether its holder still lives.
CREATE TABLE relays (
    name        text COLLATE "C" PRIMARY KEY,
    holder      text NOT NULL,
    backend_pid integer NOT NULL,
    seen_at     timestamptz NOT NULL
);
