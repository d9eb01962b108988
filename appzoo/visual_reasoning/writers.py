"""The result file of NLVR and NLVR2: a line `identifier,True` for each row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from easytransfer.errors import ConfigError


def write_nlvr(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Writes the predictions with the column of the identifiers beside them.

    Raises:
        ConfigError: A column is missing, or an identifier stands there twice or holds a comma.
    """
    seen: set[str] = set()
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            missing = next((name for name in ("identifier", "predictions") if name not in row), None)
            if missing:
                fix = "give --appendCols=identifier" if missing == "identifier" else "leave --outputSchema out"
                raise ConfigError(f"a result file of NLVR needs the column {missing}", received=", ".join(row), fix=fix)
            identifier = str(row["identifier"])
            if identifier in seen or "," in identifier or "\n" in identifier:
                wrong = "an identifier stands there twice" if identifier in seen else "an identifier holds a comma"
                raise ConfigError(f"a result file of NLVR cannot be written: {wrong}", received=identifier)
            seen.add(identifier)
            file.write(f"{identifier},{str(row['predictions']).capitalize()}\n")


WRITERS = {".nlvr.csv": write_nlvr}
