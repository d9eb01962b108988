"""The training engine's view of a `base_model`: hooks become a task with a model, summed losses and an evaluator."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from easytransfer import keras
from easytransfer.compat.config import ModeKeys
from easytransfer.compat.evaluators import EvalMetric, MetricCollector, fetches
from easytransfer.compat.hooks import Hooks
from easytransfer.compat.model_zoo import PretrainedModel
from easytransfer.compat.preprocessors import RawRows, Settings, TextPreprocessor, column_values
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import BadRows, RowChunk, RowCount
from easytransfer.errors import ConfigError
from easytransfer.layers.created_once import objects_in
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.run.log import warn
from easytransfer.run.suspicions import upside_down
from easytransfer.train.precision import compute_precision
from easytransfer.train.stages import OptimizerPart
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs, Task

# Rows the hooks are first called with, to create their variables.
SAMPLE_ROWS = 2


class HookModel(keras.Model):
    """Calls `build_logits`; owns the layers made in it and those the application holds as attributes."""

    def __init__(self, app: Hooks) -> None:
        super().__init__(name=type(app).__name__)
        self._app = app
        self.objects: dict[str, Any] = {}
        self.held: dict[str, keras.layers.Layer] = {}

    def call(self, batch: Batch, training: bool = False, mode: str | None = None) -> Any:
        """Returns what the model function returns for a batch."""
        with objects_in(self.objects):
            return self._app.build_logits(batch, mode=mode or (ModeKeys.TRAIN if training else ModeKeys.EVAL))

    def own(self) -> None:
        """Takes over layers and models that the application made outside of `build_logits`."""
        found = {name: value for name, value in vars(self._app).items() if isinstance(value, keras.layers.Layer)}
        made = {id(value) for value in self.objects.values()}
        self.held.update({name: value for name, value in found.items() if id(value) not in made})

    def new_variables(self) -> list[tf.Variable]:
        """Returns variables that no pre-trained model brought."""
        layers = [*self.objects.values(), *self.held.values()]
        known = {id(v) for layer in layers if isinstance(layer, PretrainedModel) for v in layer.weights}
        return [variable for variable in self.weights if id(variable) not in known]


class HookTask(Task):
    """Model, losses and metrics of a `base_model`.

    Args:
        app: The application.
        modes: What its model function is called with first: variables made in any of them belong to the model.
        settings: What preprocessors take from the configuration.
    """

    def __init__(self, app: Hooks, modes: tuple[str, ...], settings: Settings) -> None:
        self._app, self._modes, self.settings = app, modes, settings
        self.preprocessor: TextPreprocessor | None = None
        self.model: HookModel | None = None
        self._metrics: dict[str, EvalMetric] = {}
        self._chosen: list[tf.Variable] | None = None

    def encode(self, chunk: RowChunk) -> EncodedTable:
        """Encodes rows as the preprocessor called in `build_logits` does; without one, columns pass as they are."""
        if self.preprocessor is not None and not self.settings.encoded:
            return self.preprocessor.encode(chunk)
        rows = chunk.compact()
        return EncodedTable({c.name: column_values(c, rows.columns[c.name]) for c in self.settings.columns})

    def build(self, chunk: RowChunk) -> None:
        """Calls `build_logits` on the first rows, which creates the variables and tells the preprocessor."""
        features = RawRows(_head(chunk.compact()), self.settings)
        runtime = self._app.job.runtime
        keras.utils.set_random_seed(runtime.seed % 2**32)
        self.model = HookModel(self._app)
        with compute_precision(runtime.mixed_precision):
            for mode in self._modes:
                # Not through Keras' __call__, which copies dicts and would lose what `features` carries.
                output = self.model.call(features, mode=mode)
        self.model.own()
        self.preprocessor = features.preprocessor
        if self._modes[-1] == ModeKeys.EVAL:
            self._metrics = self._app.build_eval_metrics(*_pair(output))
        chosen = getattr(self._app, "tvars", None)
        if chosen is not None:
            names = {id(variable) for variable in chosen}
            self._chosen = [variable for variable in self.model.trainable_variables if id(variable) in names]
            if not self._chosen:
                raise ConfigError("tvars names no variable of the model", fix="take variables made in build_logits")

    def build_model(self) -> keras.Model:
        """Returns the model; `build` has made it."""
        return self.model

    def optimizers(self) -> dict[str, OptimizerPart]:
        """Returns one optimizer: for the variables of `app.tvars`, or all when it is not set."""
        return super().optimizers() if self._chosen is None else {"default": OptimizerPart(self._chosen)}

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns all variables, the layers of the encoder apart."""
        layers = [*self.model.objects.values(), *self.model.held.values()]
        backbones = [layer.backbone for layer in layers if isinstance(layer, PretrainedModel)]
        if len(backbones) != 1:
            return super().layer_groups()
        *encoder, pooler = backbones[0].layer_groups()
        known = {id(variable) for group in (*encoder, pooler) for variable in group}
        return [*encoder, [*pooler, *(v for v in self.model.trainable_variables if id(v) not in known)]]

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Returns logits and labels, in evaluation also what the metrics need."""
        logits, labels = _pair(super().forward(batch, training))
        outputs = {"logits": logits, "labels": labels}
        return outputs if training else outputs | fetches(self._app.build_eval_metrics(logits, labels))

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the mean loss times the rows: the hooks average, the engine sums."""
        loss, rows = self._app.build_loss(outputs["logits"], outputs["labels"]), tf.reduce_sum(batch["example_weight"])
        return {"loss": Loss(tf.cast(loss, tf.float32) * rows, rows)}

    def predictions(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Returns the columns of `build_predictions`."""
        return self._app.build_predictions(self.model(batch, mode=ModeKeys.PREDICT))

    def warn_of(self, metrics: dict[str, float]) -> None:
        """Tells what is suspicious about results: an area under the ROC curve of two classes below a half."""
        labels = self.settings.labels.names if self.settings.labels else ("class 0", "class 1")
        for key, metric in self._metrics.items():
            if metric.name == "auc" and metric.num_labels == 2 and (wrong := upside_down(metrics, labels, key)):
                warn(wrong)

    def evaluator(self) -> Evaluator:
        """Returns exact metrics over the whole table, as `build_eval_metrics` asked for."""
        return MetricCollector(self._metrics, self._app.job.train.metric_for_best)


def _pair(output: Any) -> tuple[Any, Any]:
    if not isinstance(output, tuple | list) or len(output) != 2:
        raise ConfigError(
            "build_logits must return (logits, labels) in training and evaluation",
            received=type(output).__name__,
            fix="several logits or labels go into one list or dict each",
        )
    return tuple(output)


def _head(rows: RowChunk) -> RowChunk:
    """Returns the first rows of a chunk, outside of the account of rows: their faults are met again when reading."""
    return RowChunk(
        {name: cells[:SAMPLE_ROWS] for name, cells in rows.columns.items()},
        file=rows.file,
        lines=rows.lines[:SAMPLE_ROWS],
        index=rows.index[:SAMPLE_ROWS],
        texts=[""] * len(rows.index),
        count=RowCount(),
        bad_rows=BadRows("skip"),
    )
