"""The verb `search`: the nearest rows of a table of vectors, for texts that a model encodes, or for other vectors."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from appzoo.feature_config import VECTOR_COLUMNS
from appzoo.nearest import Nearest, Vectors, all_rows, by_faiss, vector_rows, whole
from easytransfer.config.job import RuntimeConfig
from easytransfer.config.json_text import parse_json
from easytransfer.config.parser import Parser
from easytransfer.config.paths import expand_home
from easytransfer.config.stored import find_run_config, has_run_config, load_run_config
from easytransfer.data.npy_tables import INDEX
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.data.writers import open_writer
from easytransfer.errors import ConfigError, DataError
from easytransfer.installing import install_line
from easytransfer.run.folder import THRESHOLD_FILE
from easytransfer.run.log import say

# Names of columns of vectors, the first that a table has.
KNOWN = ("embedding", "vector", *VECTOR_COLUMNS[:3], "cloth_embedding")
# Queries whose results are printed where no table is asked for.
_MOST_PRINTED = 100


def search(arguments: Sequence[str]) -> dict[str, Any]:
    """Finds the nearest rows of a table of vectors.

    The table is read in pieces, so that it may be larger than memory; the queries are held. Scores are computed in
    float64 and count to twelve digits; of equal ones the earlier row comes first.

    Returns:
        How many queries and rows there are, and where the rows (query, rank from 1, id, score, and `match` where the
        run keeps a threshold) are, or these rows.

    Raises:
        ConfigError: A flag is wrong, a column or FAISS missing.
        DataError: A row has no usable vector, or vectors of another width.
        ModelError: There is no such model, or it has no vectors.
    """
    options = _parser().read(arguments)
    if options["faiss"] and importlib.util.find_spec("faiss") is None:
        raise ConfigError("FAISS is not installed, which --faiss asks for", fix=install_line("faiss"))
    table, column = options["vectors"], options["vector"] or known_column(options["vectors"], options["schema"])
    cosine = options["score"] == "cosine"
    asked = _asked(options, column)
    queries, best, rows = (asked.directions() if cosine else asked.values), None, 0
    for part in vector_rows(table, column, options["id"], options["schema"]):
        if part.values.shape[1] != queries.shape[1]:
            raise DataError(
                f"vectors of the queries have {queries.shape[1]} numbers, those of {table} {part.values.shape[1]}",
                fix="write both with the same model and the same column",
            )
        best = best or Nearest(queries, options["topk"], by_faiss if options["faiss"] else all_rows)
        best.add(part.directions() if cosine else part.values, part.names)
        rows += len(part.names)
    assert best is not None  # an empty table is an error
    threshold = run_threshold(options["checkpoint"]) if options["checkpoint"] and cosine else None
    facts = {"queries": len(queries), "rows": rows, "topk": best.scores.shape[1], "vector": column}
    if threshold is not None:
        facts["threshold"] = threshold
    return facts | _results(asked.names, best, threshold, options)


def _asked(options: Mapping[str, Any], column: str) -> Vectors:
    """Returns the vectors of the queries, named by their texts or by the column of ids."""
    query = options["query"]
    if not options["checkpoint"]:
        if not os.path.exists(query) and "," not in query and "*" not in query:
            raise ConfigError(
                f"there is no table {query!r}",
                fix="to search for a text, name the model of the vectors with --checkpointPath=MODEL",
            )
        named = options["query_vector"] or (column if options["vector"] else known_column(query, options["schema"]))
        return whole(vector_rows(query, named, options["query_id"], options["schema"]))
    texts = [query]
    if options["text"]:
        schema = parse_schema(options["schema"]) if options["schema"] else None
        name = options["text"]
        table = open_table(query, schema=schema, bad_rows=BadRows("fail"), needed=[name], texts={name: "none"})
        texts = [text for chunk in table.chunks() for text in chunk.columns[name]]
        if not texts:
            raise DataError(f"table {query} is empty: it has no row")
    wanted = options["query_vector"] or column.removesuffix("_b")
    return _encoded(options["checkpoint"], texts, wanted if wanted in VECTOR_COLUMNS[:3] else VECTOR_COLUMNS[0])


def _encoded(model: str, texts: Sequence[str], column: str) -> Vectors:
    """Returns the vectors of texts; imports TensorFlow."""
    from appzoo.jobs.vectors import text_vectors

    names = np.array([*texts, None], object)[:-1]
    places = [f"query {text!r}" for text in texts]
    return Vectors(names, text_vectors(model, texts, column, RuntimeConfig()), places)


def known_column(spec: str, schema: str | None) -> str:
    """Returns the column of vectors of a table that was not named.

    Raises:
        ConfigError: The table has none of the usual names.
    """
    index = Path(spec) / INDEX
    if index.is_file():
        columns = list(parse_json(index.read_text(encoding="utf-8"))["columns"])
    else:
        table = open_table(spec, schema=parse_schema(schema) if schema else None, bad_rows=BadRows("fail"))
        columns = [column.name for column in table.schema]
    found = next((name for name in KNOWN if name in columns), None)
    if found is None:
        raise ConfigError(
            f"{spec} has no column of vectors of a usual name", received=", ".join(columns), fix="name it with --vector"
        )
    say(f"vectors of {spec}: column {found}")
    return found


def run_threshold(path: str) -> float | None:
    """Returns the cosine above which a run or an export of two towers predicts a match; None where there is none."""
    if not has_run_config(path):
        return None
    given = load_run_config(path).get("model", {}).get("threshold")
    place = find_run_config(path).parent
    for folder in (place, place.parent / "assets"):
        if given is None and (folder / THRESHOLD_FILE).is_file():
            given = parse_json((folder / THRESHOLD_FILE).read_text(encoding="utf-8"))["threshold"]
    return None if given is None else float(given)


def _results(names: np.ndarray, best: Nearest, threshold: float | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the results into the table, or returns them."""
    columns = ["query", "rank", "id", "score", *(["match"] if threshold is not None else [])]
    ranks = list(range(1, best.scores.shape[1] + 1))

    def rows_of(query: int) -> dict[str, list[Any]]:
        scores = best.scores[query]
        found = {"query": [names[query]] * len(ranks), "rank": ranks, "id": best.names[query].tolist()}
        match = {} if threshold is None else {"match": (scores > threshold).astype(int).tolist()}
        return {**found, "score": scores.tolist(), **match}

    if options["output"]:
        with open_writer(options["output"], columns, overwrite=options["overwrite"]) as writer:
            for query in range(len(names)):
                writer.write(rows_of(query))
        return {"output": options["output"]}
    if len(names) > _MOST_PRINTED:
        raise ConfigError(f"{len(names)} queries are too many to print", fix="give --outputTable=TABLE")
    results = []
    for query in range(len(names)):
        found = rows_of(query)
        results += [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
    for row in results:
        say(f"{row['rank']:>4}  {row['score']:.4f}  {row['id']}")
    return {"results": results}


def _parser() -> Parser:
    parser = Parser(
        prog="easy_transfer_app search",
        description="The nearest rows of a table of vectors, for texts or other vectors.",
    )
    table: dict[str, Any] = {"metavar": "TABLE", "type": expand_home}
    parser.add_argument(
        "--vectors", required=True, **table, help="what is searched: an output of ez_bert_feat or predict"
    )
    parser.add_argument(
        "--query",
        required=True,
        metavar="TEXT|TABLE",
        help="a text with --checkpointPath; without it a table of vectors",
    )
    parser.add_argument(
        "--checkpointPath", dest="checkpoint", metavar="MODEL", type=expand_home,
        help="run, model folder or ModelZoo name that made the vectors: it makes those of the texts asked for",
    )  # fmt: skip
    parser.add_argument(
        "--firstSequence", dest="text", metavar="COLUMN", help="--query is a table with texts in COLUMN"
    )
    parser.add_argument("--topk", type=_positive, default=10, help="rows for each query; default 10")
    parser.add_argument("--outputTable", dest="output", **table, help="where the rows go; printed without it")
    parser.add_argument("--id", metavar="COLUMN", help="column that tells the rows; default their number from 1")
    parser.add_argument("--queryId", dest="query_id", metavar="COLUMN", help="the same of a table of queries")
    parser.add_argument(
        "--vector", metavar="COLUMN", help=f"column of the vectors; default the first of {', '.join(KNOWN)}"
    )
    parser.add_argument(
        "--queryVector", dest="query_vector", metavar="COLUMN", help="that of the queries; default the same"
    )
    parser.add_argument("--score", choices=("cosine", "dot"), default="cosine", help="cosine (default) or dot product")
    parser.add_argument("--faiss", action="store_true", help="let a flat index of FAISS compute, in float32")
    parser.add_argument(
        "--inputSchema", dest="schema", help="columns of tables without names, as pool_output:float:384"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
