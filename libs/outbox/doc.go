// Package outbox publishes events exactly when the transaction that caused them commits.
package outbox
