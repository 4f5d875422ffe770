-- +goose Up

-- What is on the shelf. Hot products are updated in place many times a second; the free half of each page keeps those
-- updates off the index (heap-only tuples).
CREATE TABLE products (
    tenant     bigint NOT NULL,
    product_id text COLLATE "C" NOT NULL,
    on_hand    bigint NOT NULL DEFAULT 0,
    reserved   bigint NOT NULL DEFAULT 0,
    price      bigint NOT NULL, -- minor units of currency
    currency   text NOT NULL,
    name       text NOT NULL,
    event_seq  bigint NOT NULL DEFAULT 0, -- of the subject stock:<tenant>:<product_id>
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, product_id),
    CONSTRAINT products_stock CHECK (0 <= reserved AND reserved <= on_hand),
    CONSTRAINT products_price CHECK (price >= 0),
    CONSTRAINT products_currency CHECK (currency ~ '^[A-Z]{3}$')
) WITH (fillfactor = 50);

-- One row per order, for ever: RELEASED and EXPIRED refuse a reservation that comes late.
CREATE TABLE reservations (
    order_id     text COLLATE "C" PRIMARY KEY,
    tenant       bigint NOT NULL,
    state        text NOT NULL,
    product_ids  text[] NOT NULL DEFAULT '{}', -- summed, in product order
    quantities   bigint[] NOT NULL DEFAULT '{}',
    total        bigint NOT NULL DEFAULT 0, -- by the catalogue at the time, minor units
    currency     text NOT NULL DEFAULT '',
    reason       text NOT NULL DEFAULT '',
    event_seq    bigint NOT NULL DEFAULT 0, -- of the subject order_id
    due_at       timestamptz, -- HELD: expires; PINNED: the order service is asked
    confirmed_at timestamptz,
    closed_at    timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT reservations_state CHECK (state IN ('HELD', 'PINNED', 'CONFIRMED', 'RELEASED', 'EXPIRED', 'RETURNED')),
    CONSTRAINT reservations_due CHECK ((state IN ('HELD', 'PINNED')) = (due_at IS NOT NULL)),
    CONSTRAINT reservations_confirmed CHECK ((state IN ('CONFIRMED', 'RETURNED')) = (confirmed_at IS NOT NULL)),
    CONSTRAINT reservations_closed CHECK ((state IN ('RELEASED', 'EXPIRED', 'RETURNED')) = (closed_at IS NOT NULL)),
    CONSTRAINT reservations_items CHECK (cardinality(product_ids) = cardinality(quantities)),
    CONSTRAINT reservations_stocked CHECK (state IN ('RELEASED', 'EXPIRED') OR cardinality(product_ids) > 0)
);
CREATE INDEX reservations_due_at ON reservations (due_at) WHERE due_at IS NOT NULL;

-- Every change of on_hand. The balance is what was left, so that the sum can be checked line by line. Only INSERT.
CREATE TABLE stock_ledger (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- per product in the order of the changes: taken under the row's lock
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    tenant     bigint NOT NULL,
    product_id text COLLATE "C" NOT NULL,
    order_id   text COLLATE "C", -- or
    document   text COLLATE "C", -- the restock or stock-take
    op         text NOT NULL,
    delta      bigint NOT NULL,
    balance    bigint NOT NULL,
    reason     text NOT NULL DEFAULT '',
    actor      text NOT NULL DEFAULT '',
    CONSTRAINT stock_ledger_op CHECK (op IN ('confirmed', 'returned', 'restocked', 'stocktake')),
    CONSTRAINT stock_ledger_cause CHECK ((order_id IS NULL) <> (document IS NULL)),
    CONSTRAINT stock_ledger_order CHECK ((order_id IS NOT NULL) = (op IN ('confirmed', 'returned'))),
    CONSTRAINT stock_ledger_sign CHECK (delta <> 0 AND (op <> 'confirmed' OR delta < 0) AND (op <> 'returned' OR delta > 0)),
    CONSTRAINT stock_ledger_balance CHECK (balance >= 0)
);
CREATE UNIQUE INDEX stock_ledger_once ON stock_ledger (order_id, product_id, op) WHERE order_id IS NOT NULL;
CREATE UNIQUE INDEX stock_ledger_document ON stock_ledger (tenant, product_id, document, op) WHERE document IS NOT NULL;
CREATE INDEX stock_ledger_product ON stock_ledger (tenant, product_id, id) INCLUDE (delta);
CREATE INDEX stock_ledger_at ON stock_ledger USING brin (at); -- what moved since a count

-- What was counted, what was expected and what was booked. Only INSERT.
CREATE TABLE stocktakes (
    id         text COLLATE "C" PRIMARY KEY,
    tenant     bigint NOT NULL,
    actor      text NOT NULL,
    reason     text NOT NULL,
    counted_at timestamptz NOT NULL,
    booked_at  timestamptz NOT NULL DEFAULT now(),
    lines      jsonb NOT NULL
);

-- +goose StatementBegin
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
-- +goose StatementEnd
CREATE TRIGGER stock_ledger_append_only BEFORE UPDATE OR DELETE ON stock_ledger FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER stock_ledger_no_truncate BEFORE TRUNCATE ON stock_ledger FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER stocktakes_append_only BEFORE UPDATE OR DELETE ON stocktakes FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER stocktakes_no_truncate BEFORE TRUNCATE ON stocktakes FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
