"""The column declaration `name:type:length,...` that `inputSchema` and the readers take."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from easytransfer.errors import ConfigError, did_you_mean

ColumnType = Literal["int", "float", "str", "base64", "image"]
COLUMN_TYPES: tuple[str, ...] = get_args(ColumnType)
ListForm = Literal["none", "words", "json"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LENGTH = re.compile(r"0{0,9}[1-9][0-9]{0,8}")
_FORM = "name:type:length,... with types " + ", ".join(COLUMN_TYPES) + " and a length of 1 or more, or *"


@dataclass(frozen=True)
class Column:
    """One declared column.

    Attributes:
        name: Column name.
        type: `int` (64 bit), `float` (32 bit), `str`, `base64` (base64 text of little-endian float32 values), or
            `image` (path of a picture, `data:` text or encoded bytes; an array in array files).
        length: Values per cell; None for any number of them, written `*`.
        lists: What becomes of lists in a text column: `none` refuses them, `words` sets blanks between their words,
            `json` writes them as JSON.
    """

    name: str
    type: ColumnType
    length: int | None = 1
    lists: ListForm = "none"

    @property
    def is_list(self) -> bool:
        """Whether a cell becomes a sequence of values instead of one value."""
        return self.length != 1 or self.type == "base64"

    def as_text(self, lists: ListForm = "none") -> Column:
        """Returns the column as one that is read as text, for tables whose texts look like something else.

        Args:
            lists: What becomes of lists.

        Raises:
            ConfigError: It holds lists or vectors, which mean no text.
        """
        if self.type == "base64" or (self.length != 1 and lists == "none"):
            what = "vectors" if self.type == "base64" else "lists"
            raise ConfigError(
                f"column {self.name!r} holds {what}, text is needed",
                received=str(self),
                accepted=f"{self.name}:str:1",
                fix="name another column, or write one text into each cell",
            )
        return replace(self, type="str", lists=lists)

    def __str__(self) -> str:
        return f"{self.name}:{self.type}:{'*' if self.length is None else self.length}"


@dataclass(frozen=True)
class Schema(Sequence[Column]):
    """Declared columns, in table order; `str(schema)` is the declaration again."""

    columns: tuple[Column, ...]

    def __len__(self) -> int:
        return len(self.columns)

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __getitem__(self, key: int | str) -> Column:  # type: ignore[override]
        """Returns a column by position, or by name (ConfigError with the nearest names when there is none)."""
        if isinstance(key, str):
            self.require([key])
            return next(column for column in self.columns if column.name == key)
        return self.columns[key]

    def __contains__(self, name: object) -> bool:
        return any(name in (column.name, column) for column in self.columns)

    def __str__(self) -> str:
        return ",".join(map(str, self.columns))

    @property
    def names(self) -> list[str]:
        """Column names in table order."""
        return [column.name for column in self.columns]

    def as_text(self, columns: Mapping[str, ListForm]) -> Schema:
        """Returns the schema with some columns read as text; see `Column.as_text`."""
        return Schema(tuple(c.as_text(columns[c.name]) if c.name in columns else c for c in self.columns))

    def require(self, names: Sequence[str], where: str = "the input schema", fix: str | None = None) -> None:
        """Checks that every one of `names` is declared.

        Args:
            names: Columns.
            where: What declares them.
            fix: What to do where one is missing; the nearest names when None.

        Raises:
            ConfigError: A name is missing; the message lists the declared columns and the nearest one.
        """
        for name in names:
            if name not in self.names:
                raise ConfigError(
                    f"column {name!r} is not in {where}",
                    accepted=self.names,
                    fix=fix or did_you_mean(name, self.names),
                )


def parse_schema(text: str) -> Schema:
    """Parses a declaration such as `content:str:1,label:str:1`; blanks around its parts do not matter.

    Raises:
        ConfigError: The declaration is empty, malformed, or names a column twice.
    """
    if not text or not text.strip():
        raise ConfigError("inputSchema is empty", accepted=_FORM)
    columns = tuple(_parse_column(part) for part in text.strip().rstrip(",").split(","))
    name, count = Counter(column.name for column in columns).most_common(1)[0]
    if count > 1:
        raise ConfigError(f"inputSchema declares column {name!r} {count} times", fix="rename one of them")
    return Schema(columns)


def _parse_column(text: str) -> Column:
    parts = [part.strip() for part in text.split(":")]
    if len(parts) != 3:
        raise ConfigError("inputSchema has a malformed column", received=text.strip(), accepted=_FORM)
    name, kind, length = parts
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "inputSchema has an invalid column name",
            received=name,
            accepted="letters, digits and _, not starting with a digit",
        )
    if kind not in COLUMN_TYPES:
        aliases = {"string": "str", "text": "str", "integer": "int", "int64": "int", "int32": "int", "double": "float"}
        near = f"did you mean {aliases[kind]}?" if kind in aliases else did_you_mean(kind, COLUMN_TYPES)
        raise ConfigError(
            f"inputSchema column {name!r} has an unknown type", received=kind, accepted=COLUMN_TYPES, fix=near or None
        )
    if kind == "image" and length != "1":
        raise ConfigError(f"inputSchema column {name!r} has an invalid length", received=length, accepted="1 image")
    if length == "*":
        return Column(name, kind, None)  # type: ignore[arg-type]
    if not _LENGTH.fullmatch(length):
        raise ConfigError(
            f"inputSchema column {name!r} has an invalid length",
            received=length,
            accepted="an integer from 1 to 999999999, or *",
        )
    return Column(name, kind, int(length))  # type: ignore[arg-type]
