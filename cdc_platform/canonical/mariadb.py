"""MariaDB's (and MySQL's) column types: SQL and wire.

The session must have `time_zone = '+00:00'`, `character_set_results = utf8mb4`
and an `sql_mode` without NO_BACKSLASH_ESCAPES. What each type looks like on the
wire was read from Debezium MariaDB 3.5.0, streaming and in a snapshot.
"""

from __future__ import annotations

from cdc_platform.canonical import wire_values as wire
from cdc_platform.canonical.columns import Column, Fidelity, Form

_INTEGERS = {"tinyint", "smallint", "mediumint", "int", "integer", "bigint"}
_TEXTS = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "set", "json"}
_BINARIES = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
GEOMETRIES = {
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
    "geometrycollection", "geomcollection",
}  # fmt: skip


def quoted(x: str) -> str:
    """A string token from a text in utf8mb4.

    Not by REPLACE: MariaDB takes 2.7 s for 300 KB of JSON with it, in time that grows with the square of the length.
    """
    return f"JSON_QUOTE({x})"


def _plain(x: str) -> str:
    return f"""CONCAT('"',{x},'"')"""


def _utf8(x: str) -> str:
    return quoted(f"CONVERT({x} USING utf8mb4)")


def form(column: Column) -> Form | None:
    """How a column becomes canonical; None when its type cannot be proven."""
    kind = column.type
    if kind in _INTEGERS:
        # ZEROFILL pads what CONCAT sees; adding 0 does not.
        return Form(sql=lambda x: f"({x}+0)") if column.zerofill else Form(sql=lambda x: x)
    if kind in ("decimal", "numeric"):
        return Form(sql=lambda x: _plain(f"{x}+0")) if column.zerofill else Form(sql=_plain)
    if kind in ("float", "double"):
        return _floating(column)
    if kind == "bit":
        if column.length == 1:
            return Form(sql=lambda x: f"CASE {x} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END")
        return Form(sql=lambda x: f"({x}+0)", wire=wire.bits_as_number)
    if kind in _TEXTS:
        return Form(sql=quoted if column.charset == "utf8mb4" else _utf8, long=True)
    if kind == "enum":
        return Form(sql=_utf8, wire=wire.enum_commas, triggers=(b"\\",), fidelity=Fidelity.NORMALISED)
    if kind in _BINARIES:
        return Form(sql=lambda x: _plain(f"LOWER(HEX({x}))"), long=True)
    if kind == "uuid":
        return Form(sql=_plain)
    if kind in GEOMETRIES:
        return geometry("ST_AsWKB({x})")
    return _temporal(column)


def geometry(wkb: str) -> Form:
    """How a geometry becomes canonical, whose WKB that SQL gives for `{x}`."""
    return Form(
        sql=lambda x: f"""CONCAT('"',LOWER(HEX({wkb.format(x=x)})),',',ST_SRID({x}),'"')""",
        wire=wire.geometry,
        scalar=False,
        long=True,
        fidelity=Fidelity.NORMALISED,
    )


def _floating(column: Column) -> Form:
    single = column.type == "float"
    if column.scale is not None:
        return Form(sql=lambda x: x, wire=wire.mysql_fixed(column.scale, single), fidelity=Fidelity.NORMALISED)
    if single:
        return Form(sql=lambda x: x, wire=wire.mysql_float, fidelity=Fidelity.NORMALISED)
    return Form(sql=lambda x: x, wire=wire.mysql_double)


def _temporal(column: Column) -> Form | None:
    kind = column.type
    if kind == "date":
        return Form(sql=lambda x: f"(TO_DAYS({x})-719528)", fidelity=Fidelity.NORMALISED)
    if kind == "time":
        return Form(sql=lambda x: f"CAST(TIME_TO_SEC({x})*1000000 AS SIGNED)")
    if kind == "datetime":
        return Form(sql=lambda x: f"TIMESTAMPDIFF(MICROSECOND,'1970-01-01',{x})", fidelity=Fidelity.NORMALISED)
    if kind == "timestamp":
        return _timestamp(column)
    if kind == "year":
        # The stream writes 1900 for the year 0000.
        return Form(sql=lambda x: f"IF({x}=0,1900,{x}+0)", fidelity=Fidelity.NORMALISED)
    return None


def _timestamp(column: Column) -> Form:
    def sql(x: str) -> str:
        # The stream writes the epoch for a zero date, which TIMESTAMP cannot hold otherwise.
        text = f"REPLACE(IF({x}=0,'1970-01-01 00:00:00',{x}),' ','T')"
        if column.length:
            text = f"TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM {text}))"
        return f"""CONCAT('"',{text},'Z"')"""

    if not column.length:
        return Form(sql=sql, fidelity=Fidelity.NORMALISED)
    return Form(sql=sql, wire=wire.zoned_trimmed, triggers=(b'0Z"',), fidelity=Fidelity.NORMALISED)
