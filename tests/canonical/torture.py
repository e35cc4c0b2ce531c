"""The torture tables: every column type of an engine, and how to fill it."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

from tests.canonical import values as v
from tests.canonical.values import Make

_EPOCH, _END = datetime(1970, 1, 2, tzinfo=UTC), datetime(2038, 1, 18, tzinfo=UTC)


def _wkt(rng: random.Random) -> str:
    def pair() -> str:
        return f"{v.coordinate(rng)} {v.coordinate(rng)}"

    return rng.choice(
        (
            f"POINT({pair()})",
            f"LINESTRING({pair()},{pair()})",
            "POLYGON((0 0,1 0,1 1,0 0))",
            f"MULTIPOINT({pair()},{pair()})",
            f"GEOMETRYCOLLECTION(POINT({pair()}),LINESTRING(0 0,1 1))",
        )
    )


# Column name to (type, values). Names are odd on purpose here and there.
MARIADB: dict[str, tuple[str, Make]] = {
    "ti": ("TINYINT", v.integer(8)),
    "bo": ("TINYINT(1)", v.integer(8)),
    "tiu": ("TINYINT UNSIGNED", v.integer(8, unsigned=True)),
    "si": ("SMALLINT", v.integer(16)),
    "siu": ("SMALLINT UNSIGNED", v.integer(16, unsigned=True)),
    "mi": ("MEDIUMINT", v.integer(24)),
    "miu": ("MEDIUMINT UNSIGNED", v.integer(24, unsigned=True)),
    "i": ("INT", v.integer(32)),
    "iu": ("INT UNSIGNED", v.integer(32, unsigned=True)),
    "iz": ("INT(8) ZEROFILL", v.integer(32, unsigned=True)),
    "bi": ("BIGINT", v.integer(64)),
    "biu": ("BIGINT UNSIGNED", v.integer(64, unsigned=True)),
    "de": ("DECIMAL(10,2)", v.decimal(10, 2)),
    "de0": ("DECIMAL(10,0)", v.decimal(10, 0)),
    "de65": ("DECIMAL(65,30)", v.decimal(65, 30)),
    "deu": ("DECIMAL(20,5) UNSIGNED", v.decimal(20, 5, unsigned=True)),
    "dez": ("DECIMAL(12,4) ZEROFILL", v.decimal(12, 4, unsigned=True)),
    "fl": ("FLOAT", v.single()),
    "db": ("DOUBLE", v.double()),
    "fl73": ("FLOAT(7,3)", v.decimal(7, 3)),
    "db104": ("DOUBLE(10,4)", v.decimal(10, 4)),
    "b1": ("BIT(1)", v.integer(1, unsigned=True)),
    "b8": ("BIT(8)", v.integer(8, unsigned=True)),
    "b13": ("BIT(13)", v.integer(13, unsigned=True)),
    "b64": ("BIT(64)", v.integer(64, unsigned=True)),
    "ch": ("CHAR(10)", v.filled(10)),
    "vc": ("VARCHAR(100)", v.text(100)),
    "vl": ("VARCHAR(100) CHARACTER SET latin1", v.text(100, v._LATIN, odd=False)),
    "vu": ("VARCHAR(60) CHARACTER SET ucs2", v.text(60, odd=False)),
    "v3": ("VARCHAR(60) CHARACTER SET utf8mb3", v.text(60, odd=False)),
    "vb4": ("VARCHAR(60) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", v.text(60)),
    "tt": ("TINYTEXT", v.text(60)),
    "te": ("TEXT", v.text(200)),
    "mt": ("MEDIUMTEXT", v.text(200)),
    "lt": ("LONGTEXT", v.text(200)),
    "bin": ("BINARY(8)", v.binary(8, exact=True)),
    "vbin": ("VARBINARY(20)", v.binary(20)),
    "tb": ("TINYBLOB", v.binary(60)),
    "bl": ("BLOB", v.binary(60)),
    "mb": ("MEDIUMBLOB", v.binary(60)),
    "lb": ("LONGBLOB", v.binary(60)),
    "en": ("ENUM('a','b,c','d''e','ü','x y')", v.choice("a", "b,c", "d'e", "ü", "x y")),
    "se": ("SET('x','y','z')", v.choice("", "x", "x,z", "x,y,z")),
    "da": ("DATE", v.day()),
    "t0": ("TIME", v.clock(0, 838, signed=True)),
    "t3": ("TIME(3)", v.clock(3, 837, signed=True)),
    "t6": ("TIME(6)", v.clock(6, 837, signed=True)),
    "dt0": ("DATETIME", v.moment(0)),
    "dt3": ("DATETIME(3)", v.moment(3)),
    "dt6": ("DATETIME(6)", v.moment(6)),
    "ts0": ("TIMESTAMP NULL", v.moment(0, _EPOCH, _END)),
    "ts1": ("TIMESTAMP(1) NULL", v.moment(1, _EPOCH, _END)),
    "ts3": ("TIMESTAMP(3) NULL", v.moment(3, _EPOCH, _END)),
    "ts6": ("TIMESTAMP(6) NULL", v.moment(6, _EPOCH, _END)),
    "ye": ("YEAR", lambda rng: rng.randint(1901, 2155)),
    "js": ("JSON", v.json_text),
    "uu": ("UUID", v.uuid_text),
    "pt": ("POINT", lambda rng: f"POINT({v.coordinate(rng)} {v.coordinate(rng)})"),
    "ge": ("GEOMETRY", _wkt),
    "nd": ("INT NULL DEFAULT 5", v.integer(32)),
    "inv": ("INT INVISIBLE", v.integer(32)),
    "strange`name\"'\\\\%": ("VARCHAR(20)", v.text(20)),
    "größe": ("INT", v.integer(32)),
}
MARIADB_DERIVED = {
    "gv": "INT GENERATED ALWAYS AS (si+1) VIRTUAL",
    "gs": "INT GENERATED ALWAYS AS (si+2) STORED",
    "nn": "TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)",
}
# MySQL has no UUID, and a snapshot of DECIMAL ZEROFILL stops its connector.
MYSQL = {name: made for name, made in MARIADB.items() if name not in ("uu", "dez")}
MARIADB_GEOMETRIES = ("pt", "ge")


def _array(element: Make, *, nulls: float = 0.1) -> Make:
    def make(rng: random.Random) -> list[Any]:
        return [None if rng.random() < nulls else element(rng) for _ in range(rng.randint(0, 4))]

    return make


def _interval(rng: random.Random) -> str:
    parts = [f"{rng.randint(-20, 20)} {unit}" for unit in ("years", "mons", "days", "hours", "mins")]
    parts.append(f"{rng.choice((0, 5, rng.uniform(-60, 60))):.6f} secs")
    return " ".join(rng.sample(parts, rng.randint(1, len(parts))))


def _range(low: int, high: int, show: Any = str) -> Make:
    def make(rng: random.Random) -> str:
        first, last = sorted((rng.randint(low, high), rng.randint(low, high)))
        return rng.choice(
            ("empty", "(,)", f"[{show(first)},{show(last)})", f"({show(first)},]", f"[{show(first)},{show(last)}]")
        )

    return make


def _at(hours: int) -> str:
    return datetime.fromtimestamp(hours * 3600 + hours % 7 * 0.125, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _shape(kind: str) -> Make:
    def make(rng: random.Random) -> str:
        pair = [f"({x!r},{y!r})" for x, y in v.points(4, rng)]
        if kind == "point":
            return pair[0]
        if kind == "line":
            return f"{{{rng.uniform(1, 9)!r},{rng.uniform(-9, 9)!r},{rng.uniform(-9, 9)!r}}}"
        if kind == "circle":
            return f"<{pair[0]},{abs(v.coordinate(rng))!r}>"
        if kind == "path":
            inner = ",".join(pair[: rng.randint(1, 4)])
            return rng.choice((f"[{inner}]", f"({inner})"))
        if kind == "polygon":
            return f"({','.join(pair[: rng.randint(1, 4)])})"
        return f"({pair[0]},{pair[1]})" if kind == "box" else f"[{pair[0]},{pair[1]}]"

    return make


def _hstore(rng: random.Random) -> dict[str, Any]:
    words = v.text(12)
    return {words(rng): None if rng.random() < 0.2 else words(rng) for _ in range(rng.randint(0, 4))}


_WEIRD = ("NaN", "Infinity", "-Infinity")
POSTGRES: dict[str, tuple[str, Make]] = {
    "si": ("smallint", v.integer(16)),
    "i": ("int", v.integer(32)),
    "bi": ("bigint", v.integer(64)),
    "oi": ("oid", v.integer(32, unsigned=True)),
    "re": ("real", v.single(special=_WEIRD)),
    "dp": ("double precision", v.double(special=_WEIRD)),
    "nu": ("numeric", lambda rng: rng.choice((*_WEIRD, v.decimal(60, 25)(rng), "1e20", "1e-9", v.decimal(5, 0)(rng)))),
    "nu2": ("numeric(12,3)", lambda rng: rng.choice(("NaN", *(v.decimal(12, 3)(rng) for _ in range(9))))),
    "nu0": ("numeric(20,0)", v.decimal(20, 0)),
    "nun": ("numeric(7,-2)", v.decimal(7, 0)),
    "mo": ("money", v.decimal(12, 2)),
    "bo": ("boolean", v.choice(True, False)),
    "ch": ("char(10)", v.filled(10)),
    "vc": ("varchar(300)", v.text(200)),
    "te": ("text", v.text(200)),
    "qc": ('"char"', v.choice("a", "b", "0", '"', "\\")),
    "na": ("name", v.text(15, odd=False)),
    "ci": ("citext", v.text(40)),
    "by": ("bytea", v.binary(60)),
    "da": ("date", v.day()),
    "t0": ("time(0)", v.clock(0, 23, signed=False)),
    "t3": ("time(3)", v.clock(3, 23, signed=False)),
    "t6": ("time", v.clock(6, 23, signed=False)),
    "tz": ("timetz", lambda rng: v.clock(6, 23, signed=False)(rng) + rng.choice(("+00", "+05:30", "-11"))),
    "tz0": ("timetz(0)", lambda rng: v.clock(0, 23, signed=False)(rng) + rng.choice(("+00", "+05:30"))),
    "ts0": ("timestamp(0)", v.moment(0)),
    "ts3": ("timestamp(3)", v.moment(3)),
    "ts6": ("timestamp", lambda rng: rng.choice(("infinity", "-infinity", *(v.moment(6)(rng) for _ in range(9))))),
    "sz0": ("timestamptz(0)", v.moment(0)),
    "sz2": ("timestamptz(2)", v.moment(2)),
    "sz3": ("timestamptz(3)", v.moment(3)),
    "sz6": (
        "timestamptz",
        lambda rng: rng.choice(
            ("infinity", "-infinity", "12024-01-01 00:00:00.5+00", *(v.moment(6)(rng) + "+02" for _ in range(17)))
        ),
    ),
    "iv": ("interval", _interval),
    "uu": ("uuid", v.uuid_text),
    "js": ("json", lambda rng: v.json_text(rng).replace("\\u0000", "")),
    "jb": ("jsonb", lambda rng: v.json_text(rng).replace("\\u0000", "")),
    "xm": ("xml", v.choice("<a>é</a>", "<b/>", "x &amp; y", '<c d="1">\n</c>')),
    "ine": ("inet", v.choice("10.0.0.1/24", "10.0.0.1", "2001:db8::1", "::ffff:1.2.3.4/120")),
    "cid": ("cidr", v.choice("10.0.0.0/8", "2001:db8::/32")),
    "mac": ("macaddr", v.choice("08:00:2b:01:02:03", "FF-FF-FF-00-00-01")),
    "mac8": ("macaddr8", v.choice("08:00:2b:01:02:03:04:05")),
    "b1": ("bit(1)", v.choice("0", "1")),
    "b8": ("bit(8)", lambda rng: f"{rng.randint(0, 255):08b}"),
    "b13": ("bit(13)", lambda rng: f"{rng.randint(0, 8191):013b}"),
    "vb": ("bit varying(70)", lambda rng: f"1{rng.getrandbits(rng.randint(1, 60)):b}"),
    "r4": ("int4range", _range(-1000, 1000)),
    "r8": ("int8range", _range(-(10**15), 10**15)),
    "rn": ("numrange", _range(-1000, 1000, lambda value: f"{value}.5")),
    "rt": ("tsrange", _range(0, 400_000, _at)),
    "rz": ("tstzrange", _range(0, 400_000, lambda value: _at(value) + "+03")),
    "rd": ("daterange", _range(0, 300, lambda value: _at(value * 24)[:10])),
    "mr": ("int4multirange", v.choice("{[1,3),[5,7)}", "{}", "{[-5,100)}")),
    "pt": ("point", _shape("point")),
    "li": ("line", _shape("line")),
    "ls": ("lseg", _shape("lseg")),
    "bx": ("box", _shape("box")),
    "pa": ("path", _shape("path")),
    "po": ("polygon", _shape("polygon")),
    "cr": ("circle", _shape("circle")),
    "tv": ("tsvector", v.choice("'a':1 'b':2A", "'it''s'", "")),
    "tq": ("tsquery", v.choice("'a' & 'b'", "!'c'")),
    "hs": ("hstore", _hstore),
    "lt": ("ltree", v.choice("a.b.c", "Top", "")),
    "en": ("mood", v.choice("sad", "ok,x", "hap'py", 'q"u\\o')),
    "dom": ("posint", lambda rng: rng.randint(1, 9999)),
    "dt": ("dtxt", v.text(10, odd=False)),
    "cmp": ("comp", v.choice('(1,"a b")', "(,)", '(2,"q""x")')),
    "lsn": ("pg_lsn", v.choice("16/B374D848", "0/0")),
    "x8": ("xid8", v.choice("123", "18446744073709551615")),
    "snap": ("pg_snapshot", v.choice("10:20:10,14", "1:1:")),
    "jp": ("jsonpath", v.choice("$.a", '$."a b"[*]')),
    "ai": ("int[]", _array(v.integer(32))),
    "ab": ("bigint[]", _array(v.integer(64))),
    "as_": ("smallint[]", _array(v.integer(16))),
    "at": ("text[]", _array(v.text(40))),
    "av": ("varchar(100)[]", _array(v.text(90))),
    "an": ("numeric(9,2)[]", _array(v.decimal(9, 2))),
    "abo": ("boolean[]", _array(v.choice(True, False))),
    "ats": ("timestamp[]", _array(v.moment(6))),
    "atz": ("timestamptz[]", _array(v.moment(6))),
    "ada": ("date[]", _array(v.day())),
    "au": ("uuid[]", _array(v.uuid_text)),
    "aj": ("jsonb[]", _array(lambda rng: v.json_text(rng).replace("\\u0000", ""))),
    "af": ("float8[]", _array(v.double(special=_WEIRD))),
    "ar": ("real[]", _array(v.single(special=_WEIRD))),
    "aby": ("bytea[]", _array(v.binary(30))),
    # A NULL in an array of an ENUM kills the task (Debezium 3.7.0).
    "aen": ("mood[]", _array(v.choice("sad", "ok,x", "hap'py"), nulls=0)),
    "ain": ("inet[]", _array(v.choice("10.0.0.1", "2001:db8::1/64"))),
    "atm": ("time[]", _array(v.clock(6, 23, signed=False))),
    "ac": ("char(3)[]", _array(v.filled(3))),
    "nd": ("int default 5", v.integer(32)),
    "strange\"name'\\%": ("text", v.text(20)),
    "größe": ("int", v.integer(32)),
}
POSTGRES_TYPES = (
    "CREATE EXTENSION citext",
    "CREATE EXTENSION hstore",
    "CREATE EXTENSION ltree",
    "CREATE TYPE mood AS ENUM ('sad', 'ok,x', 'hap''py', 'q\"u\\o')",
    "CREATE DOMAIN posint AS int CHECK (value > 0)",
    "CREATE DOMAIN dtxt AS varchar(10)",
    "CREATE TYPE comp AS (a int, b text)",
)
