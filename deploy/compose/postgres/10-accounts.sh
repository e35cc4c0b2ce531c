#!/bin/sh
# Accounts, the standby's slot, and the shards of the example's dataset `orders`:
# the connector's user owns the tables, so that it may publish them.
set -eu
value() { sed -n "s/^$2=//p" "/run/secrets/$1.properties"; }
psql --username postgres --set ON_ERROR_STOP=1 <<SQL
CREATE ROLE $(value postgres user) LOGIN REPLICATION PASSWORD '$(value postgres password)';
GRANT pg_read_all_data TO $(value postgres user);
CREATE ROLE $(value postgres-replication user) LOGIN REPLICATION PASSWORD '$(value postgres-replication password)';
SELECT pg_create_physical_replication_slot('stack_standby', true);
SQL
echo "host replication all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
for number in 00000 00001 00002 00003; do
  createdb --username postgres --owner "$(value postgres user)" "orders_$number"
  PGOPTIONS="-c role=$(value postgres user)" \
    psql --username postgres --dbname "orders_$number" --set ON_ERROR_STOP=1 --file /examples/orders.sql
done
