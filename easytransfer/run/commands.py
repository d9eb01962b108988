"""The command lines that use a finished run; each runs as it stands from the folder the training was started in."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from easytransfer.config.encoding import AUTO

# Output form by that of the input table; a table with names of its columns for what has none of these endings.
_OUTPUT_SUFFIXES = {".tsv": ".tsv", ".txt": ".tsv", ".json": ".jsonl", ".ndjson": ".jsonl"} | {
    suffix: suffix for suffix in (".csv", ".jsonl", ".parquet")
}


def command_line(*words: str, **flags: str | os.PathLike[str] | bool | None) -> str:
    """Returns an `easy_transfer_app` command line that a shell reads back as it was meant.

    Args:
        *words: The verb and what stands behind it without a flag.
        **flags: Flags and their values; True stands for the flag alone, and what is None, empty or False is left out.
    """
    given = [
        f"--{name}" + ("" if value is True else f"={shlex.quote(os.fspath(value))}")
        for name, value in flags.items()
        if value
    ]
    return " ".join(["easy_transfer_app", *map(shlex.quote, words), *given])


def next_commands(
    run: str | os.PathLike[str],
    table: str | None,
    export: str | os.PathLike[str] | None = None,
    append: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Returns the command lines that use a trained run, by what they do.

    Args:
        run: The run folder.
        table: The labelled evaluation table, which stands for the tables to come.
        export: Version folder `<base>/<name>/<version>` of its SavedModel, if it was exported.
        append: Columns copied to the predictions, so that every row can be told.
        data: The section `data` of the configuration of the run, for what a later job does not take from there.
    """
    run = Path(run)
    table = table or "labelled.tsv"
    base = Path(export).parents[1] if export else run / "export"
    output = run / f"predictions{_output_suffix(table)}"
    columns, reading = ",".join(append), _reading_flags(data or {})
    commands = {
        "predict a table": command_line(
            "predict", checkpointPath=run, inputTable=table, outputTable=output, appendCols=columns, **reading
        ),
        "evaluate on a labelled table": command_line("evaluate", checkpointPath=run, inputTable=table, **reading),
        "export the next version": command_line("export", checkpointPath=run, exportDirBase=base),
    }
    if export:
        commands["serve the export over REST and gRPC"] = command_line("serve", os.fspath(base))
    return commands


def without_labels(data: Mapping[str, str | None]) -> str | None:
    """Returns what to add to the prediction of a table without the label column; None when that needs nothing.

    Args:
        data: The section `data` of the configuration of the run.
    """
    columns = [part.strip() for part in (data.get("input_schema") or "").split(",") if part.strip()]
    kept = [part for part in columns if part.split(":")[0].strip() != data.get("label_name")]
    return f"--inputSchema={shlex.quote(','.join(kept))}" if kept and len(kept) < len(columns) else None


def _reading_flags(data: Mapping[str, Any]) -> dict[str, str]:
    """Returns the flags on encoding and bad rows: of all that describes a table, only these are not inherited."""
    encoding, policy = data.get("encoding") or AUTO, data.get("bad_rows") or "fail"
    # Rows that were held out are written in UTF-8.
    found = {"encoding": encoding} if encoding != AUTO and data.get("eval_table", True) else {}
    if policy == "fail":
        return found
    limit = data.get("max_bad_rows")
    return {**found, "badRows": policy} | ({"maxBadRows": str(limit)} if limit else {})


def _output_suffix(table: str) -> str:
    first = Path(table.split(",")[0].strip().removesuffix(".gz"))
    return ".csv" if first.is_dir() else _OUTPUT_SUFFIXES.get(first.suffix.lower(), ".csv")
