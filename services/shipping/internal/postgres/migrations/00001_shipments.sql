-- +goose Up

-- What the events of the topic orders said about an order. Its row is the lock of everything that concerns the order, and
-- counts the events that this service has published about it.
CREATE TABLE orders (
    order_id  text PRIMARY KEY CHECK (length(order_id) BETWEEN 1 AND 64),
    tenant    bigint NOT NULL,
    customer  text NOT NULL, -- empty where order.created was not seen
    event_seq bigint NOT NULL DEFAULT 0 CHECK (event_seq >= 0),
    paid_at   timestamptz
) WITH (fillfactor = 80); -- room for HOT updates: no index has event_seq or paid_at

CREATE TABLE shipments (
    order_id     text NOT NULL REFERENCES orders,
    attempt      integer NOT NULL CHECK (attempt >= 1),
    status       text NOT NULL CHECK (status IN ('requested', 'accepted', 'in_transit', 'delivered', 'failed')),
    reason       text NOT NULL DEFAULT '',
    tracking     text NOT NULL DEFAULT '',
    address      jsonb NOT NULL,
    items        jsonb NOT NULL CHECK (jsonb_array_length(items) >= 1),
    traceparent  text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(), -- of the status
    finished_at  timestamptz,
    calls        integer NOT NULL DEFAULT 0 CHECK (calls >= 0), -- to have it accepted
    -- When the carrier is called next: until it accepts, to accept; then, to say where the parcel is.
    due_at       timestamptz DEFAULT now(),
    PRIMARY KEY (order_id, attempt),
    CONSTRAINT finished_has_a_time CHECK ((status IN ('delivered', 'failed')) = (finished_at IS NOT NULL)),
    CONSTRAINT unfinished_is_due CHECK ((status IN ('delivered', 'failed')) = (due_at IS NULL)),
    CONSTRAINT failed_has_a_reason CHECK ((status = 'failed') = (reason <> '')),
    CONSTRAINT accepted_has_tracking CHECK (status IN ('requested', 'failed') OR tracking <> '')
);

-- The queue: only what is unfinished is in it.
CREATE INDEX shipments_due ON shipments (due_at) WHERE due_at IS NOT NULL;
