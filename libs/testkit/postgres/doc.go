// Package postgres runs a private PostgreSQL server: for one test process, or for
// the development stack that "waybill up" starts.
//
// It uses the machine's own binaries where they are 15 or later, and otherwise
// fetches a portable build once. PostgreSQL refuses to run as root, so there the
// server runs as an unprivileged user that owns its data and nothing else.
//
// A server never outlives the process that started it, not even after kill -9: a
// guard, a shell that waits for the end of a pipe whose other end only that process
// holds, then shuts the server down (and removes its directory, where it is a
// temporary one). The guard works on every Unix and needs no goroutine here, which
// matters to tests that count them.
package postgres
