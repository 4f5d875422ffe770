-- +goose Up
-- What a process needs to go on where it, or the one before it, was killed. An instance is a replica.
CREATE TABLE instances (
    name text PRIMARY KEY,
    id uuid NOT NULL, -- also stands in the file with the counts that survive
    totals bytea NOT NULL,
    books bytea NOT NULL,
    saved_at timestamptz NOT NULL
);
CREATE TABLE series (
    instance text NOT NULL,
    number integer NOT NULL,
    identity jsonb NOT NULL,
    PRIMARY KEY (instance, number)
);
CREATE TABLE panes (
    instance text NOT NULL,
    pane bigint NOT NULL,
    closed boolean NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (instance, pane)
);
-- The next record to read, shared by all replicas: it moves only together with the panes that hold the ones before.
CREATE TABLE offsets (
    topic text NOT NULL,
    partition integer NOT NULL,
    next bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);
