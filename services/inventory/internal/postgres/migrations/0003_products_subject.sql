-- +goose Up

-- The key is the subject of a product's events, which is what the callers have. IF: of databases in which number 2 was this one.
CREATE UNIQUE INDEX IF NOT EXISTS products_subject ON products ((('stock:' || tenant::text || ':' || product_id) COLLATE "C"));
DROP INDEX IF EXISTS products_key;
