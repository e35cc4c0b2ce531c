"""One client per outside system; foreign exceptions become ours here."""
