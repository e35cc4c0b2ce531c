#!/bin/sh
# A standby from the primary's base backup. The backup is taken once: what a
# promotion made of it stays.
set -eu
umask 077
value() { sed -n "s/^$1=//p" /run/secrets/postgres-replication.properties; }
passfile=/var/lib/postgresql/passfile
printf 'postgres-primary:5432:*:%s:%s\n' "$(value user)" "$(value password)" > "$passfile"
if [ ! -d "$PGDATA" ]; then
  rm -rf "$PGDATA.new"
  PGPASSFILE=$passfile pg_basebackup --host postgres-primary --username "$(value user)" \
    --pgdata "$PGDATA.new" --wal-method stream --checkpoint fast
  touch "$PGDATA.new/standby.signal"
  mv "$PGDATA.new" "$PGDATA"
fi
exec postgres -c config_file=/etc/postgresql/postgresql.conf
