// Package pg is how a service uses PostgreSQL: it opens the pool, migrates, sorts errors into classes and runs units of
// work.
//
// A step of the platform costs round trips and plan starts, not rows, so a Unit is built of two pipelines. What is queued
// by Read (locks first, then reads) goes out together with BEGIN; what is queued by Write goes out together with COMMIT.
// Because COMMIT is already on its way when the server looks at a guard, a guard cannot be a row count that somebody
// compares afterwards: Guard makes the statement itself fail with SQLSTATE 40001 (serialization_failure), and Do runs the
// unit again with what is true then.
//
// Lock order, in every unit of every service, is: aggregates by id, then products (or whatever is shared between
// aggregates) by id over the whole batch, then upserts by sorted key. That is what keeps 40P01 away.
package pg
