#!/bin/sh
# Runs once when the data directory is empty: a database per service, on one server.
set -eu
for name in gateway order payment inventory shipping notification metrics-processor analytics; do
	psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres -c "CREATE DATABASE \"$name\""
done
# `waybill verify` reads with a role that may read everything and change nothing.
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres -v password="${AUDITOR_PASSWORD:-waybill-auditor}" <<'SQL'
CREATE ROLE waybill_auditor LOGIN PASSWORD :'password' IN ROLE pg_read_all_data;
ALTER ROLE waybill_auditor SET default_transaction_read_only = on;
SQL
