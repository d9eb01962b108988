"""The verb `rank`: the nearest of a gallery for every query, from the vectors that `predict` has written."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from appzoo.nearest import Nearest, vector_rows, whole
from easytransfer.config.parser import Parser
from easytransfer.config.paths import expand_home
from easytransfer.data.writers import open_writer
from easytransfer.errors import DataError

COLUMNS = ("query", "rank", "gallery", "score")


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
    reading = (options["vector"], options["id"], options["schema"])
    asked, best, known = whole(vector_rows(options["query"], *reading)), None, 0
    queries = asked.directions()
    for part in vector_rows(options["gallery"], *reading):
        if part.values.shape[1] != queries.shape[1]:
            raise DataError(
                f"vectors of the queries have {queries.shape[1]} numbers, those of the gallery {part.values.shape[1]}",
                fix="write both with the same model",
            )
        best = best or Nearest(queries, options["topk"])
        best.add(part.directions(), part.names)
        known += len(part.names)
    assert best is not None  # an empty table is an error
    count = best.scores.shape[1]
    with open_writer(options["output"], COLUMNS, overwrite=options["overwrite"]) as writer:
        for row, query in enumerate(asked.names):
            found = {"gallery": best.names[row].tolist(), "score": best.scores[row].tolist()}
            writer.write({"query": [query] * count, "rank": list(range(1, count + 1)), **found})
    return {"queries": len(queries), "gallery": known, "topk": count, "output": options["output"]}


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
