-- The tables of one shard database of the demo's dataset `pins` (MariaDB, MySQL).
CREATE TABLE pins (
  id          BIGINT        NOT NULL PRIMARY KEY,
  board_id    BIGINT        NOT NULL,
  title       VARCHAR(200)  NOT NULL,
  description TEXT          NULL,
  price       DECIMAL(12,2) NULL,
  attributes  JSON          NULL,
  image_hash  BINARY(16)    NOT NULL,
  kind        ENUM('image', 'video', 'idea') NOT NULL DEFAULT 'image',
  is_private  BOOLEAN       NOT NULL DEFAULT FALSE,
  created_at  DATETIME(6)   NOT NULL,
  updated_at  TIMESTAMP(6)  NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  revision    BIGINT        NOT NULL,
  KEY by_board (board_id)
) DEFAULT CHARSET = utf8mb4;

CREATE TABLE boards (
  id          BIGINT        NOT NULL PRIMARY KEY,
  name        VARCHAR(120)  NOT NULL,
  privacy     ENUM('public', 'protected', 'secret') NOT NULL DEFAULT 'public',
  pin_count   INT UNSIGNED  NOT NULL DEFAULT 0,
  cover       BLOB          NULL,
  created_on  DATE          NOT NULL,
  updated_at  TIMESTAMP(6)  NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  revision    BIGINT        NOT NULL
) DEFAULT CHARSET = utf8mb4;
