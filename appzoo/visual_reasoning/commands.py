"""The verb `score_nlvr`: the official metrics of a result file, in which missing predictions are errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appzoo.visual_reasoning.metrics import nlvr_scores, sentence_of
from appzoo.visual_reasoning.readers import READERS
from easytransfer.config.parser import Parser
from easytransfer.config.paths import expand_home
from easytransfer.data.app_forms import register
from easytransfer.data.files import open_text
from easytransfer.data.label_names import class_name
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.errors import DataError

COLUMNS = ("identifier", "label")


def score_nlvr(arguments: Sequence[str]) -> dict[str, Any]:
    """Score a result file of NLVR or NLVR2 as the official script does.

    Returns:
        `accuracy`, `consistency`, `rows`, and how many predictions are `missing`.

    Raises:
        ConfigError: A flag is wrong or a column missing.
        DataError: An identifier stands twice or has another form, or a line is no prediction.
    """
    options = _parser().read(arguments)
    register(READERS, {})
    labels = _labels(options["table"], options["schema"])
    predictions = _predictions(options["predictions"])
    missing = sum(identifier not in predictions for identifier in labels)
    return {**nlvr_scores(labels, predictions), "rows": len(labels), "missing": missing}


def _labels(spec: str, schema: str | None) -> dict[str, str]:
    declared = parse_schema(schema) if schema else None
    table = open_table(spec, schema=declared, bad_rows=BadRows("fail"), needed=COLUMNS)
    table.narrow(COLUMNS)
    found: dict[str, str] = {}
    for chunk in table.chunks():
        for row, cells in enumerate(zip(*(chunk.columns[name] for name in COLUMNS), strict=True)):
            identifier, label = map(class_name, cells)
            try:
                sentence_of(identifier)
            except ValueError as error:
                raise DataError(f"{chunk.origin(row)}: column 'identifier': {error}") from None
            if identifier in found:
                raise DataError(f"{chunk.origin(row)}: the identifier stands there twice", received=identifier)
            found[identifier] = label
    if not found:
        raise DataError(f"table {spec} is empty: it has no row")
    return found


def _predictions(path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    with open_text(path) as stream:
        for number, line in enumerate(stream, 1):
            parts = line.decode("utf-8", "backslashreplace").strip().split(",")
            if parts == [""]:
                continue
            if len(parts) != len(COLUMNS):
                shown = ",".join(parts)[:80]
                raise DataError(f"{path}:{number}: no prediction", received=shown, accepted="identifier,True or False")
            if parts[0] in found:
                raise DataError(f"{path}:{number}: the identifier stands there twice", received=parts[0])
            found[parts[0]] = parts[1]
    return found


def _parser() -> Parser:
    parser = Parser(prog="easy_transfer_app score_nlvr", description="Score a result file of NLVR or NLVR2.")
    path = {"required": True, "type": expand_home}
    parser.add_argument("--predictions", **path, metavar="FILE", help="lines identifier,True: an output .nlvr.csv")
    parser.add_argument("--inputTable", dest="table", **path, metavar="TABLE", help="table with identifier and label")
    parser.add_argument("--inputSchema", dest="schema", help="columns of tables without names, as name:str:1,...")
    return parser


COMMANDS = {"score_nlvr": score_nlvr}
