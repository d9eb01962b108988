"""One table of files that have columns, and forms, of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from easytransfer.config.job import DataConfig
from easytransfer.data.formats import choose_format
from easytransfer.data.row_format import RowFormat
from easytransfer.data.schema import Column, ListForm, Schema, parse_schema


class JoinedFormat:
    """Files that are each read in their own way, as one table with the columns of all of them.

    The columns that a file's settings name must be in that file; the others it may lack, and their cells are empty.

    Args:
        settings: Schema, columns and form of every file.

    Raises:
        ConfigError: The columns of a file do not fit its schema.
        DataError: A file needed to learn the columns cannot be read.
    """

    def __init__(self, settings: Mapping[str, DataConfig]) -> None:
        self._settings = settings
        self._formats: dict[str, RowFormat] = {}
        for file, data in settings.items():
            schema = parse_schema(data.input_schema) if data.input_schema else None
            self._formats[file] = choose_format([file], schema=schema, data=data)

    @property
    def schema(self) -> Schema:
        """The columns of all files, each once."""
        columns: dict[str, Column] = {}
        for row_format in self._formats.values():
            for column in row_format.schema:
                columns.setdefault(column.name, column)
        return Schema(tuple(columns.values()))

    def of(self, file: str) -> RowFormat:
        """Returns what reads a file."""
        return self._formats[file]

    def missing(self, file: str) -> Sequence[str]:
        """Returns the columns of the table that a file does not have."""
        return [name for name in self.schema.names if name not in self._formats[file].schema]

    def require(self, names: Sequence[str], where: str) -> None:
        """Checks that columns can be read: of those that the settings of a file name, in that file.

        Raises:
            ConfigError: One of them cannot.
        """
        named: set[str | None] = set()
        for file, row_format in self._formats.items():
            data = self._settings[file]
            own = [data.first_sequence, data.second_sequence, data.label_name]
            row_format.require([name for name in names if name in own], f"table {file}")
            named |= {*own}
        self.schema.require([name for name in names if name not in named], where)

    def take_text(self, columns: Mapping[str, ListForm]) -> None:
        """Reads columns as text from now on; see `Column.as_text`."""
        for row_format in self._formats.values():
            row_format.take_text(columns)

    def narrow(self, names: Sequence[str]) -> None:
        """Leaves out all columns but these, where a file names its columns itself."""
        for file, row_format in self._formats.items():
            if not self._settings[file].input_schema:
                row_format.narrow(names)
