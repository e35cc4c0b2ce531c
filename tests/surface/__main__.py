"""`python -m tests.surface`: record the surface anew. Look at the difference before it is committed."""

from __future__ import annotations

from tests.surface.golden import FOLDER
from tests.surface.recorded import surface


def main() -> None:
    found = surface()
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        if old.name not in found:
            old.unlink()
    for name, text in found.items():
        (FOLDER / name).write_text(text)
    print(f"{len(found)} files in {FOLDER}")


if __name__ == "__main__":
    main()
