#!/bin/sh
# The shards of the example's dataset `pins`.
set -eu
MYSQL_PWD=$(cat /run/secrets/mariadb-root)
export MYSQL_PWD
for number in 00000 00001 00002 00003 00004 00005 00006 00007; do
  mariadb --user=root --execute="CREATE DATABASE pins_$number"
  mariadb --user=root "pins_$number" < /examples/pins.sql
done
