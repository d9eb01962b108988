"""One class, several classes or a number for a row: the model's `logits` [batch, outputs] against `label_id`."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from easytransfer.app.assets import Assets
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.base import Target
from easytransfer.config.job import NO_CLASSES, JobConfig
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.id_tables import is_id_table
from easytransfer.data.label_kind import label_kind
from easytransfer.data.label_names import class_name, class_names, one_value
from easytransfer.data.labels import LabelMap, count_classes
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import RowChunk
from easytransfer.data.values import NOT_NUMBER, read_number
from easytransfer.deferred import tf
from easytransfer.errors import ConfigError
from easytransfer.losses import classification
from easytransfer.metrics.classification import ClassificationEvaluator, MultiLabelEvaluator
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.metrics.regression import RegressionEvaluator
from easytransfer.metrics.scores import sigmoid, softmax
from easytransfer.run.log import say
from easytransfer.savedmodel.signature import Signature
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs

# Most classes whose names stand in each row of an answer, however many there are.
TOP = 5


def best_classes(names: Sequence[str], logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns, inside a graph, the classes with the largest logits, the largest first; of equal ones the lower id.

    Args:
        names: Of the classes, in id order.
        logits: [batch, classes].

    Returns:
        Their names and their ids, both [batch, `TOP` or all classes if there are fewer].
    """
    ids = tf.math.top_k(logits, min(TOP, len(names))).indices
    return tf.gather(tf.constant(list(names)), ids), ids


def best_ids(logits: np.ndarray) -> np.ndarray:
    """Returns the ids of `best_classes` by NumPy."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :TOP]


class LabelTarget(Target):
    """How one kind of label is read, trained on, measured, written and served.

    Attributes:
        kind: `classification`, `multi_label` or `regression`.
        labels: The classes; None for a number.
        num_outputs: Size of the last axis of `logits`.
        column: Table column with the label.
        label_smoothing: Share of the label that is spread over all classes.
        class_weighting: The setting `class_weights`: `balanced`, or one number per class.
        class_weights: Weight of each class, known once the training table is.
    """

    asset_files: ClassVar[tuple[str, ...]] = (LabelMap.FILE,)

    kind: str
    labels: LabelMap | None
    num_outputs: int
    column: str = "label"
    label_smoothing: float = 0.0
    class_weighting: str | None = None
    class_weights: tf.Tensor | None = None
    # Stands for the label of a rejected row.
    blank: Any = 0

    @property
    def names(self) -> list[str] | None:  # type: ignore[override]
        """Class names in id order, None for a number."""
        return self.labels.names if self.labels is not None else None

    @abc.abstractmethod
    def read(self, cell: Any) -> Any:
        """Returns the training value of a label cell.

        Raises:
            ValueError: The cell is not a label; the message is the reason shown to the user.
        """

    @abc.abstractmethod
    def array(self, values: list[Any]) -> np.ndarray:
        """Stacks the values of rows into the `label_id` column."""

    @abc.abstractmethod
    def columns(self, logits: np.ndarray) -> dict[str, list[Any]]:
        """Returns output columns for `logits` [batch, num_outputs]."""

    @abc.abstractmethod
    def loss_sum(self, labels: tf.Tensor, logits: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        """Returns the loss of each row times its weight [batch], summed."""

    def require_classes(self, what: str, fix: str = "give labelEnumerateValues") -> None:
        """Checks that rows have one class each.

        Raises:
            ConfigError: They have several, or a number.
        """
        if self.kind != "classification":
            raise ConfigError(f"{what} needs a task with one class per row", fix=fix)

    def table_columns(self) -> list[str]:
        """Returns the label column."""
        return [self.column]

    def read_column(self, chunk: RowChunk) -> list[Any]:
        """Returns the training value of every position; a cell that is no label makes a bad row."""
        values = []
        for row, cell in enumerate(chunk.columns[self.column]):
            try:
                values.append(self.read(cell))
            except ValueError as error:
                chunk.reject(row, self.column, str(error))
                values.append(self.blank)
        return values

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns `label_id`."""
        return Encoded({"label_id": self.array(self.read_column(chunk))})

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns `loss`, divided by the number of real rows or the sum of their class weights."""
        total = self.loss_sum(batch["label_id"], outputs["logits"], batch["example_weight"])
        return {"loss": Loss(total, self.loss_weight(batch))}

    def loss_weight(self, batch: Batch) -> tf.Tensor:
        """Returns the number of real rows, or the sum of their class weights."""
        if self.class_weights is None:
            return tf.reduce_sum(batch["example_weight"])
        return tf.reduce_sum(batch["example_weight"] * tf.gather(self.class_weights, batch["label_id"]))

    def output_columns(self) -> tuple[str, ...]:
        """Returns the output columns there are, in their default order."""
        return ("predictions", "probabilities", "logits")

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns `predictions`, `probabilities` (classes only) and `logits` per row."""
        return self.columns(outputs["logits"])

    def _best(self, logits: tf.Tensor, probabilities: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `top5`, names of the most probable classes, and `top5_score`, their probabilities."""
        names, ids = best_classes(self.labels.names, logits)
        return {"top5": names, "top5_score": tf.gather(probabilities, ids, batch_dims=1)}

    def signatures(self, raw: Signature) -> dict[str, Signature]:
        """Returns the form of `tf.Example` for TensorFlow Serving's Classify call."""
        from easytransfer.savedmodel.example_signatures import classify_signature, takes_examples

        return {"classify": classify_signature(raw, self.names)} if takes_examples(raw) else {}

    def on_train_table(self, train: EncodedTable) -> None:
        """Resolves `class_weights`, which may depend on the label counts of the training table."""
        if self.class_weighting is not None:
            raise ConfigError("train.class_weights needs a task with one class per row", received=self.class_weighting)

    def save_assets(self, folder: Path) -> None:
        """Writes the label map."""
        if self.labels is not None:
            self.labels.save(folder)


class SingleLabel(LabelTarget):
    """One class per row; `label_id` is int32 [batch]."""

    kind = "classification"

    def __init__(self, labels: LabelMap) -> None:
        self.labels, self.num_outputs = labels, len(labels)

    def read(self, cell: Any) -> int:
        """Returns the class id."""
        value = one_value(cell)
        found = self.labels.id_of(value)
        if found is None:
            raise ValueError(self.labels.why_unknown(class_name(value)))
        return found

    def array(self, values: list[int]) -> np.ndarray:
        """Returns int32 [batch]."""
        return np.asarray(values, np.int32)

    def columns(self, logits: np.ndarray) -> dict[str, list[Any]]:
        """Returns predictions (names), probabilities (softmax) and logits."""
        return {
            "predictions": [self.labels.names[i] for i in logits.argmax(axis=1)],
            "probabilities": list(softmax(logits).astype(np.float32)),
            "logits": list(logits),
        }

    def loss_sum(self, labels: tf.Tensor, logits: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        """Returns softmax cross entropy."""
        return classification.softmax_cross_entropy_sum(
            labels, logits, weight, class_weights=self.class_weights, label_smoothing=self.label_smoothing
        )

    def evaluator(self) -> Evaluator:
        """Returns accuracy, F1, AUC and the like."""
        return ClassificationEvaluator(self.names)

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns `probabilities` [batch, classes], `label` and `score` [batch], `top5` and `top5_score`."""
        logits = outputs["logits"]
        probabilities = tf.nn.softmax(logits)
        label, score = tf.gather(tf.constant(self.names), tf.argmax(logits, axis=-1)), tf.reduce_max(probabilities, -1)
        return {"probabilities": probabilities, "label": label, "score": score, **self._best(logits, probabilities)}

    def answer_rows(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, np.ndarray]:
        """Returns what `answer` returns, by NumPy."""
        return _class_rows(self.columns(outputs["logits"]), outputs["logits"], self.labels.names)

    def on_train_table(self, train: EncodedTable) -> None:
        """Resolves `class_weights`.

        Raises:
            ConfigError: They are not one number per class.
        """
        spec = self.class_weighting
        if spec is None:
            return
        if spec == "balanced":
            seen = np.bincount(train.columns["label_id"], minlength=self.num_outputs)
            weights = len(train) / (self.num_outputs * np.maximum(seen, 1))
        else:
            try:
                weights = np.array([float(part) for part in spec.split(",")])
            except ValueError:
                weights = np.zeros(0)
            if len(weights) != self.num_outputs or not (weights >= 0).all() or not weights.any():
                raise ConfigError(
                    "class_weights is not one number >= 0 per label",
                    received=spec,
                    accepted=f"`balanced`, or {self.num_outputs} numbers",
                )
        self.class_weights = tf.constant(weights, tf.float32)


class MultiLabel(LabelTarget):
    """Any number of classes per row; `label_id` is a float32 multi-hot [batch, classes]."""

    kind = "multi_label"
    blank = ()

    def __init__(self, labels: LabelMap, max_num_labels: int, threshold: float) -> None:
        self.labels, self.num_outputs = labels, len(labels)
        self.max_num_labels, self.threshold = max_num_labels, threshold

    def read(self, cell: Any) -> list[int]:
        """Returns the class ids of a list or a comma list."""
        # A class name may itself hold a comma when the label list came from a file.
        whole = None if isinstance(cell, (list, tuple, np.ndarray)) else self.labels.id_of(cell)
        names = class_names(cell) if whole is None else [self.labels.names[whole]]
        if not names:
            raise ValueError("empty label")
        ids = [self.labels.id_of(name) for name in names]
        if None in ids:
            raise ValueError(self.labels.why_unknown(names[ids.index(None)]))
        if len(ids) > self.max_num_labels:
            raise ValueError(f"too many labels: {len(ids)}, more than max_num_labels={self.max_num_labels}")
        if len(set(ids)) < len(ids):
            raise ValueError("label given twice")
        return ids

    def array(self, values: list[list[int]]) -> np.ndarray:
        """Returns multi-hot float32 [batch, classes]."""
        hot = np.zeros((len(values), self.num_outputs), np.float32)
        for row, ids in enumerate(values):
            hot[row, ids] = 1.0
        return hot

    def columns(self, logits: np.ndarray) -> dict[str, list[Any]]:
        """Returns predictions (comma-joined names), probabilities (sigmoid) and logits."""
        probabilities = sigmoid(logits)
        names = [",".join(self.labels.names[i] for i in np.flatnonzero(row > self.threshold)) for row in probabilities]
        return {"predictions": names, "probabilities": list(probabilities.astype(np.float32)), "logits": list(logits)}

    def loss_sum(self, labels: tf.Tensor, logits: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        """Returns sigmoid cross entropy."""
        return classification.sigmoid_cross_entropy_sum(labels, logits, weight)

    def evaluator(self) -> Evaluator:
        """Returns F1 and mean AUC over the classes."""
        return MultiLabelEvaluator(self.names, threshold=self.threshold)

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns the same as one class per row does; `label` has all names above the threshold, joined by commas."""
        logits = outputs["logits"]
        probabilities = tf.sigmoid(logits)
        names = tf.broadcast_to(tf.constant(self.names), tf.shape(probabilities))
        chosen = tf.ragged.boolean_mask(names, probabilities > self.threshold)
        label, score = tf.strings.reduce_join(chosen, axis=-1, separator=","), tf.reduce_max(probabilities, axis=-1)
        return {"probabilities": probabilities, "label": label, "score": score, **self._best(logits, probabilities)}

    def answer_rows(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, np.ndarray]:
        """Returns what `answer` returns, by NumPy."""
        return _class_rows(self.columns(outputs["logits"]), outputs["logits"], self.labels.names)


def _class_rows(columns: dict[str, list[Any]], logits: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns output columns as a server answers them, and `top5` with `top5_score`, see `SingleLabel.answer`."""
    probabilities = np.array(columns["probabilities"], np.float32).reshape(-1, len(names))
    ids = best_ids(logits)
    return {
        "probabilities": probabilities,
        "label": text_array(columns["predictions"]),
        "score": probabilities.max(axis=-1),
        "top5": text_array(names)[ids],
        "top5_score": np.take_along_axis(probabilities, ids, axis=1),
    }


def text_array(texts: Sequence[str]) -> np.ndarray:
    """Returns texts as a server answers them: bytes in an array of objects, [batch]."""
    return np.array([*(text.encode() for text in texts), None], object)[:-1]


class Score(LabelTarget):
    """A number per row; `label_id` is float32 [batch]. Predictions are the value itself."""

    kind = "regression"
    labels = None
    num_outputs = 1

    def read(self, cell: Any) -> float:
        """Returns the number in the cell, by the rules of `float` columns whatever the type of the cell."""
        cell = one_value(cell)
        if isinstance(cell, str) and not cell.strip():
            raise ValueError("empty label")
        try:
            return read_number(cell)
        except ValueError as error:
            hint = " (without labelEnumerateValues the task is regression)"
            raise ValueError(f"{error}{hint if str(error).startswith(NOT_NUMBER) else ''}") from None

    def array(self, values: list[float]) -> np.ndarray:
        """Returns float32 [batch]."""
        return np.asarray(values, np.float32)

    def columns(self, logits: np.ndarray) -> dict[str, list[Any]]:
        """Returns predictions (the value) and logits; a score has no probability."""
        return {"predictions": list(logits[:, 0]), "logits": list(logits)}

    def loss_sum(self, labels: tf.Tensor, logits: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        """Returns the squared error."""
        return classification.squared_error_sum(labels, logits, weight)

    def evaluator(self) -> Evaluator:
        """Returns errors and correlations."""
        return RegressionEvaluator()

    def output_columns(self) -> tuple[str, ...]:
        """Returns the output columns: a number has no probability."""
        return ("predictions", "logits")

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns `score` [batch]."""
        return {"score": outputs["logits"][:, 0]}

    def answer_rows(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, np.ndarray]:
        """Returns what `answer` returns, by NumPy."""
        return {"score": outputs["logits"][:, 0]}

    def signatures(self, raw: Signature) -> dict[str, Signature]:
        """Returns the form of `tf.Example` for TensorFlow Serving's Regress call."""
        from easytransfer.savedmodel.example_signatures import regress_signature, takes_examples

        return {"regress": regress_signature(raw)} if takes_examples(raw) else {}


def label_target(
    config: JobConfig,
    assets: Assets,
    classes: Callable[[LabelMap], SingleLabel] = SingleLabel,
    scores: Callable[[], Score] = Score,
    *,
    numbers: bool = True,
) -> LabelTarget:
    """Returns the target that the settings of a job name: one class, several, or a number.

    Label names come from the configuration and the training table, or from a trained run.

    Args:
        config: Of the job.
        assets: Where the names are.
        classes: Makes the target where rows have one class each.
        scores: Makes it where they have a number.
        numbers: Whether the application takes numbers in place of classes, for what a message advises.

    Raises:
        ConfigError: `num_labels` differs from the names, or multi_label has no names.
    """
    data, model = config.data, config.model
    several = getattr(model, "multi_label", False)
    # These settings are for classes only.
    bound = several or config.train.class_weights or getattr(model, "num_labels", None) not in (None, 1)
    numbers = numbers and not bound
    if assets.folder is not None:
        labels = LabelMap.load(assets.folder)
    elif (spec := data.label_enumerate_values or _found(config, assets, numbers)) not in (None, NO_CLASSES):
        skip = data.bad_rows != "fail"
        labels = LabelMap.parse(
            spec,
            lambda: count_classes(assets.values(data.label_name), several=several, skip=skip),
            numbers=numbers,
        )
    else:
        labels = _numbered_labels(config)
    if several:
        target: LabelTarget = _several(config, labels)
    else:
        # One class alone is how runs of earlier versions that predict a number were stored.
        target = classes(labels) if labels is not None and len(labels) > 1 else scores()
    stated = getattr(model, "num_labels", None)
    if stated is not None and stated != target.num_outputs:
        raise ConfigError(
            "model.num_labels differs from the number of labels listed",
            received=stated,
            accepted=str(target.num_outputs),
        )
    target.column = data.label_name or target.column
    target.label_smoothing, target.class_weighting = config.train.label_smoothing, config.train.class_weights
    return target


def _found(config: JobConfig, assets: Assets, numbers: bool) -> str | None:
    """Returns `auto` where the label column of the training table has classes and nothing says so, else None.

    Args:
        config: Of the job.
        assets: Where the cells are.
        numbers: Whether they may be numbers to predict.
    """
    column = config.data.label_name
    if column is None or _numbered_labels(config) is not None:
        return None
    if getattr(config.model, "num_labels", None) == 1:
        return None
    cells = assets.values(column)
    if not numbers:
        return "auto" if next(iter(cells), None) is not None else None
    kind = label_kind(cells, column, declared=config.data.input_schema is not None)
    if kind == "numbers":
        say(f"labels: the column {column!r} has numbers, which are predicted; labelEnumerateValues=auto makes classes")
    return "auto" if kind == "classes" else None


def _several(config: JobConfig, labels: LabelMap | None) -> MultiLabel:
    if labels is None:
        raise ConfigError("multi_label needs the label names", fix="give labelEnumerateValues")
    return MultiLabel(labels, config.model.max_num_labels, config.model.multi_label_threshold)


def _numbered_labels(config: JobConfig) -> LabelMap | None:
    """Returns the names 0, 1, ... where the table holds ids in place of text and labels, None for scores."""
    schema, count = config.data.input_schema, getattr(config.model, "num_labels", None)
    if count is None or count < 2 or schema is None or not is_id_table(parse_schema(schema)):
        return None
    return LabelMap([str(i) for i in range(count)])
