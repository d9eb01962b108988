"""Who is on an image: identity, camera, outfit and what the row is for; and how well persons are found again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.person_reid.config import PersonDataConfig, RetrievalSettings
from appzoo.person_reid.ranking import JUNK, UNKNOWN, Persons, cosine_distance, retrieval_metrics
from appzoo.person_reid.reranking import Reranking
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.base import Target
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import RowChunk
from easytransfer.errors import ConfigError, DataError, ModelError
from easytransfer.metrics.collector import RowCollector
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.run.atomic import write_json
from easytransfer.run.folder import RunFolder
from easytransfer.run.log import say
from easytransfer.train.step import Losses, Step
from easytransfer.train.task import Batch, Outputs

TRAIN, QUERY, GALLERY, UNLABELLED = range(4)
SPLITS = ("train", "query", "gallery", "unlabelled")
_LEAST, _MOST = -1, 2**31 - 1
# Columns of the labels.
COLUMNS = ("pid", "camera", "clothes", "role", "order")


class PersonTarget(Target):
    """Identities, with cameras and outfits to rank by.

    `pid`, `camera`, `clothes` and `role` are int32 [batch], `order` is the number of the row in its table, int64.

    Args:
        data: Names of the columns.
        retrieval: How queries are ranked.
        identities: Identities of the training, sorted, int64; None where they are not known yet.
    """

    FILE: ClassVar[str] = "identities.json"
    encoded_columns: ClassVar[tuple[str, ...]] = COLUMNS
    asset_files: ClassVar[tuple[str, ...]] = (FILE,)

    def __init__(
        self, data: PersonDataConfig, retrieval: RetrievalSettings, identities: np.ndarray | None = None
    ) -> None:
        self.data, self.retrieval, self._identities = data, retrieval, identities

    @classmethod
    def load(cls, data: PersonDataConfig, retrieval: RetrievalSettings, folder: Path) -> PersonTarget:
        """Returns the target of a run or an export, see `save_assets`.

        Raises:
            ModelError: The file is missing or damaged.
        """
        stored = RunFolder(folder).read_json(cls.FILE)
        numbers = stored.get("pids") if isinstance(stored, dict) else None
        if not isinstance(numbers, list) or not all(type(n) is int and _LEAST <= n <= _MOST for n in numbers):
            raise ModelError(f"{folder / cls.FILE} does not list identities", accepted='{"pids": [1, 2, ...]}')
        return cls(data, retrieval, np.array(numbers, np.int64))

    @property
    def identities(self) -> np.ndarray:
        """Identities of the training in the order of their classes, int64 [identities].

        Raises:
            ConfigError: The training table has not been looked at yet.
        """
        if self._identities is None:
            raise ConfigError("the identities are not known yet", fix="call on_train_table with the training table")
        return self._identities

    # Rows ------------------------------------------------------------------------------------------------------

    def table_columns(self) -> list[str]:
        """Returns the label columns there are."""
        data = self.data
        return [name for name in (data.label_name, data.camera_name, data.clothes_name, data.split_name) if name]

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns `COLUMNS`; cells that are no numbers, or unknown splits, are bad rows."""
        data, rows = self.data, len(chunk.accepted)
        unknown = np.full(rows, UNKNOWN, np.int32)
        found = {
            "pid": _read(chunk, str(data.label_name), identity),
            "camera": _read(chunk, data.camera_name, number) if data.camera_name else unknown,
            "clothes": _read(chunk, data.clothes_name, number) if data.clothes_name else unknown,
            "role": _read(chunk, data.split_name, split) if data.split_name else self._role_of_file(chunk),
            "order": np.asarray(chunk.index, np.int64),
        }
        # What is not to be known of a row is not in the arrays either.
        found["pid"] = np.where(found["role"] == UNLABELLED, JUNK, found["pid"]).astype(np.int32)
        return Encoded(found)

    @staticmethod
    def _role_of_file(chunk: RowChunk) -> np.ndarray:
        return np.full(len(chunk.accepted), QUERY if "query" in Path(chunk.file).name.lower() else GALLERY, np.int32)

    def trained_rows(self, train: EncodedTable) -> np.ndarray:
        """Returns which rows of the training table are for training, bool [rows]: with a split column, as it says."""
        roles = np.asarray(train.columns["role"])
        return np.isin(roles, (TRAIN, UNLABELLED)) if self.data.split_name else np.ones(len(roles), bool)

    def on_train_table(self, train: EncodedTable) -> None:
        """Finds the identities.

        Raises:
            DataError: No row is for training.
            ConfigError: A distractor is.
        """
        usable = self.trained_rows(train)
        pids = np.asarray(train.columns["pid"])[usable].astype(np.int64)
        if not len(pids):
            raise DataError(
                f"no row of the training table is for training: column {self.data.split_name!r} says query or gallery",
                fix="give a table with rows for training, or data.split_name= where the column means something else",
            )
        if self.data.distractor_pid in pids:
            raise ConfigError(
                f"the training table has the identity {self.data.distractor_pid}, which stands for distractors",
                fix="number the identities from 1, or set data.distractor_pid=none",
            )
        self._identities = np.unique(pids[pids != JUNK])
        unlabelled = int((pids == JUNK).sum())
        say(
            f"{len(self._identities):,} identities on {len(pids) - unlabelled:,} images to train on; "
            f"{unlabelled:,} images are unlabelled, {int((~usable).sum()):,} for something else"
        )

    def save_assets(self, folder: Path) -> None:
        """Writes the identities of the classes."""
        write_json(folder / self.FILE, {"pids": self.identities.tolist()})

    # Training --------------------------------------------------------------------------------------------------

    def class_ids(self, pids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the class of each identity, int32 [batch], and whether it is one of the training, float32 [batch]."""
        known = tf.constant(self.identities, tf.int64)
        pids = tf.cast(pids, tf.int64)
        found = tf.minimum(tf.searchsorted(known, pids), len(self.identities) - 1)
        return found, tf.cast(tf.gather(known, found) == pids, tf.float32)

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns none: those of training are the application's, and persons to be found again are no classes."""
        return {}

    # Results ---------------------------------------------------------------------------------------------------

    def evaluator(self) -> Evaluator:
        """Returns CMC and mAP by three protocols."""
        return RetrievalEvaluator(self.retrieval, self.data.distractor_pid)

    def output_columns(self) -> tuple[str, ...]:
        """Returns the one column."""
        return ("embedding",)

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns the vectors."""
        return {"embedding": list(outputs["embedding"])}

    def persons(self, encoded: EncodedTable, vectors: np.ndarray, role: int) -> tuple[Persons, np.ndarray]:
        """Returns the persons of one role in table order, and their rows.

        Args:
            encoded: Labelled table.
            vectors: Unit vectors of its rows, [rows, width].
            role: QUERY or GALLERY.
        """
        columns = {name: np.asarray(encoded.columns[name]) for name in ("pid", "camera", "clothes", "role")}
        rows = np.flatnonzero(columns.pop("role") == role)
        return Persons(vectors, **columns).take(rows), rows


class RetrievalEvaluator(RowCollector, Evaluator):
    """Finds every query again in the gallery, see `retrieval_metrics`.

    The metrics of changed and of equal clothes are there where the table says what is worn. That of changed clothes is
    then the main one: what learns to look past clothes loses in equal ones.

    Args:
        settings: How queries are ranked.
        distractor: Identity of gallery images that show none of the persons.
    """

    def __init__(self, settings: RetrievalSettings, distractor: int | None = None) -> None:
        super().__init__()
        self.settings, self.distractor = settings, distractor

    @property
    def main_metric(self) -> str:  # type: ignore[override]
        """`cc_map` where outfits are known, else `map`."""
        return "cc_map" if self._knows_clothes else "map"

    @property
    def _knows_clothes(self) -> bool:
        return len(self) > 0 and bool((self.rows("clothes") != UNKNOWN).any())

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds queries and gallery images; rows for training are left out."""
        rows = np.isin(batch["role"], (QUERY, GALLERY))
        self.add(vector=outputs["embedding"][rows], **{name: batch[name][rows] for name in COLUMNS})

    def result(self) -> dict[str, float]:
        """Returns the metrics, and how many queries and gallery images there are without junk."""
        order = np.argsort(self.rows("order"), kind="stable")
        pid, role = self.rows("pid")[order], self.rows("role")[order]
        persons = Persons(self.rows("vector")[order], pid, *(self.rows(n)[order] for n in ("camera", "clothes")))
        queries, gallery = (persons.take((role == wanted) & (pid != JUNK)) for wanted in (QUERY, GALLERY))
        chosen = self.settings
        metrics = retrieval_metrics(
            queries,
            gallery,
            protocols=("", "cc", "sc") if self._knows_clothes else ("",),
            distractor=self.distractor,
            distance=Reranking(chosen.rerank_k1, chosen.rerank_k2, chosen.rerank_lambda, chosen.most_pairs)
            if chosen.rerank
            else cosine_distance,
            trials=chosen.single_shot_trials,
        )
        return {**metrics, "queries": float(len(queries)), "gallery": float(len(gallery))}


def _read(chunk: RowChunk, column: str, read: Callable[[Any], int]) -> np.ndarray:
    """Returns what `read` makes of each cell, int32 [rows]; one it refuses makes a bad row."""
    found = np.zeros(len(chunk.accepted), np.int32)
    for row, cell in enumerate(chunk.columns[column]):
        try:
            found[row] = read(cell)
        except ValueError as error:
            chunk.reject(row, column, str(error))
    return found


def identity(cell: Any) -> int:
    """Returns the number of an identity.

    Raises:
        ValueError: The cell is none.
    """
    return _whole(cell, "identity")


def number(cell: Any) -> int:
    """Returns the number of a camera or an outfit.

    Raises:
        ValueError: The cell is none.
    """
    return _whole(cell, "number")


def _whole(cell: Any, what: str) -> int:
    try:
        if isinstance(cell, float) and cell != int(cell):
            raise ValueError
        found = int(cell)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"unreadable {what}: {str(cell)[:40]!r}; known: whole numbers from -1") from None
    if not _LEAST <= found <= _MOST:
        raise ValueError(f"unreadable {what}: {found} is not from -1 to {_MOST}")
    return found


def split(cell: Any) -> int:
    """Returns what a row is for: 0 train, 1 query, 2 gallery, 3 unlabelled.

    Raises:
        ValueError: The cell is neither a name nor a number of these.
    """
    text = json.dumps(cell) if isinstance(cell, bool) else str(cell).strip().lower()
    if text in SPLITS:
        return SPLITS.index(text)
    if text in ("0", "1", "2", "3"):
        return int(text)
    raise ValueError(f"unknown split: {text[:40]!r}; known: {', '.join(SPLITS)}, or 0 to 3")
