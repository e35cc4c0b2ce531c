-- The connector's user on Postgres: this and no more. In each shard's database, as the owner of its tables.
-- With `connector: {publication.autocreate.mode: disabled}` in the dataset: the publication is made here.
-- A user that owns the tables may make it itself (the default, `filtered`), and can drop them, too.
-- REPLICATION: the slot is the user's own. It is an attribute of the role, not a grant.
CREATE ROLE cdc LOGIN REPLICATION PASSWORD 'PASSWORD';

-- Needed where PUBLIC was revoked, as it should be.
REVOKE CONNECT ON DATABASE orders_00000 FROM PUBLIC;
GRANT CONNECT ON DATABASE orders_00000 TO cdc;
GRANT USAGE ON SCHEMA public TO cdc;
-- Snapshots, backfills and the proof read the tables.
GRANT SELECT ON TABLE orders TO cdc;
GRANT SELECT ON TABLE order_items TO cdc;

-- The whole old row in each update and delete.
ALTER TABLE orders REPLICA IDENTITY FULL;
ALTER TABLE order_items REPLICA IDENTITY FULL;
-- Its name is the connector's `publication.name` (`cdc-platform plan --json`).
CREATE PUBLICATION cdc_orders_00000 FOR TABLE orders, order_items;
