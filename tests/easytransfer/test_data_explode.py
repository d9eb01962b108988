"""Rows that hold several examples: each counts as a row, and bad ones are reported at the line they are from."""

import pytest

from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.errors import DataError


def explode(chunk):
    """Splits the cell at `;`; a cell without anything is a bad row."""
    for row, cell in enumerate(chunk.columns["items"]):
        if not cell:
            chunk.reject(row, "items", "empty text")
    source = [r for r, cell in enumerate(chunk.columns["items"]) if chunk.accepted[r] for _ in cell.split(";")]
    items = [item for r in dict.fromkeys(source) for item in chunk.columns["items"][r].split(";")]
    return chunk.explode(source, {"items": items, "number": list(range(len(items)))})


def opened(tmp_path, policy="skip"):
    path = tmp_path / "table.tsv"
    path.write_text("x\ta;b;c\nbad line\ny\t\nz\td\n", encoding="utf-8")
    table = open_table(str(path), schema=parse_schema("name:str:1,items:str:1"), bad_rows=BadRows(policy))
    table.explode = explode
    return table


@pytest.mark.parametrize("size", [1, 2, 100])
def test_every_example_is_a_row(tmp_path, size):
    table = opened(tmp_path)
    chunks = list(table.chunks(size=size))
    rows = [row for c in chunks for row in zip(c.columns["name"], c.columns["items"], c.lines, c.index, strict=True)]
    assert rows == [("x", "a", 1, 0), ("x", "b", 1, 0), ("x", "c", 1, 0), ("z", "d", 4, 3)]
    assert (table.count.read, table.count.accepted, table.count.rejected) == (6, 4, 2)
    assert table.bad_rows.reasons == {"wrong column count": 1, "empty text": 1}
    # Reading again counts again from nothing.
    list(table.chunks())
    assert table.count.read == 6


def test_a_bad_example_names_the_line_of_its_row(tmp_path):
    table = opened(tmp_path)
    (chunk,) = table.chunks()
    chunk.reject(1, "items", "no good: b")
    assert (table.count.read, table.count.accepted, table.count.rejected) == (6, 3, 3)
    assert chunk.compact().columns["items"] == ["a", "c", "d"] and chunk.compact().columns["number"] == [0, 2, 3]
    table.bad_rows.policy = "fail"
    with pytest.raises(DataError, match=r"table.tsv:4: column 'items': no good: d"):
        chunk.reject(3, "items", "no good: d")
