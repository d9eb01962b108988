"""What happens to rows that cannot be used, and the account of all rows."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from easytransfer.errors import ConfigError, DataError, ResourceError

# Characters of a bad row shown in messages.
SHOWN_CHARACTERS = 80

# How text with tabs and line breaks is written into one TSV cell.
ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})


@dataclass
class RowCount:
    """Rows met so far; `read == accepted + rejected` at any moment."""

    read: int = 0
    accepted: int = 0
    rejected: int = 0

    def nothing_usable(self, table: str, reasons: str = "") -> DataError:
        """Returns the error for a table without a row that could be used.

        Args:
            table: What the user calls it.
            reasons: Kinds of bad rows with their counts.
        """
        if not self.read:
            return DataError(f"table {table} is empty: it has no row", fix="check the path")
        why = f"; {reasons}" if reasons else ""
        return DataError(
            f"no usable row in {table}: {self.read} rows read, {self.rejected} rejected{why}",
            fix="check the path, the delimiter and the schema",
        )


class BadRows:
    """Applies the bad-row policy and counts the reasons.

    Args:
        policy: `fail` stops at the first bad row, `skip` counts it, `quarantine` also appends it to a file.
        limit: Bad rows allowed in total under `skip` and `quarantine`; 0 = any number.
        quarantine_path: TSV with one line `file line column reason text` per bad row, tabs and line breaks in them
            escaped. Each line is appended in one write, so workers on one machine may share the file.

    Raises:
        ConfigError: The policy is unknown, or `quarantine` has no path.
        ResourceError: The quarantine file cannot be written.
    """

    def __init__(
        self,
        policy: Literal["fail", "skip", "quarantine"] = "fail",
        limit: int = 0,
        quarantine_path: str | os.PathLike[str] | None = None,
    ) -> None:
        if policy not in ("fail", "skip", "quarantine"):
            raise ConfigError("unknown bad-row policy", received=policy, accepted=("fail", "skip", "quarantine"))
        self.policy = policy
        self.limit = limit
        self.count = 0
        self.reasons: Counter[str] = Counter()
        self._path: Path | None = None
        self._file: int | None = None
        if policy == "quarantine":
            if quarantine_path is None:
                raise ConfigError("badRows=quarantine needs a file to copy bad rows to")
            self._path = Path(quarantine_path)
            self._file = _open_to_append(self._path)

    def add(self, file: str, line: int, column: str | None, reason: str, text: str) -> None:
        """Reports one bad row.

        Args:
            file: File it is in.
            line: Line or record number, from 1.
            column: Column to blame; None or empty when the whole row is bad.
            reason: `kind: detail`; the part before the colon is counted in `reasons`.
            text: The row as read.

        Raises:
            DataError: Under `fail`, or when there are more than `limit` bad rows.
        """
        self.count += 1
        self.reasons[reason.split(": ", 1)[0]] += 1
        if self._path is not None:
            self._file = _open_to_append(self._path) if self._file is None else self._file
            cells = (file, str(line), column or "", reason, text)
            row = "\t".join(cell.translate(ESCAPES) for cell in cells) + "\n"
            os.write(self._file, row.encode("utf-8", "backslashreplace"))
        where = f"{file}:{line}: " + (f"column {column!r}: " if column else "") + reason
        if self.policy == "fail":
            fix = "correct the row, or leave bad rows out with --badRows=skip or --badRows=quarantine"
        elif self.limit and self.count > self.limit:
            where = f"more than maxBadRows={self.limit} bad rows ({self.summary()}); the last: {where}"
            fix = "correct the table or raise --maxBadRows"
        else:
            return
        self.close()
        raise DataError(where, received=text[:SHOWN_CHARACTERS], fix=fix)

    def summary(self) -> str:
        """Returns the reasons with their counts, most frequent first."""
        return ", ".join(f"{reason}: {count}" for reason, count in self.reasons.most_common())

    def close(self) -> None:
        """Closes the quarantine file, and removes it when no row went there."""
        if self._file is None:
            return
        empty = os.fstat(self._file).st_size == 0
        os.close(self._file)
        self._file = None
        if empty and self._path is not None:
            self._path.unlink(missing_ok=True)


def _open_to_append(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise ResourceError(f"cannot write the bad-row file {path}: {error.strerror}") from error
