"""What the evaluation at the end of a training says of single rows: kept for comparisons, the worst ones shown, and
how well the model does on parts of the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from appzoo.jobs.inference import row_order
from appzoo.jobs.tables import EncodedRows, encoded_chunks, input_columns, names, open_input
from easytransfer.app.contract import App
from easytransfer.data.label_names import class_name
from easytransfer.data.table import BadRows, RowChunk
from easytransfer.errors import ConfigError, did_you_mean
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.metrics.paired import bootstrap, interval, resamples_for
from easytransfer.metrics.row_results import RowResults
from easytransfer.run.atomic import write_text
from easytransfer.run.card import table
from easytransfer.run.folder import ROWS_FILE, WRONG_ROWS_FILE
from easytransfer.run.intervals import SHARES_OF_ROWS, slice_row
from easytransfer.run.page import PAGE_FILE, html_page

MOST_WRONG = 100
# Values of a column that are parts of their own, the most frequent ones; and parts by length.
_MOST_VALUES = 20
_LENGTH_PARTS = 4
_LONGEST_CELL = 1000
# Rows above which no interval is drawn, which would take minutes; `compare` does.
_MOST_DRAWN = 10_000


def check_slice_columns(app: App, spec: str) -> list[str]:
    """Returns the columns by whose values results are measured.

    Raises:
        ConfigError: The evaluation table has no such column.
    """
    wanted = names(app.config.data.slice_columns)
    available = open_input(app, spec, [], BadRows("skip")).schema.names if wanted else []
    for name in wanted:
        if name not in available:
            raise ConfigError(
                "sliceColumns names a column that the evaluation table has not",
                received=name,
                accepted=available,
                fix=did_you_mean(name, available),
            )
    return wanted


def report_rows(
    app: App, folder: Path, loaded: EncodedRows, spec: str, evaluator: Evaluator, size: int, metric: str
) -> dict[str, Any]:
    """Writes the results of all rows, and a page of the worst ones; returns parts of the report.

    Args:
        app: Application.
        folder: Run folder.
        loaded: The evaluation table, encoded.
        spec: Where it is.
        evaluator: Has seen every row.
        size: Rows of a batch of the evaluation.
        metric: The one that picked the best checkpoint.

    Returns:
        `slices`, `interval` of the metric, and `pages` with the name of a page; nothing for applications whose rows
        have no label and answer.
    """
    part_of, parts = evaluator.row_parts()
    encoded = loaded.encoded
    if not parts or len(part_of) != encoded.row_count or len(part_of) != len(encoded):
        return {}
    order = row_order(encoded, size)
    of_parts = [order[part_of == number] for number in range(len(parts))]
    # The rows of each part in the order of the table, and their results.
    found = {
        name: (np.sort(mine), results.take(np.argsort(mine)))
        for mine, (name, results) in zip(of_parts, parts.items(), strict=True)
        if len(mine)
    }
    if not found:
        return {}
    worst = {name: results.worst(MOST_WRONG) for name, (_, results) in found.items()}
    shown = [name for name in app.input_columns() if name in app.text_columns()]
    columns = check_slice_columns(app, spec)
    wanted = np.concatenate([rows[worst[name]] for name, (rows, _) in found.items()])
    numbers, texts, values = _read(app, loaded, spec, wanted, shown, columns)
    lengths, page = encoded.row_lengths if shown else None, ["# Wrong rows", ""]
    report: dict[str, Any] = {"slices": []}
    for name, (rows, results) in found.items():
        results.arrays["row"] = numbers[rows]
        cells = {column: [every[row] for row in rows.tolist()] for column, every in values.items()}
        for each in slices(results, None if lengths is None else lengths[rows], cells):
            report["slices"].append({**each, "by": f"{name}, {each['by']}"} if name else each)
        page += [f"## {name}", ""] if name else []
        page += _wrong_rows(results, worst[name], shown, texts)
    if "" in found:
        results.save(folder / ROWS_FILE)
        report |= drawn_interval(results, metric, app.config.runtime.seed)
    if shown and len(wanted) and texts:
        write_text(folder / WRONG_ROWS_FILE, html_page("Wrong rows", "\n".join(page), pages=[PAGE_FILE]))
        report["pages"] = [WRONG_ROWS_FILE]
    return report


def drawn_interval(results: RowResults, metric: str, seed: int) -> dict[str, Any]:
    """Returns the `interval` of a report: of a metric that is no share of rows, from draws of the rows.

    Args:
        results: Of all rows.
        metric: Its name.
        seed: Of the draws.
    """
    if metric in SHARES_OF_ROWS or metric not in results.metrics() or len(results) > _MOST_DRAWN:
        return {}
    low, high = interval(bootstrap([results], seed)[0][metric])
    if np.isnan(low):
        return {}
    return {"interval": {"metric": metric, "low": low, "high": high, "draws": resamples_for(len(results))}}


def _read(
    app: App,
    loaded: EncodedRows,
    spec: str,
    worst: np.ndarray,
    shown: Sequence[str],
    columns: Sequence[str],
) -> tuple[np.ndarray, dict[int, list[str]], dict[str, list[str]]]:
    """Reads the table once more: the numbers of its rows from 1, the texts of some by them, and whole columns."""
    numbers, texts, first = [], {}, 0
    values: dict[str, list[str]] = {name: [] for name in columns}
    wanted = set(worst.tolist())
    for chunk in _accepted(app, loaded, spec, columns):
        numbers.append(chunk.index + 1)
        for place in range(len(chunk.index)):
            if first + place in wanted and set(shown) <= chunk.columns.keys():
                texts[int(chunk.index[place]) + 1] = [str(chunk.columns[name][place]) for name in shown]
        for name, cells in values.items():
            cells += map(class_name, chunk.columns[name])
        first += len(chunk.index)
    return np.concatenate(numbers), texts, values


def _accepted(app: App, loaded: EncodedRows, spec: str, columns: Sequence[str]) -> Iterator[RowChunk]:
    """Yields the rows that were encoded; only where some were rejected they are encoded again to know which."""
    wanted = list(dict.fromkeys([*input_columns(app, spec, True), *columns]))
    opened = open_input(app, spec, wanted, BadRows("skip"))
    opened.part = loaded.part
    if not loaded.count.rejected:
        yield from opened.chunks(size=app.chunk_rows)
        return
    counted = app.text_counts.copy()
    for chunk, _ in encoded_chunks(app, opened, True):
        yield chunk
    app.text_counts = counted


def slices(results: RowResults, lengths: np.ndarray | None, values: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Returns the results of parts of the rows, each with its interval.

    Args:
        results: Of all rows.
        lengths: Their lengths in tokens; None where they have none.
        values: Cells by column.
    """
    parts: list[tuple[str, str, np.ndarray]] = []
    if results.kind == "classification":
        parts += [("label", name, results.arrays["true"] == i) for i, name in enumerate(results.labels)]
    if results.kind == "multi_label":
        parts += [("label", name, results.arrays["true"][:, i]) for i, name in enumerate(results.labels)]
    if lengths is not None:
        parts += [("length, tokens", name, chosen) for name, chosen in _by_length(lengths)]
    for column, cells in values.items():
        array = np.array(cells, object)
        common = [value for value, _ in Counter(cells).most_common(_MOST_VALUES)]
        parts += [(column, value or "(empty)", array == value) for value in common]
        others = ~np.isin(array, common)
        parts += [(column, "(others)", others)] if others.any() else []
    return [slice_row(by, name, *_measured(results, chosen)) for by, name, chosen in parts if chosen.any()]


def _measured(results: RowResults, chosen: np.ndarray) -> tuple[int, str, float, float | None]:
    """Returns rows, metric, its value there, and of errors the standard deviation."""
    rows = int(chosen.sum())
    if results.kind == "regression":
        errors = results.errors[chosen]
        return rows, "mae", float(errors.mean()), float(errors.std(ddof=1)) if rows > 1 else None
    name = "accuracy" if results.kind == "classification" else "subset_accuracy"
    return rows, name, float(results.right[chosen].mean()), None


def _by_length(lengths: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yields up to four parts of about as many rows, by their lengths."""
    shares = np.arange(1, _LENGTH_PARTS) / _LENGTH_PARTS
    ends = np.unique([*np.quantile(lengths, shares, method="inverted_cdf"), lengths.max()])
    start = int(lengths.min())
    if len(ends) < 2:
        return
    for end in ends.astype(int).tolist():
        yield (f"{start} to {end}" if start < end else f"{end}"), (lengths >= start) & (lengths <= end)
        start = end + 1


def _wrong_rows(results: RowResults, worst: np.ndarray, shown: Sequence[str], texts: dict[int, list[str]]) -> list[str]:
    """Returns the wrong rows of a part as lines of Markdown, without columns in which all of them are empty.

    Args:
        results: Of the rows of the part.
        worst: Places of the worst ones in it.
        shown: Columns with texts.
        texts: Those of the worst rows, by the number of a row in the table from 1.
    """
    wrong = int((~results.right).sum())
    confidence = results.confidence()
    number = results.kind == "regression"
    last = ["error"] if number else ["probability"] if confidence is not None else []
    order = "farthest from the truth" if number else "most confident" if last else "first"
    what = "another number than the true one" if number else "a wrong answer"
    lines = [f"{wrong:,} of {len(results):,} evaluation rows have {what}; the {order} {len(worst)}:", ""]
    found = {row: texts.get(int(results.arrays["row"][row]), []) for row in worst.tolist()}
    filled = [place for place in range(len(shown)) if any(cells[place] for cells in found.values() if cells)]
    rows = []
    for row, given in found.items():
        measured = results.errors[row] if number else None if confidence is None else confidence[row]
        chosen = [given[place] for place in filled]
        cells = [text if len(text) <= _LONGEST_CELL else text[:_LONGEST_CELL] + "..." for text in chosen]
        cells += [results.names("true", row), results.names("predicted", row)]
        cells += [f"{measured:.6g}" if number else f"{measured:.4f}"] if last else []
        rows.append((f"{results.arrays['row'][row]:,}", *cells))
    names = [shown[place] for place in filled]
    return [*lines, *(table(("row", *names, "true", "predicted", *last), rows) if rows else []), ""]
