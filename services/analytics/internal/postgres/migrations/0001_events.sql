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
