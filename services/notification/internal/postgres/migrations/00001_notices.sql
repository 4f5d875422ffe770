-- +goose Up

-- A message to a customer: one for each event and channel, for ever.
CREATE TABLE notices (
    event_id    uuid NOT NULL,
    channel     text NOT NULL CHECK (channel IN ('email')),
    order_id    text NOT NULL,
    tenant      bigint NOT NULL,
    seq         bigint NOT NULL CHECK (seq >= 1), -- of the event, among those about the order
    kind        text NOT NULL CHECK (kind IN ('confirmed', 'resent', 'completed', 'cancelled', 'failed', 'refunding', 'attention')),
    recipient   text NOT NULL, -- personal data; erased when there is no more to tell
    masked      text NOT NULL,
    subject     text NOT NULL,
    body        text NOT NULL,
    traceparent text NOT NULL,
    status      text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'sent', 'superseded', 'failed')),
    in_flight   boolean NOT NULL DEFAULT false, -- somebody is sending it, or died over it
    tries       integer NOT NULL DEFAULT 0 CHECK (tries >= 0),
    due_at      timestamptz DEFAULT now(),      -- next try; of one in flight the end of its lease
    give_up_at  timestamptz NOT NULL,
    last_error  text NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (event_id, channel),
    CONSTRAINT only_pending_is_due CHECK ((status = 'pending') = (due_at IS NOT NULL)),
    CONSTRAINT finished_has_a_time CHECK ((status = 'pending') = (finished_at IS NULL)),
    CONSTRAINT only_pending_is_in_flight CHECK (status = 'pending' OR NOT in_flight),
    CONSTRAINT told_is_anonymous CHECK ((status IN ('sent', 'superseded')) = (recipient = ''))
);

-- The queue: only what is not told yet is in it.
CREATE INDEX notices_due ON notices (due_at) WHERE due_at IS NOT NULL;
-- An order's notices in the order of its events, to tell them in that order.
CREATE UNIQUE INDEX notices_of_order ON notices (order_id, seq, channel);
