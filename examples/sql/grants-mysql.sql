-- The connector's user on MySQL 8 and 9: this and no more (tried on 9.7). Replace pins_00000 by each shard's database.
CREATE USER 'cdc'@'%' IDENTIFIED BY 'PASSWORD';

-- Snapshots, backfills and the proof read the tables.
GRANT SELECT ON pins_00000.* TO 'cdc'@'%';
-- The binlog is read as replicas read it.
GRANT REPLICATION SLAVE ON *.* TO 'cdc'@'%';
-- Where the binlog begins and ends, and how far a replica is behind.
GRANT REPLICATION CLIENT ON *.* TO 'cdc'@'%';
-- Which XA transactions are prepared: their rows are in the binlog, and may yet be rolled back.
GRANT XA_RECOVER_ADMIN ON *.* TO 'cdc'@'%';
