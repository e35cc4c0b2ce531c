#!/bin/sh
# Accounts of both servers, outside the binlog: so both histories begin empty,
# and the replica can follow from the start.
set -eu
value() { sed -n "s/^$2=//p" "/run/secrets/$1.properties"; }
MYSQL_PWD=$(cat /run/secrets/mariadb-root)
export MYSQL_PWD
mariadb --user=root <<SQL
SET SESSION sql_log_bin = 0;
CREATE OR REPLACE USER '$(value mariadb user)'@'%' IDENTIFIED BY '$(value mariadb password)';
GRANT SELECT, SHOW DATABASES, REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR ON *.* TO '$(value mariadb user)'@'%';
CREATE OR REPLACE USER '$(value mariadb-replication user)'@'%' IDENTIFIED BY '$(value mariadb-replication password)';
GRANT REPLICATION SLAVE ON *.* TO '$(value mariadb-replication user)'@'%';
RESET MASTER;
SQL
