-- The tables of one shard database of the demo's dataset `orders` (Postgres).
CREATE TABLE orders (
  id          bigint         PRIMARY KEY,
  customer    uuid           NOT NULL,
  status      text           NOT NULL CHECK (status IN ('open', 'paid', 'shipped', 'cancelled')),
  total       numeric(14, 2) NOT NULL,
  currency    char(3)        NOT NULL,
  tags        text[]         NOT NULL DEFAULT '{}',
  details     jsonb          NULL,
  note        text           NULL,
  placed_at   timestamptz    NOT NULL,
  updated_at  timestamptz    NOT NULL DEFAULT clock_timestamp(),
  revision    bigint         NOT NULL
);

CREATE TABLE order_items (
  order_id    bigint         NOT NULL,
  line        integer        NOT NULL,
  sku         text           NOT NULL,
  quantity    integer        NOT NULL,
  unit_price  numeric(12, 4) NOT NULL,
  gift        boolean        NOT NULL DEFAULT false,
  deliver_on  date           NULL,
  updated_at  timestamptz    NOT NULL DEFAULT clock_timestamp(),
  revision    bigint         NOT NULL,
  PRIMARY KEY (order_id, line)
);

-- The whole old row in each update and delete: what the proof and unchanged large values need.
ALTER TABLE orders REPLICA IDENTITY FULL;
ALTER TABLE order_items REPLICA IDENTITY FULL;
