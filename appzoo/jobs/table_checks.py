"""What a training warns of its tables, counted while they are read; nothing of it changes what is trained."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from appzoo.jobs.distributions import rows_by_label
from easytransfer.app.contract import App
from easytransfer.app.targets.labels import LabelTarget
from easytransfer.data.duplicates import DuplicateFinder
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.inspection import comparable, near_empty
from easytransfer.data.label_names import class_name, class_names
from easytransfer.data.table import RowChunk
from easytransfer.run import suspicions
from easytransfer.run.log import warn

# Names of the two tables, in the order in which they are read.
PARTS = ("train", "eval")


class TableChecks:
    """Looks at the rows of both tables of an application on texts with labels; at no others. A context manager.

    Args:
        app: Whose labels are known.
    """

    def __init__(self, app: App) -> None:
        self._app, self._finder = app, DuplicateFinder()
        self._texts = list(app.input_columns())
        # Paths of pictures say nothing of what is in them.
        of_texts = bool(self._texts) and set(self._texts) == set(app.text_columns())
        self._looks = of_texts and isinstance(app.target, LabelTarget)
        # A number is no other label where it differs a little.
        self._labelled = self._looks and app.target.kind != "regression"
        self._empty = dict.fromkeys(PARTS, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finder.__exit__(kind, error, trace)

    def watch(self, part: str) -> Callable[[RowChunk], None] | None:
        """Returns what looks at the accepted rows of a table; None where there is nothing to look at."""
        if not self._looks:
            return None

        def look(chunk: RowChunk) -> None:
            # A table of token ids has no texts.
            if not set(self._texts) <= chunk.columns.keys():
                return
            texts = list(zip(*(map(comparable, chunk.columns[name]) for name in self._texts), strict=True))
            self._empty[part] += sum(any(map(near_empty, row)) for row in texts)
            self._finder.add(PARTS.index(part), chunk.index, texts, self._labels(chunk))

        return look

    def _labels(self, chunk: RowChunk) -> list[str]:
        if not self._labelled:
            return [""] * len(chunk.index)
        cells = chunk.columns[self._app.target.column]
        if self._app.target.kind == "multi_label":
            # In brackets, since none of them is an answer and not a row without a label.
            return [f"[{','.join(sorted(class_names(cell)))}]" for cell in cells]
        return list(map(class_name, cells))

    def warn(self, tables: dict[str, EncodedTable], cut: dict[str, tuple[int, int]]) -> None:
        """Warns of what was found, in one line each.

        Args:
            tables: Both, encoded.
            cut: Texts that were cut, and all texts, of each.
        """
        repeats = self._finder.result()
        sentences = [
            suspicions.conflicting_rows(PARTS[part], found.conflicting) for part, found in repeats.within.items()
        ]
        sentences += [
            suspicions.shared_rows("eval", "train", found.rows, found.conflicting) for found in repeats.between.values()
        ]
        if isinstance(self._app.target, LabelTarget) and self._app.target.kind == "classification":
            sentences.append(suspicions.unseen_labels("eval", "train", self._unseen(tables)))
        limit = self._app.config.data.sequence_length
        sentences += [suspicions.cut_texts(part, few, rows, limit) for part, (few, rows) in cut.items()]
        sentences += [suspicions.near_empty_texts(part, rows) for part, rows in self._empty.items()]
        for sentence in sentences:
            if sentence:
                warn(sentence)

    def _unseen(self, tables: dict[str, EncodedTable]) -> dict[str, int]:
        names = self._app.target.names or []
        train, evaluation = (rows_by_label(tables[part], len(names)) for part in PARTS)
        return {name: int(evaluation[i]) for i, name in enumerate(names) if evaluation[i] and not train[i]}
