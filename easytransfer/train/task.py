"""What the training engine needs from an application; everything else is the engine's business."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, final

from easytransfer import keras
from easytransfer.deferred import tf
from easytransfer.distributed.workers import ONE_WORKER, Workers
from easytransfer.errors import ConfigError
from easytransfer.layers.draws import RowDraws
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.train.step import Loss, Losses, Step, TrainingStep

if TYPE_CHECKING:
    from easytransfer.distributed.pipeline import Stage
    from easytransfer.train.stages import OptimizerPart, TrainingStage

# A batch maps names to arrays whose first axis is the example. Every batch carries `example_weight` [batch] float32,
# 0 for rows that only pad the batch.
Batch = dict[str, "tf.Tensor"]
Outputs = dict[str, "tf.Tensor"]


class Recorded(Protocol):
    """What has a record that identifies it, such as `app.frozen.Frozen`."""

    record: dict[str, str]


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
        ...     def losses(self, batch, outputs, step):
        ...         error = tf.square(outputs["y"][:, 0] - batch["y"])
        ...         rows = tf.reduce_sum(batch["example_weight"])
        ...         return {"loss": Loss(tf.reduce_sum(error * batch["example_weight"]), rows)}
        ...     def evaluator(self):
        ...         return MeanSquaredError()
    """

    # How the model can be split over workers: `tensor` for its layers, `pipeline` for its depth. On a stage that is not
    # the last one `forward` returns `{"sent": what Stage.send returned}`, and `train_step` is the one below.
    splits: ClassVar[tuple[str, ...]] = ()

    model: keras.Model
    # Networks of other runs that this training uses, by role, see `app.frozen`. Their records have `path` and `sha256`;
    # checkpoints keep them, and a run is only continued with the same.
    frozen: Mapping[str, Recorded] = MappingProxyType({})
    # Set by the trainer before `build_model`.
    workers: Workers = ONE_WORKER

    @abc.abstractmethod
    def build_model(self) -> keras.Model:
        """Returns the built model; `model(batch, training=...)` gives a dict of outputs."""

    @abc.abstractmethod
    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns losses by name, each as its sum over the batch, `example_weight` applied, and its weight.

        Each sum is divided by its weight, both added up over micro-batches and workers, so that any split of the global
        batch gives the same gradient. Evaluation on a labelled table reports the same losses.

        Args:
            batch: Rows with their labels.
            outputs: What `forward` returned for them.
            step: Where the training is, for schedules; see `EVALUATION`.
        """

    @abc.abstractmethod
    def evaluator(self) -> Evaluator:
        """Returns a fresh evaluator."""

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns trainable variables from input to output, one list per depth, for freezing and layer-wise decay.

        Group 0 holds embeddings, 1..n the encoder layers, the last the head. The default is one group.
        """
        return [list(self.model.trainable_variables)]

    def optimizers(self) -> dict[str, OptimizerPart]:
        """Returns the optimizers by name; the default is one for all variables."""
        from easytransfer.train.stages import OptimizerPart

        return {"default": OptimizerPart(self.model.trainable_variables)}

    def stages(self) -> list[TrainingStage]:
        """Returns the parts of the training in their order; asked once, when the model is built.

        Of the evaluations, those of the last stage pick the best checkpoint and stop early: before it, losses and
        networks are others.
        """
        from easytransfer.train.stages import ONE_STAGE

        return [ONE_STAGE]

    @final
    def frozen_records(self) -> dict[str, dict[str, str]]:
        """Returns the records of `frozen` by role."""
        return {role: network.record for role, network in self.frozen.items()}

    def forward(self, batch: Batch, training: bool = False) -> Outputs:
        """Calls the model and returns its outputs in float32 at least, whatever the compute precision."""
        return tf.nest.map_structure(_at_least_float32, self.model(batch, training=training))

    def predict_step(self, batch: Batch) -> Outputs:
        """Returns, inside a graph, what predictions are made of: what is decoded, reduced or generated."""
        return self.forward(batch)

    def evaluate_step(self, batch: Batch) -> Outputs:
        """Returns, inside a graph, what the losses and the evaluator read of a labelled batch.

        These are the outputs of `forward`, and those of `predict_step` where a method has one of its own.
        """
        outputs = self.forward(batch)
        return outputs if type(self).predict_step is Task.predict_step else {**outputs, **self.predict_step(batch)}

    def training_batch(self, batch: Batch, draws: RowDraws) -> Batch:
        """Returns the (micro-)batch as `train_step` sees it, in the graph: the place for random augmentation.

        Args:
            batch: Rows as the table has them.
            draws: The only source of randomness that keeps resumed and distributed runs exact.
        """
        return batch

    def train_step(self, step: TrainingStep, batch: Batch) -> Losses:
        """Computes one (micro-)batch; override it for adversarial, co-training or generator/critic methods.

        It runs inside a `tf.function`. Differentiate `step.objective(losses, name)` with respect to
        `step.variables(name)` and give the gradients to `step.update`. Accumulation, reduction over workers, unscaling,
        clipping and skipping of non-finite steps happen behind that call.

        Returns:
            Losses by name, for the log.
        """
        if self.workers.stage is not None:
            return self._stage_step(step, batch, self.workers.stage)
        with tf.GradientTape() as tape:
            losses = self.losses(batch, self.forward(batch, training=True), step)
            objective = step.objective(losses)
        step.update(tape.gradient(objective, step.variables()))
        return losses

    def _stage_step(self, step: TrainingStep, batch: Batch, stage: Stage) -> Losses:
        """Computes one batch on a stage of a pipeline; the losses of the last stage, added up, are the step's.

        Only the last stage has losses; the others give zeros in their place.
        """
        weights: list[tf.Tensor] = []

        def objective(part: Batch) -> tf.Tensor:
            outputs = self.forward(part, training=True)
            if not stage.is_last:
                return tf.reduce_sum(outputs["sent"])
            losses = self.losses(part, outputs, step)
            value = step.objective(losses)
            if step.own_weights:
                raise ConfigError(
                    "losses with weights of their own cannot be computed in a pipeline",
                    received=", ".join(losses),
                    fix="set distribution.pipeline_stages=1",
                )
            weights.append(next(iter(losses.values()))[1])
            return value

        total, gradients = stage.step(batch, objective, step.variables())
        weight = tf.add_n(weights) if stage.is_last else stage.zero
        step.divisors["default"] = weight
        step.update(gradients)
        return {"loss": Loss(total / step.scale(tf.ones([])) if stage.is_last else weight, weight)}

    def state(self) -> dict[str, Any]:
        """Returns extra JSON-able state of the method that belongs into the checkpoint."""
        return {}

    def restore_state(self, state: dict[str, Any]) -> None:  # noqa: B027 - nothing to do is the usual case
        """Takes back what `state` returned."""


def _at_least_float32(value: Any) -> Any:
    low = tf.is_tensor(value) and value.dtype in (tf.float16, tf.bfloat16)
    return tf.cast(value, tf.float32) if low else value
