-- +goose Up
CREATE TABLE users (
    name          text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
    tenant_id     bigint NOT NULL CHECK (tenant_id > 0),
    roles         text[] NOT NULL CHECK (roles <@ ARRAY['customer', 'merchant', 'operator', 'admin'] AND cardinality(roles) > 0),
    password_hash text NOT NULL,
    -- made by the development profile; production refuses to start while its password is the well-known one
    seeded        boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now()
);

-- A family is one login: a chain of refresh tokens, each good once. head is the number of the newest.
CREATE TABLE families (
    id            uuid PRIMARY KEY,
    user_name     text NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    head          integer NOT NULL DEFAULT 1,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    revoked_at    timestamptz,
    revoked_for   text CHECK (revoked_for IN ('logout', 'reuse')),
    CHECK ((revoked_at IS NULL) = (revoked_for IS NULL))
);
CREATE INDEX families_by_user ON families (user_name) WHERE revoked_at IS NULL;
CREATE INDEX families_by_expiry ON families (expires_at);

-- Tokens are kept as SHA-256 only. The successor of a used one is kept sealed with the used one itself, so that a client whose answer was
-- lost can be given the same successor again, and a copy of this table is worth nothing.
CREATE TABLE refresh_tokens (
    hash       bytea PRIMARY KEY CHECK (length(hash) = 32),
    family     uuid NOT NULL REFERENCES families (id) ON DELETE CASCADE,
    number     integer NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz,
    sealed     bytea,
    UNIQUE (family, number),
    CHECK ((used_at IS NULL) = (sealed IS NULL))
);

-- A key is published when it is there, signs from active_at on, and is deleted when no token of it can be alive.
CREATE TABLE signing_keys (
    kid        text PRIMARY KEY,
    private    text NOT NULL,
    active_at  timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
