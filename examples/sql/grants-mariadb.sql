-- The connector's user on MariaDB: this and no more. Once on the leader; replication brings it to the replicas.
-- One user serves connector, proof, preflight and agent. Replace pins_00000 by each shard's database.
CREATE USER 'cdc'@'%' IDENTIFIED BY 'PASSWORD';

-- Snapshots, backfills and the proof read the tables; without it they do not even show.
GRANT SELECT ON pins_00000.* TO 'cdc'@'%';
-- The binlog is read as replicas read it.
GRANT REPLICATION SLAVE ON *.* TO 'cdc'@'%';
-- Where the binlog begins and ends (before 10.5.2: REPLICATION CLIENT).
GRANT BINLOG MONITOR ON *.* TO 'cdc'@'%';
-- Whether a server still follows another, and how far it is behind: preflight, discovery, replica lag.
GRANT SLAVE MONITOR ON *.* TO 'cdc'@'%';
