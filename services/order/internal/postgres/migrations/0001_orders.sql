-- +goose Up

-- One row per order, for ever: its id is taken. What changes stands first, so that an update logs a short difference; no
-- index has a column that changes, and half of each page stays free, so that updates stay on their page and off the
-- indexes (heap-only tuples). An order is updated four times on its way.
CREATE TABLE orders (
    event_seq   bigint NOT NULL, -- of the last event published about the order
    finished_at timestamptz,
    shipment    integer NOT NULL DEFAULT 0, -- number of the current one
    refund      integer NOT NULL DEFAULT 0,
    status      text NOT NULL,
    reason      text NOT NULL DEFAULT '',
    cause       text NOT NULL DEFAULT '', -- why it is being undone, while reason says refund_failed
    goods       text NOT NULL DEFAULT '',

    tenant      bigint NOT NULL,
    amount      bigint NOT NULL, -- minor units of currency
    created_at  timestamptz NOT NULL,
    deadline_at timestamptz NOT NULL,
    order_id    text COLLATE "C" PRIMARY KEY,
    customer    text COLLATE "C" NOT NULL,
    currency    text NOT NULL,
    method      text NOT NULL,
    email       text NOT NULL DEFAULT '',
    product_ids text[] NOT NULL DEFAULT '{}', -- each once
    quantities  integer[] NOT NULL DEFAULT '{}',
    address     jsonb,
    traceparent text NOT NULL,
    key         text COLLATE "C", -- Idempotency-Key that it was made with
    fingerprint bytea NOT NULL,   -- of the request that made it

    CONSTRAINT orders_id CHECK (order_id ~ '^[A-Za-z0-9._-]{1,64}$'),
    CONSTRAINT orders_status CHECK (status IN ('pending', 'paying', 'paid', 'shipping', 'cancelling', 'completed', 'failed', 'cancelled', 'attention')),
    CONSTRAINT orders_finished CHECK ((status IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CONSTRAINT orders_reason CHECK ((status IN ('cancelling', 'failed', 'cancelled', 'attention')) = (reason <> '')),
    CONSTRAINT orders_goods CHECK (goods IN ('', 'returned', 'lost')),
    CONSTRAINT orders_amount CHECK (amount > 0),
    CONSTRAINT orders_items CHECK (cardinality(product_ids) = cardinality(quantities) AND 0 < ALL (quantities)),
    CONSTRAINT orders_address CHECK (address IS NOT NULL OR cardinality(product_ids) = 0),
    CONSTRAINT orders_fingerprint CHECK (octet_length(fingerprint) = 32)
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX orders_key ON orders (tenant, customer, key) WHERE key IS NOT NULL;
-- A list is read per tenant or per customer, newest first; who sees all tenants gets their lists merged.
CREATE INDEX orders_newest ON orders (tenant, created_at, order_id);
CREATE INDEX orders_own ON orders (tenant, customer, created_at, order_id);

-- The timeline: what arrived and where it left the order. Ids are given under the order's lock, so within an order they
-- grow in the order of the commits, and a stream can resume after one.
CREATE TABLE order_history (
    order_id text COLLATE "C" NOT NULL,
    id       bigint GENERATED ALWAYS AS IDENTITY,
    at       timestamptz NOT NULL,
    event    text NOT NULL,
    status   text NOT NULL,
    detail   text NOT NULL DEFAULT '',
    PRIMARY KEY (order_id, id)
);

-- Orders that somebody must look at later: the reservation that was not answered, the deadline. Rows are made with the
-- order, moved on by the sweeper and deleted by it, all together, once the order has left pending and paying. So the
-- statements of the way that most orders take do not know this table.
CREATE TABLE order_watch (
    due_at   timestamptz NOT NULL,
    order_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (due_at, order_id)
);
