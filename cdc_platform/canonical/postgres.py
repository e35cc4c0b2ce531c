"""Postgres' column types: SQL and wire.

The session must have `TimeZone = UTC`, `DateStyle = ISO`, `bytea_output = hex`
and `standard_conforming_strings = on`, and search no schema but pg_catalog. Values of types that the owner of
a database can make (enums, composites) are never cast: casts from them can be functions of that owner.
What each type looks like on the wire was read from Debezium Postgres 3.7.0,
streaming (pgoutput) and in a snapshot, on Postgres 17.
"""

from __future__ import annotations

from cdc_platform.canonical import wire_values as wire
from cdc_platform.canonical.columns import Column, Fidelity, Form, Normaliser

_NUMBERS = {"int2", "int4", "int8", "oid"}
_TEXTS = {
    "varchar", "text", "name", "char", "citext", "xml", "uuid", "json", "jsonb", "cidr", "macaddr", "macaddr8",
    "ltree", "tsvector", "int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange",
}  # fmt: skip
# Debezium writes the text of types that it does not know as bytes. Not here: `regclass` and its like, whose text
# depends on what the session of each side searches.
UNKNOWN_TYPES = {
    "tsquery", "pg_lsn", "xid", "xid8", "pg_snapshot", "txid_snapshot", "jsonpath", "regrole", "regnamespace",
    "tid", "cid", "int4multirange", "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange",
    "datemultirange",
}  # fmt: skip
_GEOMETRIES: dict[str, tuple[str, Normaliser]] = {
    "point": ("point_send", wire.pg_point),
    "line": ("line_send", wire.pg_line),
    "lseg": ("lseg_send", wire.pg_lseg),
    "box": ("box_send", wire.pg_box),
    "path": ("path_send", wire.pg_path),
    "circle": ("circle_send", wire.pg_circle),
}

# The first microsecond of which Debezium's 64 bits hold no sum since 1970.
_OVERFLOW = "timestamp '294247-01-10 04:00:54.775808'"


def geometric(kind: str) -> Normaliser | None:
    """From the wire's object of a geometric type to the bytes of its send function in hex; None for other types."""
    if kind == "polygon":
        return wire.pg_polygon
    found = _GEOMETRIES.get(kind)
    return None if found is None else found[1]


def quoted(x: str) -> str:
    """A string token."""
    # Bytes are replaced faster than characters, and both are one byte in every encoding of a server.
    return rf"""('"'||replace(replace(({x}) COLLATE "C",'\','\\'),'"','\"')||'"')"""


def _plain(x: str) -> str:
    return f"""('"'||{x}||'"')"""


def by_output(x: str) -> str:
    """A value as its type's output function writes it, NULL for NULL; no cast is looked for."""
    # A composite of nothing but NULLs is NULL to IS NULL, and not to num_nulls().
    return f"nullif(concat({x},''),case when num_nulls({x})=1 then '' end)"


def form(column: Column) -> Form | None:
    """How a column becomes canonical; None when its type cannot be proven."""
    if column.kind == "array":
        return _array(column)
    if column.kind == "enum":
        return Form(sql=lambda x: quoted(by_output(x)))
    if column.kind == "composite":
        return Form(sql=lambda x: _bytes(by_output(x)))
    return _base(column)


def _base(column: Column) -> Form | None:
    kind = column.type
    if kind in _NUMBERS:
        return Form(sql=lambda x: f"{x}::text")
    if kind == "bool":
        return Form(sql=lambda x: f"{x}::text")
    if kind == "float8":
        return Form(sql=lambda x: _plain(f"encode(float8send({x}),'hex')"), wire=wire.float64_hex)
    if kind == "float4":
        return Form(sql=lambda x: _plain(f"encode(float4send({x}),'hex')"), wire=wire.float32_hex)
    if kind == "numeric":
        return _numeric(column)
    if kind == "money":
        return Form(sql=lambda x: _plain(f"{x}::numeric::text"))
    if kind in ("bpchar", "inet"):
        # A cast to text strips char(n) and adds a mask to inet.
        return Form(sql=lambda x: quoted(by_output(x)))
    if kind in _TEXTS:
        # In a range, tstzrange above all, the text is in the time zone of the session that wrote it.
        normalised = kind in ("tstzrange",)
        return Form(
            sql=lambda x: quoted(f"{x}::text"),
            fidelity=Fidelity.NORMALISED if normalised else Fidelity.EXACT,
        )
    if kind == "bytea":
        return Form(sql=lambda x: _plain(f"encode({x},'hex')"))
    if kind == "hstore":
        return Form(sql=_hstore, wire=wire.hstore)
    if kind == "bit" and column.length == 1:
        return Form(sql=lambda x: f"CASE {x} WHEN B'1' THEN 'true' WHEN B'0' THEN 'false' END")
    if kind in ("bit", "varbit"):
        return Form(sql=lambda x: _plain(f"ltrim({x}::text,'0')"), wire=wire.bits_as_text, fidelity=Fidelity.NORMALISED)
    if kind in _GEOMETRIES:
        send, normaliser = _GEOMETRIES[kind]
        return Form(sql=lambda x: _plain(f"encode({send}({x}),'hex')"), wire=normaliser, scalar=False)
    if kind == "polygon":
        return Form(sql=_polygon, wire=wire.pg_polygon, scalar=False, fidelity=Fidelity.NORMALISED)
    if kind in UNKNOWN_TYPES:
        return Form(sql=lambda x: _bytes(f"{x}::text"))
    return _temporal(column)


def _bytes(text: str) -> str:
    return _plain(f"encode(convert_to({text},'UTF8'),'hex')")


def _polygon(x: str) -> str:
    first = f"('('||split_part(split_part({x}::text,')',1),'((',2)||')')::point"
    last = f"""regexp_replace({x}::text,'^.*\\(([^()]*)\\)\\)$','(\\1)')::point"""
    closed = f"npoints({x})>1 AND ({first})[0]=({last})[0] AND ({first})[1]=({last})[1]"
    corners = f"CASE WHEN {closed} THEN npoints({x})-1 ELSE npoints({x}) END"
    return _plain(f"encode(substr(poly_send({x}),5,16*({corners})),'hex')")


def _numeric(column: Column) -> Form:
    def sql(x: str) -> str:
        special = f"WHEN {x} = 'NaN' THEN '\"NAN\"'"
        if column.length is None:
            special += (
                f" WHEN {x} = 'Infinity' THEN '\"POSITIVE_INFINITY\"'"
                f" WHEN {x} = '-Infinity' THEN '\"NEGATIVE_INFINITY\"'"
            )
        return f"""(CASE {special} ELSE '"'||{x}::text||'"' END)"""

    if column.scale is not None and column.scale < 0:
        # The wire shows a fraction of zeros, as long as the scale is negative modulo 2048.
        return Form(sql=sql, wire=wire.trailing_zeros, fidelity=Fidelity.NORMALISED)
    return Form(sql=sql)


def _hstore(x: str) -> str:
    key = quoted("(e).key")
    value = f"coalesce({quoted('(e).value')},'null')"
    pairs = (
        f"""(SELECT coalesce(string_agg({key}||':'||{value},',' ORDER BY (e).key COLLATE "C"),'')"""
        f" FROM json_each_text({x}::json) e)"
    )
    return f"CASE WHEN {x} IS NOT NULL THEN " + quoted(f"('{{'||{pairs}||'}}')") + " END"


def _temporal(column: Column) -> Form | None:
    kind = column.type
    if kind == "date":
        return Form(
            sql=lambda x: (
                f"CASE {x} WHEN 'infinity' THEN '2146033979' WHEN '-infinity' THEN '-2147472691'"
                f" ELSE ({x}-date '1970-01-01')::text END"
            ),
        )
    if kind == "time":
        return Form(sql=lambda x: f"(extract(epoch from {x})*1000000)::bigint::text")
    if kind == "timetz":
        return Form(sql=lambda x: _plain(f"({x} at time zone 'UTC')::time::text||'Z'"), fidelity=Fidelity.NORMALISED)
    if kind == "timestamp":
        return Form(sql=_timestamp)
    if kind == "timestamptz":
        digits = 6 if column.length is None else column.length
        # The stream pads fractions with zeros, and to_json() does not.
        normaliser, triggers = (wire.zoned_trimmed, (b'0Z"',)) if digits else (None, ())
        return Form(sql=lambda x: _timestamptz(x, digits), wire=normaliser, triggers=triggers)
    if kind == "interval":
        return Form(sql=_interval, wire=wire.interval)
    return None


def _timestamp(x: str) -> str:
    micros = f"extract(epoch from {x})*1000000"
    return (
        f"CASE WHEN {x} < {_OVERFLOW} AND {x} <> '-infinity' THEN ({micros})::bigint::text"
        f" WHEN {x} = 'infinity' THEN '9223372036854775807'"
        f" WHEN {x} = '-infinity' THEN '-9223372036854775808'"
        f" ELSE ({micros}-18446744073709551616)::bigint::text END"
    )


def _timestamptz(x: str, digits: int) -> str:
    # to_json() writes ISO 8601 three times as fast as to_char(), but not of years that have no four digits.
    utc = f"({x} at time zone 'UTC')"
    rest = '-MM-DD"T"HH24:MI:SS' + (f".FF{digits}" if digits else "") + '"Z"'

    def trimmed(text: str) -> str:
        return f"regexp_replace({text},'[.]?0+Z$','Z')" if digits else text

    return (
        f"""CASE WHEN {x} >= '0001-01-01 00:00:00+00' AND {x} < '10000-01-01 00:00:00+00'"""
        f""" THEN replace(to_json({x})::text COLLATE "C",'+00:00"','Z"')"""
        f""" WHEN {x} = 'infinity' THEN '"infinity"' WHEN {x} = '-infinity' THEN '"-infinity"'"""
        f""" WHEN {x} >= '10000-01-01 00:00:00+00'"""
        f""" THEN '"+'||{trimmed(f"to_char({utc},'YYYY{rest}')")}||'"'"""
        # 1 BC is the year 0 of ISO 8601, which is written without a sign.
        f""" ELSE CASE WHEN extract(year from {utc}) = -1 THEN '"0000' ELSE"""
        f""" '"-'||lpad((-1-extract(year from {utc}))::text,4,'0') END||"""
        f"""{trimmed(f"to_char({utc},'{rest}')")}||'"' END"""
    )


def _interval(x: str) -> str:
    fields = (("P", "year", "Y"), ("", "month", "M"), ("", "day", "DT"), ("", "hour", "H"), ("", "minute", "M"))
    parts = "||".join(f"'{before}'||extract({field} from {x})::text||'{after}'" for before, field, after in fields)
    return _plain(f"{parts}||trim_scale(extract(second from {x}))::text||'S'")


def _array(column: Column) -> Form | None:
    if column.element is None:
        return None
    kind, _, rest = column.element.partition(":")
    if kind == "interval":
        return None  # Debezium 3.7.0 writes NULL for it.
    if kind == "time":
        return _times()
    element = form(
        Column(
            name="e", type=kind, kind=rest or "base", length=column.length, scale=column.scale, charset=column.charset
        )
    )
    if element is None:
        return None

    def sql(x: str) -> str:
        items = (
            f"(SELECT '['||coalesce(string_agg(coalesce({element.sql('u.e')},'null'),',' ORDER BY u.o),'')||']'"
            f" FROM unnest({x}) WITH ORDINALITY AS u(e,o))"
        )
        return _of_one_dimension(x, items)

    return Form(
        sql=sql,
        wire=wire.array_of(element.wire) if element.wire else None,
        scalar=False,
        fidelity=element.fidelity,
    )


def _of_one_dimension(x: str, items: str) -> str:
    """Nothing on the wire equals the bounds of an array that is not numbered from one, or has several dimensions:
    the connector drops the bounds, and garbles what has dimensions.
    """
    lost = f"array_ndims({x}) > 1 OR array_lower({x}, 1) <> 1"
    return f"""CASE WHEN {lost} THEN '"'||array_dims({x})||'"' WHEN {x} IS NOT NULL THEN {items} END"""


def _times() -> Form:
    """`time[]`: Debezium 3.7.0 keeps the milliseconds of its elements."""

    def sql(x: str) -> str:
        millis = "(floor(extract(epoch from u.e)*1000)*1000)::bigint::text"
        items = (
            f"(SELECT '['||coalesce(string_agg(coalesce({millis},'null'),',' ORDER BY u.o),'')||']'"
            f" FROM unnest({x}) WITH ORDINALITY AS u(e,o))"
        )
        return _of_one_dimension(x, items)

    return Form(sql=sql, scalar=False, fidelity=Fidelity.NORMALISED)
