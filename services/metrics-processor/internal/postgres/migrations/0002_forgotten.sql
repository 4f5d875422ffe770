-- +goose Up
-- The number of a series that was idle is given to another: in panes before born, it stood for another.
ALTER TABLE series ADD COLUMN born bigint NOT NULL DEFAULT 0;
-- What such series had counted.
ALTER TABLE instances ADD COLUMN forgotten_series bigint NOT NULL DEFAULT 0, ADD COLUMN forgotten_samples bigint NOT NULL DEFAULT 0;
