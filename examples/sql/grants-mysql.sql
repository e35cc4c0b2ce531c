-- The connector's user on MySQL 8 and 9: this and no more. No test holds yet that it is enough and needed; the tests on
-- MySQL 9.7 run with more rights.
CREATE USER 'cdc'@'%' IDENTIFIED BY 'PASSWORD';

-- Snapshots, backfills and the proof read the tables.
GRANT SELECT ON pins_00000.* TO 'cdc'@'%';
-- The binlog is read as replicas read it.
GRANT REPLICATION SLAVE ON *.* TO 'cdc'@'%';
-- Where the binlog begins and ends, and how far a replica is behind.
GRANT REPLICATION CLIENT ON *.* TO 'cdc'@'%';
-- Which XA transactions are prepared: their rows are in the binlog, and may yet be rolled back.
GRANT XA_RECOVER_ADMIN ON *.* TO 'cdc'@'%';
