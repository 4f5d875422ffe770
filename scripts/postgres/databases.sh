#!/bin/sh
# Runs once when the data directory is empty: a database per service, on one server.
set -eu
for name in gateway order payment inventory shipping notification metrics-processor analytics; do
	psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres -c "CREATE DATABASE \"$name\""
done
