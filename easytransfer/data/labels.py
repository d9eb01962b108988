"""Class names and their ids, from a list, a file or the training table."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from easytransfer.config.json_text import parse_json
from easytransfer.errors import ConfigError, ModelError


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
    def parse(cls, spec: str, scan: Callable[[], Counter[str]]) -> LabelMap:
        """Reads a `labelEnumerateValues` value.

        Args:
            spec: Comma list, path of a file with one name per line, or `auto`.
            scan: Returns label counts of the training table; called for `auto` only.
        """
        if spec == "auto":
            counts = scan()
            if not counts:
                raise ConfigError(
                    "labelEnumerateValues=auto found no label in the training table",
                    fix="check the table, the delimiter and labelName",
                )
            found = cls(sorted(counts))
            found.counts = counts
            return found
        # Not `Path.is_file`, which raises for a list longer than a file name.
        if os.path.isfile(spec):
            try:
                lines = Path(spec).read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"labelEnumerateValues: cannot read {spec}: {error}") from None
            return cls([line.strip() for line in lines if line.strip()])
        if "/" in spec and "," not in spec:
            raise ConfigError("the file named by labelEnumerateValues does not exist", received=spec)
        return cls([name.strip() for name in spec.split(",")])

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
