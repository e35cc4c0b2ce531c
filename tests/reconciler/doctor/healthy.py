"""Two schemas as samples have them: a lending library of films, and a shop with customers and invoices."""

from __future__ import annotations

from cdc_platform.model.topology import Engine

_LENDING_BINLOG = [
    "CREATE TABLE language (language_id TINYINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, name CHAR(20) NOT NULL,"
    " last_update TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP)",
    "CREATE TABLE actor (actor_id SMALLINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,"
    " first_name VARCHAR(45) NOT NULL, last_name VARCHAR(45) NOT NULL, KEY by_name (last_name))",
    "CREATE TABLE film (film_id SMALLINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, title VARCHAR(255) NOT NULL,"
    " description TEXT, language_id TINYINT UNSIGNED NOT NULL, length SMALLINT UNSIGNED, rental_rate DECIMAL(4,2)"
    " NOT NULL DEFAULT 4.99, rating ENUM('G', 'PG', 'R') DEFAULT 'G', features SET('Trailers', 'Scenes'),"
    " CONSTRAINT of_language FOREIGN KEY (language_id) REFERENCES language (language_id) ON DELETE RESTRICT)",
    "CREATE TABLE film_actor (actor_id SMALLINT UNSIGNED NOT NULL, film_id SMALLINT UNSIGNED NOT NULL,"
    " PRIMARY KEY (actor_id, film_id), CONSTRAINT of_film FOREIGN KEY (film_id) REFERENCES film (film_id))",
    "CREATE TABLE film_text (film_id SMALLINT UNSIGNED NOT NULL PRIMARY KEY, title VARCHAR(255) NOT NULL,"
    " description TEXT, FULLTEXT KEY words (title, description))",
    "CREATE TRIGGER film_added AFTER INSERT ON film FOR EACH ROW"
    " INSERT INTO film_text VALUES (NEW.film_id, NEW.title, NEW.description)",
    "CREATE VIEW titles AS SELECT title FROM film",
]
_SHOP_BINLOG = [
    "CREATE TABLE customer (customer_id BIGINT NOT NULL PRIMARY KEY, email VARCHAR(190) NOT NULL UNIQUE,"
    " born DATE, credit DOUBLE, active BOOLEAN NOT NULL DEFAULT TRUE, photo MEDIUMBLOB) DEFAULT CHARSET = utf8mb4",
    "CREATE TABLE invoice (invoice_id BIGINT NOT NULL PRIMARY KEY, customer_id BIGINT NOT NULL,"
    " at DATETIME(6) NOT NULL, total DECIMAL(12,2) NOT NULL, net DECIMAL(12,2) AS (total / 1.19) STORED,"
    " CHECK (total >= 0),"
    " CONSTRAINT of_customer FOREIGN KEY (customer_id) REFERENCES customer (customer_id))",
    "CREATE TABLE invoice_line (invoice_id BIGINT NOT NULL, line INT NOT NULL, sku VARCHAR(40) NOT NULL,"
    " amount INT UNSIGNED NOT NULL, PRIMARY KEY (invoice_id, line), KEY by_sku (sku(8)))",
]
_LENDING_POSTGRES = [
    "CREATE TABLE language (language_id serial PRIMARY KEY, name char(20) NOT NULL)",
    "CREATE TYPE rating AS ENUM ('G', 'PG', 'R')",
    "CREATE DOMAIN score AS integer CHECK (VALUE BETWEEN 1 AND 10)",
    "CREATE TABLE actor (actor_id serial PRIMARY KEY, first_name text NOT NULL, last_name text NOT NULL)",
    "CREATE TABLE film (film_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text NOT NULL, description text,"
    " language_id int NOT NULL REFERENCES language ON DELETE CASCADE, rated rating DEFAULT 'G', scored score,"
    " rate numeric(4,2) NOT NULL DEFAULT 4.99, features text[], fulltext tsvector, updated timestamptz DEFAULT now())",
    "CREATE TABLE film_actor (actor_id int REFERENCES actor, film_id bigint REFERENCES film ON UPDATE CASCADE,"
    " PRIMARY KEY (actor_id, film_id))",
    "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.updated = now(); RETURN NEW; END'",
    "CREATE TRIGGER touched BEFORE UPDATE ON film FOR EACH ROW EXECUTE FUNCTION touch()",
    "CREATE VIEW titles AS SELECT title FROM film",
    "CREATE INDEX words ON film USING gin (fulltext)",
    *(f"ALTER TABLE {name} REPLICA IDENTITY FULL" for name in ("language", "actor", "film")),
]
_SHOP_POSTGRES = [
    "CREATE TABLE customer (customer_id uuid PRIMARY KEY, email varchar(190) NOT NULL, born date, credit float8,"
    " active boolean NOT NULL DEFAULT true, photo bytea, address inet, settings jsonb)",
    "CREATE UNIQUE INDEX by_email ON customer (lower(email))",
    "CREATE TABLE invoice (invoice_id bigint PRIMARY KEY, customer_id uuid NOT NULL REFERENCES customer,"
    " at timestamptz NOT NULL, total numeric(12,2) NOT NULL CHECK (total >= 0), span interval)",
    "CREATE TABLE invoice_line (invoice_id bigint REFERENCES invoice, line int, sku varchar(40) NOT NULL,"
    " amount int NOT NULL, PRIMARY KEY (invoice_id, line))",
    "CREATE PUBLICATION of_somebody_else FOR TABLE customer",
    *(f"ALTER TABLE {name} REPLICA IDENTITY FULL" for name in ("customer", "invoice", "invoice_line")),
]

LENDING = {Engine.MARIADB: _LENDING_BINLOG, Engine.MYSQL: _LENDING_BINLOG, Engine.POSTGRES: _LENDING_POSTGRES}
SHOP = {Engine.MARIADB: _SHOP_BINLOG, Engine.MYSQL: _SHOP_BINLOG, Engine.POSTGRES: _SHOP_POSTGRES}
