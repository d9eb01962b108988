"""`base_model`: an own application in four hooks, as in the original EasyTransfer.

    class MyApp(base_model):
        def build_logits(self, features, mode=None): ...      # -> (logits, labels); labels are None without a label
        def build_loss(self, logits, labels): ...             # -> scalar mean over the batch
        def build_eval_metrics(self, logits, labels): ...     # -> metrics of easytransfer.evaluators
        def build_predictions(self, predict_output): ...      # -> dict name -> tensor

Layers, models and preprocessors made inside `build_logits` are made once and used again (`layers.created_once`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from easytransfer import keras
from easytransfer.config.job import JobConfig
from easytransfer.config.original import from_original_json
from easytransfer.data.batches import Batches, prefetch
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import RowChunk
from easytransfer.datasets import CSVWriter, TableReader
from easytransfer.errors import ConfigError, DataError
from easytransfer.evaluators import EvalMetric, MetricCollector, fetches
from easytransfer.layers.created_once import objects_in
from easytransfer.preprocessors import RawRows, TextPreprocessor
from easytransfer.run.report import RunReporter
from easytransfer.train import checkpoint
from easytransfer.train.inference import Inference
from easytransfer.train.task import Batch, Evaluator, Outputs, Task
from easytransfer.train.trainer import Trainer

MODES = ("train", "train_and_evaluate", "evaluate", "predict", "export", "preprocess")
# Rows the hooks are first called with, to create their variables.
SAMPLE_ROWS = 2


class base_model:  # noqa: N801 - the original's name
    """An application defined by its model function, loss, metrics and predictions.

    Every key of the configuration is an attribute, such as `self.train_input_fp` and `self.num_labels`.

    Args:
        user_defined_config: Original-style JSON configuration as a dict; default: the file of `--config`.
        **kwargs: Further attributes.

    Raises:
        ConfigError: There is no configuration, or it is not valid.
    """

    def __init__(self, user_defined_config: dict[str, Any] | None = None, **kwargs: Any) -> None:
        given = argparse.Namespace(mode=None, tables=None, outputs=None)
        if user_defined_config is None:
            given = _command_line()
            user_defined_config = _read_json(given.config)
        mode = (given.mode or "train").removesuffix("_on_the_fly")
        if mode not in MODES:
            raise ConfigError("unknown mode", received=given.mode, accepted=MODES)
        _put_tables(user_defined_config, mode, given.tables, given.outputs)
        for name, value in (_flat(user_defined_config) | kwargs).items():
            setattr(self, name, value)
        settings = from_original_json(user_defined_config, "train" if mode == "train_and_evaluate" else mode)
        # Model settings are the subclass's own: they are attributes, not part of the schema.
        settings = {key: value for key, value in settings.items() if key not in ("model", "model_name")}
        self.mode = mode
        self.append_columns = tuple(_names(settings.get("data", {}).pop("append_feature_columns", None)))
        self.job = JobConfig.model_validate(settings)
        TableReader.default_data = self.job.data
        self._task = _HookTask(self)

    # The four hooks ------------------------------------------------------------------------------------------

    def build_logits(self, features: dict[str, tf.Tensor], mode: str | None = None) -> Any:
        """Returns `(logits, labels)` for a batch of features; `mode` is `train`, `eval` or `predict`."""
        raise NotImplementedError(f"{type(self).__name__} must define build_logits(features, mode)")

    def build_loss(self, logits: Any, labels: Any) -> tf.Tensor:
        """Returns the mean loss of the batch, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} must define build_loss(logits, labels)")

    def build_eval_metrics(self, logits: Any, labels: Any) -> dict[str, EvalMetric]:
        """Returns metrics by name, made by the functions of `easytransfer.evaluators`."""
        raise NotImplementedError(f"{type(self).__name__} must define build_eval_metrics(logits, labels)")

    def build_predictions(self, predict_output: Any) -> dict[str, tf.Tensor]:
        """Returns output columns for what `build_logits` returned, each with the row first."""
        raise NotImplementedError(f"{type(self).__name__} must define build_predictions(predict_output)")

    # Running -------------------------------------------------------------------------------------------------

    def run_train(self, reader: TableReader) -> dict[str, float]:
        """Trains on the rows of `reader` and returns the facts of the fit."""
        return self.run_train_and_evaluate(reader, None)

    def run_train_and_evaluate(self, train_reader: TableReader, eval_reader: TableReader | None) -> dict[str, float]:
        """Trains on one reader, evaluates on the other, and returns the best metrics."""
        if not self.job.checkpoint_dir:
            raise ConfigError("train_config.model_dir is missing", fix="name the folder for checkpoints")
        train = Batches(self._encode(train_reader), train_reader.batch_size, shuffle=True, seed=self.job.runtime.seed)
        evaluation = eval_reader and Batches(self._encode(eval_reader), eval_reader.batch_size, shuffle=False)
        run_dir = Path(self.job.checkpoint_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(self._task, self.job.train, self.job.runtime, run_dir, RunReporter(run_dir))
        return dict(trainer.fit(train, evaluation).best_metrics)

    def run_evaluate(self, reader: TableReader, checkpoint_path: str) -> dict[str, float]:
        """Returns the metrics of a checkpoint on the rows of `reader`."""
        encoded = self._encode(reader)
        self._restore(checkpoint_path)
        batches = Batches(encoded, reader.batch_size, shuffle=False)
        return Inference(self._task).evaluate(batches.epoch(0))[0]

    def run_predict(
        self,
        reader: TableReader,
        writer: CSVWriter | None = None,
        checkpoint_path: str | None = None,
        yield_single_examples: bool = False,
    ) -> Iterator[dict[str, Any]] | None:
        """Predicts the rows of `reader` with a checkpoint.

        Args:
            reader: Rows.
            writer: Gets the predictions and the input columns its schema names; None returns a generator.
            checkpoint_path: Run folder or checkpoint.
            yield_single_examples: Yield one dict per row instead of one per batch.
        """
        results = self._predictions(reader, checkpoint_path or self.job.checkpoint_path)
        if writer is None:
            return _single(results) if yield_single_examples else results
        for result in results:
            writer.process(result)
        writer.close()
        return None

    # Inside --------------------------------------------------------------------------------------------------

    def _encode(self, reader: TableReader) -> EncodedTable:
        parts = [self._task.encode(chunk) for chunk in prefetch(reader.chunks(), depth=2)]
        if not sum(map(len, parts)):
            raise DataError("the reader gave no usable row", received=str(reader.table.count))
        return EncodedTable.concat(parts)

    def _restore(self, path: str | None) -> None:
        if not path:
            raise ConfigError("no checkpoint was named", fix="give checkpoint_path")
        self._task.build_model()
        checkpoint.load_weights(self._task.model, path)

    def _predictions(self, reader: TableReader, path: str | None) -> Iterator[dict[str, Any]]:
        predict, restored = tf.function(self._task.predictions, reduce_retracing=True), False
        for chunk in reader.chunks(size=reader.batch_size):
            encoded = self._task.encode(chunk)
            if not restored:
                self._restore(path)
                restored = True
            batch = encoded.batch(np.arange(len(encoded)))
            found = predict({name: tf.constant(value) for name, value in batch.items()})
            rows = chunk.compact().columns
            yield {**rows, **{name: value.numpy() for name, value in found.items()}}


class _HookModel(keras.Model):
    """Calls `build_logits`; owns the layers made in it."""

    def __init__(self, app: base_model) -> None:
        super().__init__(name=type(app).__name__)
        self._app = app
        self.objects: dict[str, Any] = {}

    def call(self, batch: Batch, training: bool = False, mode: str | None = None) -> Any:
        with objects_in(self.objects):
            return self._app.build_logits(batch, mode=mode or ("train" if training else "eval"))


class _HookTask(Task):
    """The engine's view of a `base_model`."""

    def __init__(self, app: base_model) -> None:
        self._app = app
        self._sample: RowChunk | None = None
        self._preprocessor: TextPreprocessor | None = None
        self._metrics: dict[str, EvalMetric] = {}
        self.model: keras.Model | None = None

    def encode(self, chunk: RowChunk) -> EncodedTable:
        """Encodes rows as the preprocessor called in `build_logits` does; without one, columns pass as they are."""
        if self._sample is None:
            self._sample = _head(chunk)
            self.build_model()
        if self._preprocessor is not None:
            return self._preprocessor.encode(chunk, self._app.append_columns)
        rows = chunk.compact()
        return EncodedTable({name: np.array(cells) for name, cells in rows.columns.items()})

    def build_model(self) -> keras.Model:
        """Calls `build_logits` on the first rows, which creates the variables and tells the preprocessor."""
        self.model = _HookModel(self._app)
        features = RawRows(self._sample, self._app.job.data)
        # Not through Keras' __call__, which copies dicts and would lose what `features` carries.
        output = self.model.call(features, mode="eval")
        self._preprocessor = features.preprocessor
        # A subclass made for prediction alone returns a dict and has no metrics.
        self._metrics = self._app.build_eval_metrics(*output) if isinstance(output, tuple) else {}
        chosen = getattr(self._app, "tvars", None)
        if chosen is not None:
            names = {id(variable) for variable in chosen}
            self._chosen = [variable for variable in self.model.trainable_variables if id(variable) in names]
        return self.model

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns `app.tvars` when it is set, else all variables, the encoder's layers apart."""
        if getattr(self._app, "tvars", None) is not None:
            return [self._chosen]
        backbones = [obj.backbone for obj in self.model.objects.values() if hasattr(obj, "backbone")]
        if len(backbones) != 1:
            return super().layer_groups()
        *encoder, pooler = backbones[0].layer_groups()
        known = {id(variable) for group in (*encoder, pooler) for variable in group}
        return [*encoder, [*pooler, *(v for v in self.model.trainable_variables if id(v) not in known)]]

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Returns logits and labels, in evaluation also what the metrics need."""
        logits, labels = self.model(batch, training=training)
        outputs = {"logits": logits, "labels": labels}
        return outputs if training else outputs | fetches(self._app.build_eval_metrics(logits, labels))

    def losses(self, batch: Batch, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns the mean loss times the rows: the hooks average, the engine sums."""
        loss = self._app.build_loss(outputs["logits"], outputs["labels"])
        return {"loss": loss * self.loss_weight(batch)}

    def predictions(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Returns the columns of `build_predictions`."""
        return self._app.build_predictions(self.model(batch, mode="predict"))

    def evaluator(self) -> Evaluator:
        """Returns exact metrics over the whole table, as `build_eval_metrics` asked for."""
        return MetricCollector(self._metrics, self._app.job.train.metric_for_best)


def _command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="An EasyTransfer application defined in Python.")
    parser.add_argument("--config", required=True, help="JSON configuration")
    parser.add_argument("--mode", help=f"one of {', '.join(MODES)}, each also with the ending _on_the_fly")
    parser.add_argument("--tables", help="input tables instead of those of the configuration")
    parser.add_argument("--outputs", help="output table instead of that of the configuration")
    return parser.parse_known_args()[0]


def _read_json(path: str) -> dict[str, Any]:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from None


def _put_tables(config: dict[str, Any], mode: str, tables: str | None, outputs: str | None) -> None:
    inputs = {"evaluate": ["evaluate_config.eval_input_fp"], "predict": ["predict_config.predict_input_fp"]}.get(
        mode, ["train_config.train_input_fp", "evaluate_config.eval_input_fp"]
    )
    for path, table in zip(inputs, (tables or "").split(",") if tables else [], strict=False):
        section, name = path.split(".")
        config.setdefault(section, {})[name] = table
    if outputs:
        config.setdefault("predict_config", {})["predict_output_fp"] = outputs


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in config.items():
        values |= _flat(value) if isinstance(value, dict) else {key: value}
    return values


def _names(value: Any) -> list[str]:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else list(value or [])


def _head(chunk: RowChunk) -> RowChunk:
    """Returns the first rows of a chunk, outside of the account of rows."""
    rows = chunk.compact()
    return RowChunk(
        {name: cells[:SAMPLE_ROWS] for name, cells in rows.columns.items()},
        file=rows.file,
        lines=rows.lines[:SAMPLE_ROWS],
        index=rows.index[:SAMPLE_ROWS],
        texts=rows._texts[:SAMPLE_ROWS],
        count=type(rows._count)(),
        bad_rows=rows._bad_rows,
    )


def _single(results: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for result in results:
        for row in zip(*result.values(), strict=True):
            yield dict(zip(result, row, strict=True))
