-- +goose Up

-- The address that the order was made with, where a person has corrected it since: the answer to the request that made the
-- order is given again as it was.
ALTER TABLE orders ADD COLUMN first_address jsonb;
