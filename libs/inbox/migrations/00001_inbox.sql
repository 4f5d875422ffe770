-- +goose Up

-- Text keys sort by byte (COLLATE "C"): no ICU comparisons on the hot path, and the same order in Go and SQL.

-- The last sequence that a consumer group has applied of each source and subject. Rows stay: a record can be read again
-- for as long as the topic keeps it, and sequence 1 must still be a duplicate then.
CREATE TABLE inbox (
    grp      text COLLATE "C" NOT NULL,
    source   text COLLATE "C" NOT NULL,
    subject  text COLLATE "C" NOT NULL,
    last_seq bigint NOT NULL,
    was_seq  bigint NOT NULL, -- what the writer had read; the upsert changes nothing where that is no longer true
    PRIMARY KEY (subject, source, grp),
    CHECK (last_seq > was_seq AND was_seq >= 0)
) WITH (fillfactor = 80); -- updated in place, a few times per row

-- The oldest offset that a group could read when it met a partition: above 0, older records had been deleted by then.
CREATE TABLE inbox_partitions (
    grp    text COLLATE "C" NOT NULL,
    topic  text COLLATE "C" NOT NULL,
    part   integer NOT NULL,
    oldest bigint NOT NULL,
    PRIMARY KEY (grp, topic, part)
);

-- Events that came before their predecessor, for 60 s at most.
CREATE TABLE early_events (
    grp         text COLLATE "C" NOT NULL,
    source      text COLLATE "C" NOT NULL,
    subject     text COLLATE "C" NOT NULL,
    seq         bigint NOT NULL,
    event_id    uuid NOT NULL,
    type        text NOT NULL,
    tenant      bigint NOT NULL,
    at          timestamptz NOT NULL,
    traceparent text NOT NULL,
    data        bytea NOT NULL,
    queued_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (subject, source, grp, seq)
);

-- Events of parked keys, in the order of their sequence.
CREATE TABLE parked_events (
    grp         text COLLATE "C" NOT NULL,
    source      text COLLATE "C" NOT NULL,
    subject     text COLLATE "C" NOT NULL,
    seq         bigint NOT NULL,
    event_id    uuid NOT NULL,
    type        text NOT NULL,
    tenant      bigint NOT NULL,
    at          timestamptz NOT NULL,
    traceparent text NOT NULL,
    data        bytea NOT NULL,
    queued_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (subject, source, grp, seq),
    UNIQUE (grp, event_id)
);

-- Keys that stand still until somebody redrives them (poison) or their predecessor comes (gap). Closed ones are history.
CREATE TABLE parked_keys (
    id          uuid PRIMARY KEY,
    grp         text COLLATE "C" NOT NULL,
    source      text COLLATE "C" NOT NULL,
    subject     text COLLATE "C" NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('poison', 'gap')),
    type        text NOT NULL, -- of the event that it stands at
    tenant      bigint NOT NULL,
    reason      text NOT NULL,
    traceparent text NOT NULL,
    attempts    integer NOT NULL DEFAULT 0,
    status      text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'redriven', 'discarded')),
    note        text NOT NULL DEFAULT '',
    opened_at   timestamptz NOT NULL DEFAULT now(),
    closed_at   timestamptz,
    CHECK ((status = 'open') = (closed_at IS NULL))
);
CREATE UNIQUE INDEX parked_keys_open ON parked_keys (subject, source, grp) WHERE closed_at IS NULL;
CREATE INDEX parked_keys_recent ON parked_keys (type, grp, opened_at);

-- Records without a usable envelope: there is no key that could be parked.
CREATE TABLE dead_letters (
    id        uuid PRIMARY KEY,
    grp       text COLLATE "C" NOT NULL,
    topic     text COLLATE "C" NOT NULL,
    part      integer NOT NULL,
    "offset"  bigint NOT NULL,
    at        timestamptz NOT NULL, -- the record's time: a topic that is made again counts its offsets from 0 again
    key       bytea,
    value     bytea, -- emptied when the letter is closed: it may hold personal data
    headers   json NOT NULL, -- [{key, value in base64}]; json, because jsonb refuses \u0000
    reason    text NOT NULL,
    attempts  integer NOT NULL DEFAULT 0,
    status    text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'redriven', 'discarded')),
    note      text NOT NULL DEFAULT '',
    opened_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz,
    UNIQUE (topic, part, "offset", at, grp),
    CHECK ((status = 'open') = (closed_at IS NULL))
);
CREATE INDEX dead_letters_open ON dead_letters (grp) WHERE closed_at IS NULL;

-- What a service itself cannot decide: a compensation that failed, a ticket.
CREATE TABLE raised_interventions (
    id          uuid PRIMARY KEY,
    grp         text COLLATE "C" NOT NULL,
    kind        text COLLATE "C" NOT NULL CHECK (kind NOT IN ('poison', 'gap', 'dead_letter')),
    subject     text COLLATE "C" NOT NULL,
    tenant      bigint NOT NULL,
    reason      text NOT NULL,
    detail      jsonb NOT NULL,
    traceparent text NOT NULL,
    attempts    integer NOT NULL DEFAULT 0,
    status      text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'redriven', 'discarded', 'resolved')),
    note        text NOT NULL DEFAULT '',
    opened_at   timestamptz NOT NULL DEFAULT now(),
    closed_at   timestamptz,
    CHECK ((status = 'open') = (closed_at IS NULL))
);
CREATE UNIQUE INDEX raised_interventions_open ON raised_interventions (subject, kind, grp) WHERE closed_at IS NULL;

-- Whatever waits for a person, from the three sources. Ids are UUIDv7: descending is newest first.
CREATE VIEW interventions AS
SELECT id, grp, kind, source, subject, type, tenant, reason, traceparent, attempts, status, note, opened_at, closed_at
FROM parked_keys
UNION ALL
SELECT id, grp, 'dead_letter', '', topic || '/' || part || '/' || "offset", '', 0, reason, '', attempts, status, note, opened_at, closed_at
FROM dead_letters
UNION ALL
SELECT id, grp, kind, '', subject, '', tenant, reason, traceparent, attempts, status, note, opened_at, closed_at
FROM raised_interventions;

-- Who did what about an intervention, and why. Nobody changes it afterwards.
CREATE TABLE intervention_actions (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL DEFAULT now(),
    intervention uuid NOT NULL,
    action       text NOT NULL CHECK (action IN ('redrive', 'dry_run', 'discard', 'resolve')),
    actor        text NOT NULL,
    outcome      text NOT NULL,
    reason       text NOT NULL
);
CREATE INDEX intervention_actions_of ON intervention_actions (intervention, id);

-- +goose StatementBegin
CREATE FUNCTION inbox_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
-- +goose StatementEnd
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON intervention_actions
    FOR EACH STATEMENT EXECUTE FUNCTION inbox_append_only();

-- Answers to requests that carried an Idempotency-Key, written with their effect.
CREATE TABLE idempotency_keys (
    caller       text COLLATE "C" NOT NULL,
    route        text COLLATE "C" NOT NULL,
    key          text COLLATE "C" NOT NULL,
    fingerprint  bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    status       smallint NOT NULL,
    content_type text NOT NULL,
    location     text NOT NULL,
    body         bytea NOT NULL,
    stored_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key, route, caller)
);
-- Rows come in the order of their time, so a block range index finds the old ones at almost no cost per insert.
CREATE INDEX idempotency_keys_old ON idempotency_keys USING brin (stored_at);
