-- +goose Up

-- What the payment service has read of the orders: a payment is checked against it.
CREATE TABLE known_orders (
    order_id    TEXT COLLATE "C" PRIMARY KEY,
    tenant_id   BIGINT NOT NULL,
    customer    TEXT NOT NULL,
    amount      BIGINT NOT NULL CHECK (amount > 0),
    currency    TEXT NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    read_at     TIMESTAMPTZ NOT NULL DEFAULT now(),
    closed_at   TIMESTAMPTZ,
    written_off BOOLEAN NOT NULL DEFAULT false,
    CHECK (closed_at IS NOT NULL OR NOT written_off)
);

-- One payment per order, for ever: that is the last line against a second charge.
-- due_at is the queue and the lease in one: who works on a row moves it into the future first.
CREATE TABLE payments (
    order_id     TEXT COLLATE "C" PRIMARY KEY,
    tenant_id    BIGINT NOT NULL,
    customer     TEXT NOT NULL,
    amount       BIGINT NOT NULL CHECK (amount > 0),
    currency     TEXT NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    method       TEXT NOT NULL,
    status       TEXT NOT NULL CHECK (status IN ('initiated', 'unknown', 'captured', 'declined', 'failed', 'refunded')),
    event_seq    BIGINT NOT NULL CHECK (event_seq > 0),
    attempts     INT NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    asks         INT NOT NULL DEFAULT 0 CHECK (asks >= 0),
    sent         BOOLEAN NOT NULL DEFAULT false,
    provider_ref TEXT NOT NULL DEFAULT '',
    reason       TEXT NOT NULL DEFAULT '',
    closed       BOOLEAN NOT NULL DEFAULT false,
    written_off  BOOLEAN NOT NULL DEFAULT false,
    refunded     BIGINT NOT NULL DEFAULT 0,
    traceparent  TEXT NOT NULL DEFAULT '',
    created_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    due_at       TIMESTAMPTZ,
    finished_at  TIMESTAMPTZ,
    -- an open charge is in the queue, a known outcome is not
    CHECK ((status IN ('initiated', 'unknown')) = (due_at IS NOT NULL)),
    CHECK ((status IN ('initiated', 'unknown')) = (finished_at IS NULL)),
    CHECK (status <> 'unknown' OR sent),
    CHECK (status NOT IN ('captured', 'refunded') OR attempts > 0),
    CHECK (refunded = CASE WHEN status = 'refunded' THEN amount ELSE 0 END),
    CHECK (closed OR NOT written_off)
) WITH (fillfactor = 80);
CREATE INDEX payments_due ON payments (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE refunds (
    order_id     TEXT COLLATE "C" NOT NULL REFERENCES payments,
    attempt      INT NOT NULL CHECK (attempt > 0),
    status       TEXT NOT NULL CHECK (status IN ('requested', 'unknown', 'refunded', 'failed', 'withdrawn')),
    tries        INT NOT NULL DEFAULT 0 CHECK (tries >= 0),
    sent         BOOLEAN NOT NULL DEFAULT false,
    provider_ref TEXT NOT NULL DEFAULT '',
    reason       TEXT NOT NULL DEFAULT '',
    created_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- null while an open attempt waits for something else first
    due_at       TIMESTAMPTZ,
    finished_at  TIMESTAMPTZ,
    PRIMARY KEY (order_id, attempt),
    CHECK ((status IN ('requested', 'unknown')) = (finished_at IS NULL)),
    CHECK (due_at IS NULL OR status IN ('requested', 'unknown'))
);
CREATE INDEX refunds_due ON refunds (due_at) WHERE due_at IS NOT NULL;
-- An order's money goes back once.
CREATE UNIQUE INDEX refunds_once ON refunds (order_id) WHERE status = 'refunded';

-- Double entry: each booking has two rows, one debit and one credit of the same amount, written together.
--   provider         what the payment provider holds for us
--   orders           what we hold for our customers' orders
--   outside          what was returned to customers by other means
CREATE TABLE ledger_entries (
    id           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id     TEXT COLLATE "C" NOT NULL,
    tenant_id    BIGINT NOT NULL,
    kind         TEXT NOT NULL CHECK (kind IN ('capture', 'refund', 'write_off')),
    attempt      INT NOT NULL DEFAULT 0 CHECK ((attempt > 0) = (kind = 'refund')),
    account      TEXT NOT NULL CHECK (account IN ('provider', 'orders', 'outside')),
    debit        BIGINT NOT NULL CHECK (debit >= 0),
    credit       BIGINT NOT NULL CHECK (credit >= 0),
    currency     TEXT NOT NULL,
    provider_key TEXT NOT NULL,
    provider_ref TEXT NOT NULL,
    booked_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
    CHECK ((debit = 0) <> (credit = 0)),
    CHECK ((kind, account, debit > 0) IN (
        ('capture', 'provider', true), ('capture', 'orders', false),
        ('refund', 'orders', true), ('refund', 'provider', false),
        ('write_off', 'orders', true), ('write_off', 'outside', false))),
    -- each side of a booking once
    UNIQUE (order_id, kind, attempt, account)
);

-- +goose StatementBegin
CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger_entries is append-only' USING ERRCODE = 'restrict_violation';
END $$;
-- +goose StatementEnd
CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();

-- Webhooks that were taken in, by the sender's id. They carry no sequence, so each has a row.
CREATE TABLE webhooks (
    id      TEXT COLLATE "C" PRIMARY KEY,
    read_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX webhooks_read_at ON webhooks (read_at);
