"""The verb `label_regions`: regions get the classes that an image classifier, or a column, gives them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from easytransfer.config.parser import Parser
from easytransfer.config.paths import expand_home
from easytransfer.data.label_names import class_name
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, RowChunk, open_table
from easytransfer.errors import ConfigError, DataError

# In place of a column of scores: every label is certain.
NO_SCORES = "none"


class _Row(NamedTuple):
    """A region of the table.

    Attributes:
        origin: File and line.
        image: Id of the image.
        region: Number of the region in its image, from 0.
        label: Name of the class it was given.
        score: Confidence from 0 to 1.
        true: Name of its true class, empty where it is not known.
    """

    origin: str
    image: str
    region: int
    label: str
    score: float
    true: str


def label_regions(arguments: Sequence[str]) -> dict[str, Any]:
    """Write regions with the classes of a table, such as the output of an image classifier on crops of them.

    Rows of an image stand together; each of its regions has one. One image is held at a time.

    Returns:
        How many `images` and `regions` were written; with a column of true classes `checked`, how many have one,
        `noise_rate`, the share of these whose class is another, and the same of the `confident` ones alone.

    Raises:
        ConfigError: A flag is wrong or a column missing.
        DataError: A class has no name in the list, a score is none, or images or regions of table and file differ.
    """
    from easytransfer.app.inputs.region_labels import read_names
    from easytransfer.data.region_files import RegionFiles
    from easytransfer.data.regions import write_region_records

    options = _parser().read(arguments)
    if not 0 <= options["least"] <= 1:
        raise ConfigError("a confidence lies between 0 and 1", received=f"--confidence={options['least']}")
    names = {name: number for number, name in enumerate(read_names(options["names"]))}
    files = RegionFiles(options["regions"])
    counted = _Noise(options["least"])
    seen: set[str] = set()

    def images() -> Iterator[tuple[str, Any]]:
        for rows in _images(_rows(options)):
            image = rows[0].image
            if image in seen:
                raise DataError(
                    f"{rows[0].origin}: rows of image {image!r} do not stand together", fix="sort the table"
                )
            seen.add(image)
            try:
                regions = files.find(image)
            except ValueError as error:
                raise DataError(f"{rows[0].origin}: {error}") from None
            given = sorted(rows, key=lambda row: row.region)
            if [row.region for row in given] != list(range(len(regions))):
                raise DataError(
                    f"{rows[0].origin}: rows of image {image!r} are not one for each of its {len(regions)} regions",
                    received=", ".join(str(row.region) for row in given)[:80], accepted=f"0 to {len(regions) - 1}",
                )  # fmt: skip
            numbers = [_number(row, names) for row in given]
            counted.add(given)
            scores = np.array([row.score for row in given], np.float32)
            yield image, replace(regions, object_id=np.array(numbers, np.int32), object_conf=scores)
        if len(seen) != len(files):
            raise DataError(
                f"{options['table']} has rows of {len(seen)} images, {options['regions']} has regions of {len(files)}",
                fix="let the classifier see the regions of all images",
            )

    written = write_region_records(options["output"], images())
    return {"images": written, **counted.result(options["true"] is not None)}


class _Noise:
    """Counts regions, and how many have another class than the true one.

    Args:
        least: Confidence from which a label is confident.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._regions = 0
        # Regions with a true class, and those of another one; of all and of confident labels.
        self._checked, self._wrong = np.zeros(2, np.int64), np.zeros(2, np.int64)

    def add(self, rows: Sequence[_Row]) -> None:
        """Counts the regions of an image."""
        self._regions += len(rows)
        for row in rows:
            if row.true:
                of = np.array([True, row.score >= self._least])
                self._checked += of
                self._wrong += of & (row.label != row.true)

    def result(self, has_truth: bool) -> dict[str, Any]:
        """Returns what `label_regions` does; a rate of nothing is None."""
        found: dict[str, Any] = {"regions": self._regions}
        if has_truth:
            checked, confident = self._checked.tolist()
            rate, of_confident = (
                wrong / count if count else None
                for wrong, count in zip(self._wrong.tolist(), self._checked.tolist(), strict=True)
            )
            found |= {"checked": checked, "noise_rate": rate}
            found |= {"confident": confident, "noise_rate_of_confident": of_confident}
        return found


def _images(rows: Iterator[_Row]) -> Iterator[list[_Row]]:
    """Yields neighbouring rows of one image together."""
    group: list[_Row] = []
    for row in rows:
        if group and row.image != group[0].image:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _rows(options: dict[str, Any]) -> Iterator[_Row]:
    columns = [options["image"], options["region"], options["label"]]
    columns += [] if options["score"] == NO_SCORES else [options["score"]]
    columns += [options["true"]] if options["true"] else []
    declared = parse_schema(options["schema"]) if options["schema"] else None
    table = open_table(options["table"], schema=declared, bad_rows=BadRows("fail"), needed=columns)
    table.narrow(columns)
    for chunk in table.chunks():
        for row in range(len(chunk.lines)):
            yield _row(chunk, row, options)


def _row(chunk: RowChunk, row: int, options: dict[str, Any]) -> _Row:
    origin = chunk.origin(row)
    image, number, label = (class_name(chunk.columns[options[name]][row]) for name in ("image", "region", "label"))
    if not number.isdecimal():
        raise DataError(f"{origin}: column '{options['region']}' is no number of a region", received=number[:40],
                        accepted="integers from 0")  # fmt: skip
    true = class_name(chunk.columns[options["true"]][row]) if options["true"] else ""
    score = 1.0 if options["score"] == NO_SCORES else _score(chunk.columns[options["score"]][row])
    if not 0 <= score <= 1:
        raise DataError(
            f"{origin}: column '{options['score']}' is no score",
            received=str(chunk.columns[options["score"]][row])[:40],
            accepted="numbers from 0 to 1",
            fix=f"name a column of scores, or {NO_SCORES}",
        )
    return _Row(origin, image, int(number), label, score, true)


def _score(cell: Any) -> float:
    """Returns the largest number of a cell: a score is itself; NaN where there is none."""
    text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell
    values = text.split(",") if isinstance(text, str) else np.ravel(text).tolist()
    try:
        # NaN among the numbers must not be passed over, as max does.
        found = np.array([float(value) for value in values])
    except (TypeError, ValueError):
        return float("nan")
    return float(found.max()) if len(found) else float("nan")


def _number(row: _Row, names: dict[str, int]) -> int:
    if row.label not in names:
        shown = ", ".join(list(names)[:5])
        raise DataError(f"{row.origin}: the class has no name in --objectNames", received=row.label[:40],
                        accepted=f"{shown}{' ...' if len(names) > 5 else ''}")  # fmt: skip
    return names[row.label]


def _parser() -> Parser:
    parser = Parser(prog="easy_transfer_app label_regions", description="Give regions the classes of a table.")
    path = {"required": True, "type": expand_home}
    parser.add_argument("--regions", **path, metavar="FILES", help="regions, .tfrecord or .tsv")
    parser.add_argument("--inputTable", dest="table", **path, metavar="TABLE", help="a row for each region")
    parser.add_argument("--inputSchema", dest="schema", help="columns of tables without names, as name:str:1,...")
    parser.add_argument("--objectNames", dest="names", **path, metavar="FILE", help="names of classes, one a line")
    parser.add_argument("--output", **path, metavar="FILE", help="new .tfrecord")
    parser.add_argument("--imageColumn", dest="image", default="image", help="id of the image (image)")
    parser.add_argument("--regionColumn", dest="region", default="region", help="number of the region (region)")
    parser.add_argument("--labelColumn", dest="label", default="predictions", help="class given to it (predictions)")
    parser.add_argument(
        "--scoreColumn", dest="score", default="probabilities",
        help=f"score or probabilities of the classes, of which the largest counts (probabilities); {NO_SCORES}: all 1",
    )  # fmt: skip
    parser.add_argument("--trueColumn", dest="true", help="true class, for the noise rate; empty where not known")
    parser.add_argument("--confidence", dest="least", type=float, default=0.3, help="of confident labels (0.3)")
    return parser


COMMANDS = {"label_regions": label_regions}
