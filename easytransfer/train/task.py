"""What the training engine needs from an application; everything else is the engine's business."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import tensorflow as tf

from easytransfer import keras
from easytransfer.distributed.workers import ONE_WORKER, Workers
from easytransfer.layers.draws import RowDraws
from easytransfer.optim.base import NO_DECAY

if TYPE_CHECKING:
    from easytransfer.distributed.pipeline import Stage
    from easytransfer.train.engine import Engine

# A batch maps names to arrays whose first axis is the example. Every batch carries `example_weight` [batch] float32,
# 0 for rows that only pad the batch.
Batch = dict[str, tf.Tensor]
Outputs = dict[str, tf.Tensor]


class Evaluator(Protocol):
    """Collects outputs over a whole table and returns exact metrics, whatever the batch size."""

    main_metric: str
    higher_is_better: bool

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Adds one batch of real rows (padding rows are already removed)."""

    def result(self) -> dict[str, float]:
        """Returns plain floats by metric name, `main_metric` among them."""


class Task(abc.ABC):
    """A model with its loss and metrics, as the engine trains it.

    `model` owns every variable of the method, also of a critic or a second network: checkpoints hold `model.weights`.
    Random layers must be `easytransfer.layers.dropout.Dropout` or draw from seeds of their own making, so that a
    resumed run repeats them.

    Example:
        >>> class Slope(Task):
        ...     def build_model(self):
        ...         x = keras.Input([1], name="x")
        ...         return keras.Model({"x": x}, {"y": keras.layers.Dense(1)(x)})
        ...     def losses(self, batch, outputs):
        ...         error = tf.square(outputs["y"][:, 0] - batch["y"])
        ...         return {"loss": tf.reduce_sum(error * batch["example_weight"])}
        ...     def evaluator(self):
        ...         return MeanSquaredError()
    """

    # How the model can be split over workers: `tensor` for its layers, `pipeline` for its depth. On a stage that is not
    # the last one `forward` returns `{"sent": what Stage.send returned}`, and `train_step` is the one below.
    splits: ClassVar[tuple[str, ...]] = ()

    # Columns that no evaluator reads, such as images: workers that share an evaluation do not exchange them.
    unevaluated_columns: ClassVar[tuple[str, ...]] = ()

    # Regular expressions of the names of variables that are not decayed, whatever the optimizer.
    no_decay: ClassVar[tuple[str, ...]] = NO_DECAY

    model: keras.Model
    # Set by the trainer before `build_model`.
    workers: Workers = ONE_WORKER

    @abc.abstractmethod
    def build_model(self) -> keras.Model:
        """Returns the built model; `model(batch, training=...)` gives a dict of outputs."""

    @abc.abstractmethod
    def losses(self, batch: Batch, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns named scalar losses, each SUMMED over the batch with `example_weight` applied, never averaged.

        The engine divides the total by `loss_weight` summed over accumulated batches and workers, so that any split
        of the global batch gives the same gradient. Evaluation on a labelled table reports the same losses.
        """

    def loss_weight(self, batch: Batch) -> tf.Tensor:
        """Returns the scalar that summed losses are divided by: the number of real examples by default."""
        return tf.reduce_sum(batch["example_weight"])

    @abc.abstractmethod
    def evaluator(self) -> Evaluator:
        """Returns a fresh evaluator."""

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns trainable variables from input to output, one list per depth, for freezing and layer-wise decay.

        Group 0 holds embeddings, 1..n the encoder layers, the last the head. The default is one group.
        """
        return [list(self.model.trainable_variables)]

    def optimizers(self) -> dict[str, list[tf.Variable]] | None:
        """Returns variables by optimizer name for methods with several optimizers; None = one for all."""
        return None

    def optimizer_settings(self, name: str) -> dict[str, Any]:
        """Returns fields of `TrainConfig` that differ for optimizer `name`, such as its `weight_decay_ratio`."""
        return {}

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Calls the model and returns its outputs in float32 at least, whatever the compute precision."""
        return tf.nest.map_structure(_at_least_float32, self.model(batch, training=training))

    def training_batch(self, batch: Batch, draws: RowDraws) -> Batch:
        """Returns the (micro-)batch as `train_step` sees it, in the graph: the place for random augmentation.

        Args:
            batch: Rows as the table has them.
            draws: The only source of randomness that keeps resumed and distributed runs exact.
        """
        return batch

    def train_step(self, engine: Engine, batch: Batch) -> dict[str, tf.Tensor]:
        """Computes one (micro-)batch; override it for adversarial, co-training, two-stage or generator/critic methods.

        It runs inside a `tf.function`. Give `engine.scale(summed loss)` to the tape, and its gradients with respect to
        `engine.variables(name)` to `engine.update`. Accumulation, reduction over workers, unscaling, clipping and
        skipping of non-finite steps happen behind that call, and all updates of a step take effect together when
        `train_step` has returned. `engine.step` is the number of updates made so far, of `engine.total_steps`.

        Returns:
            Summed losses by name, for the log; each is divided by the weight of the first optimizer updated.
        """
        if self.workers.stage is not None:
            return self._stage_step(engine, batch, self.workers.stage)
        with tf.GradientTape() as tape:
            outputs = self.forward(batch, training=True)
            losses = self.losses(batch, outputs)
            objective = engine.scale(tf.add_n(list(losses.values())))
        variables = engine.variables()
        engine.update(tape.gradient(objective, variables), self.loss_weight(batch))
        return losses

    def _stage_step(self, engine: Engine, batch: Batch, stage: Stage) -> dict[str, tf.Tensor]:
        """Computes one batch on a stage of a pipeline; the losses of the last stage, added up, are the step's."""

        def objective(part: Batch) -> tf.Tensor:
            outputs = self.forward(part, training=True)
            if not stage.is_last:
                return tf.reduce_sum(outputs["sent"])
            return engine.scale(tf.add_n(list(self.losses(part, outputs).values())))

        total, gradients = stage.step(batch, objective, engine.variables())
        if not stage.is_last:
            engine.update(gradients, stage.zero)
            return {"loss": stage.zero}
        engine.update(gradients, self.loss_weight(batch))
        return {"loss": total / engine.scale(tf.ones([]))}

    def state(self) -> dict[str, Any]:
        """Returns extra JSON-able state of the method that belongs into the checkpoint."""
        return {}

    def restore_state(self, state: dict[str, Any]) -> None:  # noqa: B027 - nothing to do is the usual case
        """Takes back what `state` returned."""


def _at_least_float32(value: Any) -> Any:
    low = tf.is_tensor(value) and value.dtype in (tf.float16, tf.bfloat16)
    return tf.cast(value, tf.float32) if low else value
