#!/bin/sh
# Replication starts with the server's next start, right after these scripts.
set -eu
value() { sed -n "s/^$2=//p" "/run/secrets/$1.properties"; }
MYSQL_PWD=$(cat /run/secrets/mariadb-root)
export MYSQL_PWD
mariadb --user=root <<SQL
CHANGE MASTER TO MASTER_HOST = 'mariadb-primary', MASTER_PORT = 3306,
  MASTER_USER = '$(value mariadb-replication user)', MASTER_PASSWORD = '$(value mariadb-replication password)',
  MASTER_USE_GTID = slave_pos, MASTER_SSL = 0, MASTER_CONNECT_RETRY = 2;
SQL
