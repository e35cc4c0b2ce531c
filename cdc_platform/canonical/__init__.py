"""One row, the same bytes from both sides.

The canonical row is the JSON object that Debezium puts into `after`, columns in
the table's order, strings escaped by nothing but a backslash before `"` and
backslash. For most columns the wire holds these bytes already, so the topic's
side hashes what it reads; SQL builds the same bytes from the source, so the
database sends hashes. Where the wire has two spellings for one value, both
sides write a third (`Form.wire`).

Public: `Column`, `Shape` (columns.py), `forms` (engines), `RowReader` (rows.py).
"""
