"""Class names and their ids, from a list, a file or the training table."""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from easytransfer.config.json_text import parse_json
from easytransfer.data.label_names import (
    class_name,
    class_names,
    likeness,
    name_warnings,
    one_value,
    spelled,
    trimmed,
)
from easytransfer.data.values import read_number
from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.run.log import warn

_TWO_OR_MORE = "two or more names with commas between them, a file with one name per line, or auto"


def count_classes(cells: Iterable[Any], *, several: bool = False, skip: bool = False) -> Counter[str]:
    """Counts the classes in the label cells of a table; see `label_names`.

    Args:
        cells: The cells.
        several: Whether a cell may hold several classes.
        skip: Leave out cells that cannot be a label, which become bad rows when the table is encoded.

    Raises:
        DataError: A cell holds a list of labels where a row has one.
    """
    if several:
        return Counter(chain.from_iterable(map(class_names, cells)))
    counts: Counter[str] = Counter()
    for cell in cells:
        try:
            counts[class_name(one_value(cell))] += 1
        except ValueError as error:
            if not skip:
                fix = "name another label column, or set model.multi_label=true where the application has it"
                raise DataError(f"label column: {error}", received=cell, fix=fix) from None
    counts.pop("", None)
    return counts


def _is_number(name: str) -> bool:
    try:
        read_number(name)
    except ValueError:
        return False
    return True


class LabelMap:
    """Class names in id order.

    Args:
        names: Unique, non-empty names; ids are their positions.

    Attributes:
        counts: How often each was found, where the names were taken from a table.

    Raises:
        ConfigError: A name is empty or given twice.
    """

    FILE = "label_mapping.json"

    def __init__(self, names: list[str]) -> None:
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise ConfigError(
                "labelEnumerateValues lists a label twice", received=", ".join(twice), fix="list each once"
            )
        if not all(names):
            raise ConfigError(
                "labelEnumerateValues has an empty label", received=",".join(names), fix="remove the empty one"
            )
        self.names = names
        self.ids = {name: i for i, name in enumerate(names)}
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def parse(
        cls, spec: str, scan: Callable[[], Counter[str]], *, numbers: bool = False, warns: bool = True
    ) -> LabelMap:
        """Reads a `labelEnumerateValues` value, and warns of names that look the same.

        Args:
            spec: Comma list, path of a file with one name per line, or `auto`.
            scan: Returns label counts of the training table; called for `auto` only.
            warns: Whether names that look alike or mean a missing value are told.
            numbers: Whether the application could predict numbers in place of classes.

        Raises:
            ConfigError: The list has a name twice, an empty one, or fewer than two; or its file cannot be read.
            DataError: `auto` finds one class only.
        """
        labels = cls._scanned(scan(), numbers) if spec == "auto" else cls._listed(spec)
        for sentence in name_warnings(labels.names, from_table=spec == "auto") if warns else ():
            warn(sentence)
        return labels

    @classmethod
    def _scanned(cls, counts: Counter[str], numbers: bool) -> LabelMap:
        if not counts:
            raise ConfigError(
                "labelEnumerateValues=auto found no label in the training table",
                fix="check the table, the delimiter and labelName",
            )
        if len(counts) == 1:
            ((name, rows),) = counts.items()
            hint = "; labelEnumerateValues=none predicts numbers" if numbers and _is_number(name) else ""
            raise DataError(
                "the training table has one class only, so there is nothing to tell apart",
                received=f"{name} ({rows:,} times)",
                accepted="two classes or more",
                fix="add rows of other classes, or name another column in labelName" + hint,
            )
        found = cls(sorted(counts))
        found.counts = counts
        return found

    @classmethod
    def _listed(cls, spec: str) -> LabelMap:
        # Not `Path.is_file`, which raises for a list longer than a file name.
        if os.path.isfile(spec):
            try:
                lines = Path(spec).read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"labelEnumerateValues: cannot read {spec}: {error}") from None
            labels = cls([name for name in map(trimmed, lines) if name])
            if len(labels) < 2:
                raise ConfigError(
                    f"the label file {spec} names fewer than two classes",
                    received=", ".join(labels.names),
                    accepted=_TWO_OR_MORE,
                )
            return labels
        if "," not in spec:
            file = "the file named by labelEnumerateValues does not exist"
            raise ConfigError(
                file
                if "/" in spec
                else "labelEnumerateValues names one class alone, and there is no file of this name",
                received=spec,
                accepted=_TWO_OR_MORE,
                fix="list every class, or check the path",
            )
        return cls([trimmed(name) for name in spec.split(",")])

    def id_of(self, cell: Any) -> int | None:
        """Returns the id of the class that a cell holding one value names (see `label_names`), None if it names none.

        Runs of earlier versions have classes such as `1.0`, and names with characters that show nothing.
        """
        if type(cell) is str and cell in self.ids:
            return self.ids[cell]
        found = self.ids.get(class_name(cell))
        return self.ids.get(str(cell).strip()) if found is None else found

    def why_unknown(self, name: str, kind: str = "label", place: str = "") -> str:
        """Returns the reason why a name is no class: empty, or not among the names, one of which may look like it."""
        if not name:
            return f"empty {kind}"
        near = self._by_likeness.get(likeness(name))
        hint = "" if near is None else f"; {spelled(name)} looks like {spelled(near)} but is not written like it"
        return f"unknown {kind}: {name!r}{place}; known: {self.describe()}{hint}"

    @functools.cached_property
    def _by_likeness(self) -> dict[str, str]:
        return {likeness(name): name for name in reversed(self.names)}

    def save(self, folder: str | Path) -> None:
        """Writes `label_mapping.json` (name to id) into `folder`."""
        text = json.dumps(self.ids, ensure_ascii=False, indent=2)
        (Path(folder) / self.FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> LabelMap | None:
        """Reads `label_mapping.json` of a run folder or export; None where there is none (regression)."""
        path = Path(folder) / cls.FILE
        if not path.is_file():
            return None
        try:
            ids = parse_json(path.read_text(encoding="utf-8"))
            numbered = sorted(ids.values()) == list(range(len(ids)))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} is not a JSON object of label numbers: {error}") from None
        if not numbered:
            raise ModelError(f"{path} does not number its labels 0..n-1", received=ids)
        return cls(sorted(ids, key=ids.__getitem__))

    def describe(self, most: int = 12) -> str:
        """Returns the names for a message, cut after `most`."""
        shown = ", ".join(self.names[:most])
        return shown if len(self) <= most else f"{shown}, ... ({len(self)} in all)"

    def describe_counts(self, most: int = 20) -> str:
        """Returns the names, each with its count where these are known, cut after `most`."""
        shown = [f"{name} ({self.counts[name]:,})" if self.counts else name for name in self.names[:most]]
        return ", ".join(shown) + ("" if len(self) <= most else f", ... ({len(self)} in all)")
