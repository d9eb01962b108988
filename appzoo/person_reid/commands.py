"""The verb `rank`: the nearest of a gallery for every query, from the vectors that `predict` has written."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from easytransfer.config.parser import Parser
from easytransfer.config.paths import expand_home
from easytransfer.data.npy_tables import INDEX, read_npy
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.data.values import read_number
from easytransfer.data.writers import open_writer
from easytransfer.errors import ConfigError, DataError

COLUMNS = ("query", "rank", "gallery", "score")
# Queries that are compared at a time.
_BLOCK = 256


def rank(arguments: Sequence[str]) -> dict[str, Any]:
    """Rank a gallery for each query by the vectors that `predict` has written.

    Scores are cosines in float64; of equal ones, to twelve digits, the earlier row of the gallery comes first.

    Returns:
        How many queries and gallery images there are, and where the rows (query, rank from 1, gallery, score) are.

    Raises:
        ConfigError: A flag is wrong or a column missing.
        DataError: A row has no usable vector, or vectors of another width.
    """
    options = _parser().read(arguments)
    sides = {}
    for side in ("query", "gallery"):
        sides[side] = _vectors(options[side], options["id"], options["vector"], options["schema"])
    (asked, queries), (known, gallery) = sides["query"], sides["gallery"]
    if queries.shape[1] != gallery.shape[1]:
        raise DataError(
            f"vectors of the queries have {queries.shape[1]} numbers, those of the gallery {gallery.shape[1]}",
            fix="write both with the same model",
        )
    count = min(options["topk"], len(known))
    with open_writer(options["output"], COLUMNS, overwrite=options["overwrite"]) as writer:
        for first, order, scores in _blocks(queries, gallery, count):
            names = np.repeat(asked[first : first + len(order)], count)
            ranks = np.tile(np.arange(1, count + 1), len(order))
            writer.write(
                {"query": names.tolist(), "rank": ranks.tolist(), "gallery": known[order].ravel().tolist(),
                 "score": scores.ravel().tolist()}
            )  # fmt: skip
    return {"queries": len(asked), "gallery": len(known), "topk": count, "output": options["output"]}


def _blocks(queries: np.ndarray, gallery: np.ndarray, count: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields the first query of a block, the numbers of the nearest of each and their scores, [queries, count]."""
    for first in range(0, len(queries), _BLOCK):
        scores = np.round(queries[first : first + _BLOCK] @ gallery.T, 12)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        yield first, order, np.take_along_axis(scores, order, axis=1)


def _vectors(spec: str, name: str, vector: str, schema: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns names (object) and vectors of length 1 (float64) of the rows of a table."""
    if os.path.isfile(os.path.join(spec, INDEX)):
        columns = read_npy(spec)
        for wanted in (name, vector):
            if wanted not in columns:
                raise ConfigError(f"{spec} has no column {wanted!r}", accepted=list(columns))
        names, rows = columns[name].astype(object), np.asarray(columns[vector], np.float64)
        places = [f"{spec}:{number}" for number in range(1, len(names) + 1)]
    else:
        names, rows, places = _of_table(spec, name, vector, schema)
    lengths = np.linalg.norm(rows, axis=1)
    wrong = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if len(wrong):
        raise DataError(f"{places[wrong[0]]}: the vector has no direction: its length is {lengths[wrong[0]]:g}")
    return names, rows / lengths[:, None]


def _of_table(spec: str, name: str, vector: str, schema: str | None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    declared = parse_schema(schema) if schema else None
    table = open_table(spec, schema=declared, bad_rows=BadRows("fail"), needed=[name, vector])
    table.require([name, vector], where=f"table {spec}" if declared is None else "the schema")
    names, rows, places = [], [], []
    for chunk in table.chunks():
        for row, (text, cell) in enumerate(zip(chunk.columns[name], chunk.columns[vector], strict=True)):
            try:
                rows.append(_numbers(cell))
            except ValueError as error:
                raise DataError(f"{chunk.origin(row)}: column {vector!r}: {error}") from None
            if len(rows[-1]) != len(rows[0]):
                raise DataError(f"{chunk.origin(row)}: {len(rows[-1])} numbers in place of {len(rows[0])}")
            names.append(text)
            places.append(chunk.origin(row))
    if not rows:
        raise DataError(f"table {spec} is empty: it has no row")
    found = np.empty(len(names), object)
    found[:] = names
    return found, np.stack(rows), places


def _numbers(cell: Any) -> np.ndarray:
    """Returns the numbers of a cell: a list or an array, or text with commas between them."""
    values = [read_number(part) for part in cell.split(",")] if isinstance(cell, str) else cell
    return np.asarray(values, np.float64).reshape(-1)


def _parser() -> Parser:
    parser = Parser(prog="easy_transfer_app rank", description="Rank a gallery for each query, by written vectors.")
    table = {"required": True, "metavar": "TABLE", "type": expand_home}
    parser.add_argument("--query", **table, help="vectors of the queries: an output of predict")
    parser.add_argument("--gallery", **table, help="vectors of the gallery")
    parser.add_argument("--outputTable", dest="output", **table, help="where query, rank, gallery and score go")
    parser.add_argument("--topk", type=_positive, default=10, help="gallery images for each query; default 10")
    parser.add_argument("--id", default="name", metavar="COLUMN", help="column that names a row; default name")
    parser.add_argument("--vector", default="embedding", metavar="COLUMN", help="column of the vectors")
    parser.add_argument("--inputSchema", dest="schema", help="columns of tables without names, as name:str:1,...")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


COMMANDS = {"rank": rank}
