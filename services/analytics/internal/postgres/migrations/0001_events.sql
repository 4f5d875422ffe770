-- +goose Up

-- The key has event_id: without it two events of a tenant in one microsecond collide.
CREATE TABLE events (
    tenant_id       BIGINT NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL,
    event_id        UUID NOT NULL,
    processing_time FLOAT CHECK (processing_time >= 0 AND processing_time < 'infinity'),
    payload         JSONB,
    PRIMARY KEY (tenant_id, created_at, event_id)
) PARTITION BY RANGE (created_at);

CREATE TABLE tenants (
    id   BIGINT PRIMARY KEY,
    name TEXT,
    plan TEXT
);

-- When things happened to a subject, the last 32 times: what an event's processing time is measured from. It is kept apart
-- from events, so that one lookup by key finds it.
CREATE TABLE subject_times (
    tenant_id  BIGINT NOT NULL,
    subject    TEXT COLLATE "C" NOT NULL,
    times      TIMESTAMPTZ[] NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (subject, tenant_id)
) WITH (fillfactor = 80);
CREATE INDEX subject_times_changed_at ON subject_times (changed_at);
