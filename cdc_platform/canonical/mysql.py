"""MySQL's column types, where they differ from MariaDB's."""

from __future__ import annotations

from cdc_platform.canonical import mariadb, mysql_json
from cdc_platform.canonical import wire_values as wire
from cdc_platform.canonical.columns import Column, Fidelity, Form


def form(column: Column) -> Form | None:
    """How a column becomes canonical; None when its type cannot be proven."""
    if column.type == "time":
        # Its TIME_TO_SEC() drops the fraction.
        return Form(sql=lambda x: f"CAST(TIME_TO_SEC({x})*1000000+IF({x}<0,-1,1)*MICROSECOND({x}) AS SIGNED)")
    if column.type in ("float", "double") and column.scale is None:
        # A number as text is cut to the width of a display; as JSON it is not.
        if column.type == "double":
            return Form(sql=_number, wire=wire.mysql_json_double)
        # Times 1e0, and not plus 0, so that -0 keeps its sign.
        return Form(sql=lambda x: _number(f"CONCAT({x})*1e0"), wire=wire.mysql_json_float, fidelity=Fidelity.NORMALISED)
    if column.type == "json":
        return Form(sql=mysql_json.sql, wire=mysql_json.canonical, long=True, fidelity=Fidelity.NORMALISED)
    if column.type in mariadb.GEOMETRIES:
        # Events have a value as it is stored, longitude before latitude; of SRIDs like 4326 it says latitude first.
        return mariadb.geometry("ST_AsWKB({x},'axis-order=long-lat')")
    return mariadb.form(column)


def _number(x: str) -> str:
    return f"CAST(CAST({x} AS JSON) AS CHAR)"
