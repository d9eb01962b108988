"""One training step on the device: forward, backward, accumulation, reduction, clipping, update.

Order of one step: for each micro-batch `task.train_step` (summed losses, scaled under float16) -> sum of gradients ->
`reduce` over workers -> division by the summed weight and unscaling -> finite check -> clipping by global norm ->
update -> averaged weights. Nothing in it waits for the host. Losses with weights of their own are divided before they
are differentiated: where a step has several micro-batches or workers, `LookAhead` adds up these weights first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from easytransfer.config.job import RuntimeConfig, TrainConfig
from easytransfer.data.encoded import device_arrays
from easytransfer.distributed.devices import add_up, fill_rows, part_of
from easytransfer.distributed.shards import assign_whole, global_norm, shard_of, whole_shape
from easytransfer.distributed.workers import ONE_WORKER, Workers
from easytransfer.errors import ConfigError, ModelError
from easytransfer.layers.draws import RowDraws
from easytransfer.layers.dropout import dropout_seed
from easytransfer.optim import build_optimizer, build_schedule
from easytransfer.run.log import warn
from easytransfer.train.averaging import AveragedWeights
from easytransfer.train.gradients import Accumulator, Gradients, dense, distinct, scaled
from easytransfer.train.lookahead import LookAhead
from easytransfer.train.loss_scale import LossScale
from easytransfer.train.parameters import select_parameters
from easytransfer.train.precision import compiles
from easytransfer.train.stages import ONE_STAGE, TrainingStage, kept_statistics
from easytransfer.train.step import Loss, Losses, TrainingStep
from easytransfer.train.task import Batch, Task
from easytransfer.train.train_schedule import Span

Signature = dict[str, tf.TensorSpec]
# By optimizer: scalar bool, or None for always.
Conditions = dict[str, "tf.Tensor | None"]
# Begins the name of what a lossy wire has yet to send.
RESIDUAL = "residual/"
# What every step reports behind its summed losses and weights.
FACTS = ("grad_norm", "learning_rate", "skipped", "failed", "loss_scale")


class _Update(NamedTuple):
    """What a train step gave to one optimizer."""

    gradients: Gradients
    weight: tf.Tensor
    when: tf.Tensor | None


class Engine:
    """Runs steps of a task and owns its optimizers; an application sees a `TrainingStep`.

    Args:
        task: Model, losses and train step; `task.model` is built.
        train: Optimization settings.
        runtime: Seed, precision, XLA.
        total_steps: Updates of the whole run.
        epoch_batches: Batches in one epoch, for schedules by epoch; None = there are none.
        signature: Shapes and dtypes of a batch; derived from the batches seen when None.
        workers: Sum gradients; the rank decides the dropout masks.
        devices: Names of devices that share every batch; with fewer than two, TensorFlow decides where to compute.
        stage: First stage of the run.
        span: Its steps; all of them when None.
    """

    def __init__(
        self,
        task: Task,
        train: TrainConfig,
        runtime: RuntimeConfig,
        total_steps: int,
        *,
        epoch_batches: int | None = None,
        signature: Signature | None = None,
        workers: Workers = ONE_WORKER,
        devices: Sequence[str] = (),
        stage: TrainingStage = ONE_STAGE,
        span: Span | None = None,
    ) -> None:
        self.task, self.workers, self._run_train, self._devices = task, workers, train, devices
        self.total_steps, self._epoch_batches = total_steps, epoch_batches
        self._signature, self._xla = signature, compiles(runtime)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self.skipped = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.failed = tf.Variable(False, trainable=False)
        self.loss_scale = LossScale() if runtime.mixed_precision == "float16" else None
        # Positions of this worker's weights in the whole model.
        start = workers.count_before(len(task.model.weights))
        self.positions = range(start, start + len(task.model.weights))
        self._seed, self._shared_seed = runtime.seed + workers.replica, runtime.seed
        # A row's place in the global micro-batch is `first + shares * its number here`.
        self._shares = workers.replicas * max(len(devices), 1)
        self.enter(stage, span or Span(stage.name, 0, total_steps, 0, total_steps * train.num_accumulated_batches))

    def enter(self, stage: TrainingStage, span: Span) -> None:
        """Makes what belongs to a stage: new optimizers, schedules, averages and graphs. The step counter goes on.

        Raises:
            ConfigError: Settings contradict the model or each other.
            ValueError: The stage trains what no optimizer has.
        """
        task, workers, train = self.task, self.workers, stage.config(self._run_train)
        self.stage, self.span, self._train = stage, span, train
        self._parameters = select_parameters(task, train, stage)
        self.optimizers, self.schedules = {}, {}
        for name, chosen in self._parameters.items():
            settings = train.model_copy(update=dict(chosen.part.settings))
            self.optimizers[name] = build_optimizer(settings, chosen.variables, chosen.factors, chosen.part.no_decay)
            self.schedules[name] = build_schedule(settings, span.end - span.start)
        self._loss_names: list[str] = []
        self._weight_names: list[str] = []
        # Optimizers whose losses were divided by weights of their own before they were differentiated.
        self._divided: set[str] = set()
        split = train.num_accumulated_batches > 1 or self._shares > 1
        self._ahead = LookAhead(task, workers, self._signature) if split else None
        trained = [variable for chosen in self._parameters.values() for variable in chosen.variables]
        self.averages = AveragedWeights(trained, train.ema_decay)
        variables = {name: chosen.variables for name, chosen in self._parameters.items()}
        self._accumulator = Accumulator(variables) if train.num_accumulated_batches > 1 else None
        self._residuals = list(zip(trained, workers.keep_residuals(trained), strict=True))
        self.keeps_residuals = any(residual is not None for _, residual in self._residuals)
        if self.keeps_residuals and self.loss_scale is not None:
            raise ConfigError(
                "wire_dtype=int8 keeps what it could not send, and the loss scale of float16 changes what that means",
                fix="use mixed_precision=bfloat16 or wire_dtype=float16",
            )
        self._make_functions()

    # What a train step uses ----------------------------------------------------------------------------------

    def variables(self, name: str = "default") -> list[tf.Variable]:
        """Returns the variables optimizer `name` trains, frozen ones left out."""
        return list(self._parameters[name].variables)

    def epoch(self) -> tf.Tensor:
        """Returns the number of the epoch in which the next step begins, from 0, an int64 scalar.

        Raises:
            ValueError: The length of an epoch is not known.
        """
        if self._epoch_batches is None:
            raise ValueError("the length of an epoch is not known: give the engine epoch_batches")
        return self.step * self._train.num_accumulated_batches // self._epoch_batches

    # What the trainer uses -----------------------------------------------------------------------------------

    def run_step(self, batches: Sequence[dict[str, np.ndarray]]) -> tf.Tensor:
        """Makes one update from `batches`, the micro-batches of a step.

        Returns:
            float32 vector on the device, read by `facts`.
        """
        tensors = [self._tensors(batch) for batch in batches]
        numbers = [tf.constant(number, tf.int64) for number in range(len(batches))]
        if self._ahead is not None:
            self._weigh(tensors, numbers)
        for batch, number in zip(tensors[:-1], numbers[:-1], strict=True):
            self._micro_step(batch, number)
        return self._last_step(tensors[-1], numbers[-1])

    def _weigh(self, batches: list[Batch], numbers: list[tf.Tensor]) -> None:
        """Finds what losses with weights of their own are divided by, where a step is more than one batch."""
        if self._ahead.needed is None:
            # Whether there are such losses is known when the step has been traced.
            self._last_step.get_concrete_function(batches[-1], numbers[-1])
            self._ahead.needed = bool(self._divided)
        if self._ahead.needed:
            self._ahead.add_up(self._weigh_one, [(b, self._seeds(n)) for b, n in zip(batches, numbers, strict=True)])

    def _weigh_one(self, batch: Batch, seed: tf.Tensor) -> list[tf.Tensor]:
        """Returns the weights of one batch, of losses that have their own."""
        draws = self._draws(batch, seed, tf.constant(self.workers.replica), self.workers.replicas)
        with dropout_seed(seed), self._statistics():
            step = TrainingStep(self, draws)
            self.task.train_step(step, self.task.training_batch(batch, draws))
        return step.own_weights

    def facts(self, vectors: Sequence[tf.Tensor]) -> dict[str, np.ndarray]:
        """Reads vectors of `run_step` from the device: one array [steps] per loss (summed), weight and fact.

        The name of a loss is prefixed by `loss/`, that of its weight by `weight/`, and that of an optimizer, for what
        its gradients are divided by, with `divisor/`.
        """
        columns = np.stack([vector.numpy() for vector in vectors]).T
        names = [f"{kind}/{name}" for kind in ("loss", "weight") for name in self._loss_names]
        names += [f"divisor/{name}" for name in self._weight_names] + list(FACTS)
        return dict(zip(names, columns, strict=True))

    def training_variables(self) -> dict[str, tf.Variable]:
        """Returns everything but the model that a checkpoint must hold, by stable name.

        Slots are named by the index of their variable in the weights of the whole model: Keras' own names change when a
        model is built a second time in one process.
        """
        index = {id(variable): i for i, variable in zip(self.positions, self.task.model.weights, strict=True)}
        result = {"engine/step": self.step, "engine/skipped": self.skipped}
        if self.loss_scale is not None:
            result["engine/loss_scale"] = self.loss_scale.value
            result["engine/finite_steps"] = self.loss_scale.finite_steps
        for name, optimizer in self.optimizers.items():
            result[f"{name}/iterations"] = optimizer.iterations
            for variable, slots in zip(optimizer.variables_updated, optimizer.slots, strict=True):
                for slot, value in slots.items():
                    result[f"{name}/{index[id(variable)]}/{slot}"] = value
        for variable, average in self.averages.pairs:
            result[f"average/{index[id(variable)]}"] = average
        for variable, residual in self._residuals:
            if residual is not None:
                result[f"{RESIDUAL}{index[id(variable)]}"] = residual
        return result

    def restore(self, arrays: dict[str, np.ndarray], source: str) -> None:
        """Sets all training variables from a checkpoint whose weights are in the model already.

        Raises:
            ModelError: The checkpoint was made with another optimizer, precision or averaging.
        """
        variables = self.training_variables()
        arrays = {name: array for name, array in arrays.items() if self._is_here(name)}
        arrays = self._with_residuals(arrays, variables, source)
        if {name: whole_shape(v) for name, v in variables.items()} != {name: a.shape for name, a in arrays.items()}:
            raise ModelError(
                f"the optimizer state in {source} does not fit",
                fix="resume with the same optimizer_type, freezing, mixed_precision and ema_decay",
            )
        for name, variable in variables.items():
            assign_whole(variable, arrays[name])
        self.workers.share_residuals()
        # Checkpoints hold averaged weights as weights, and the trained ones in their place.
        self.averages.swap()

    def _with_residuals(
        self, arrays: dict[str, np.ndarray], variables: dict[str, tf.Variable], source: str
    ) -> dict[str, np.ndarray]:
        """Fits the residuals of a checkpoint, which depend on the wire: missing ones are zero."""
        wanted = {name: whole_shape(v) for name, v in variables.items() if name.startswith(RESIDUAL)}
        unused = [name for name in arrays if name.startswith(RESIDUAL) and name not in wanted]
        if unused:
            warn(f"{source} has gradients that wire_dtype=int8 had yet to send; without that wire they are dropped")
        kept = {name: array for name, array in arrays.items() if name not in unused}
        return {name: np.zeros(shape, np.float32) for name, shape in wanted.items()} | kept

    def _is_here(self, name: str) -> bool:
        """Whether a name of `training_variables` belongs to a weight of this worker, or to none."""
        index = re.search(r"/(\d+)(/|$)", name)
        return index is None or int(index[1]) in self.positions

    # Inside --------------------------------------------------------------------------------------------------

    def _make_functions(self) -> None:
        self._forward_backward = tf.function(self._collect, jit_compile=True if self._xla else None)
        specs = None if self._signature is None else (self._signature, tf.TensorSpec([], tf.int64))
        options = {"input_signature": specs} if specs else {"reduce_retracing": True}
        self._micro_step = tf.function(self._accumulate, autograph=False, **options)
        self._last_step = tf.function(self._finish, autograph=False, **options)

    def _collect(
        self, batch: Batch, seed: tf.Tensor, first: tf.Tensor, totals: tf.Tensor | None
    ) -> tuple[Losses, dict[str, _Update]]:
        """Forward and backward pass of one micro-batch: losses, and gradients by optimizer."""
        draws = self._draws(batch, seed, first, self._shares)
        step = TrainingStep(self, draws, totals)
        with dropout_seed(seed), self._statistics():
            losses = self.task.train_step(step, self.task.training_batch(batch, draws))
        if not step.gradients:
            raise ValueError(f"{type(self.task).__name__}.train_step did not call step.update")
        updates = {}
        for name, gradients in step.gradients.items():
            divisor = step.divisors[name]
            if divisor is None:
                self._divided.add(name)
            weight = tf.ones([]) if divisor is None else tf.cast(divisor, tf.float32)
            updates[name] = _Update(dense(gradients) if self._xla else gradients, weight, step.conditions[name])
        return {name: Loss(*(tf.cast(x, tf.float32) for x in loss)) for name, loss in losses.items()}, updates

    def _statistics(self) -> AbstractContextManager[None]:
        """Context in which the statistics of what is frozen, by a stage or by the settings, are left alone."""
        train = self._train
        if not (self.stage.freezes or train.num_freezed_layers or train.freeze_embeddings):
            return nullcontext()
        trained = [variable for chosen in self._parameters.values() for variable in chosen.variables]
        return kept_statistics(self.task.model, trained)

    def _draws(self, batch: Batch, seed: tf.Tensor, first: tf.Tensor, shares: int) -> RowDraws:
        """Returns the random numbers of the rows, which do not depend on who computes them; see `RowDraws`."""
        shared = tf.stack([tf.constant(self._shared_seed % 2**31, tf.int32), seed[1]])
        # Dropout folds in 1, 2, ... for its masks.
        own = tf.random.experimental.stateless_fold_in(shared, 0, alg="philox")
        return RowDraws(own, tf.shape(batch["example_weight"])[0], first, shares)

    def _on_devices(self, batch: Batch, seed: tf.Tensor) -> tuple[Losses, dict[str, _Update]]:
        """Shares a micro-batch over the devices and adds up what they return, as several workers would."""
        count = len(self._devices)
        totals = None if self._ahead is None else self._ahead.totals.read_value()
        if count < 2:
            return self._forward_backward(batch, seed, tf.constant(self.workers.replica), totals)
        parts = []
        for number, device in enumerate(self._devices):
            with tf.device(device):
                first = tf.constant(self.workers.replica + self.workers.replicas * number)
                parts.append(self._forward_backward(part_of(batch, number, count), seed + [number, 0], first, totals))
        losses = {
            name: Loss(*(tf.add_n(list(each)) for each in zip(*(found[name] for found, _ in parts), strict=True)))
            for name in parts[0][0]
        }
        updates = {}
        for name, first in parts[0][1].items():
            given = [each[name] for _, each in parts]
            gradients = [add_up(each) for each in zip(*(update.gradients for update in given), strict=True)]
            updates[name] = _Update(gradients, tf.add_n([update.weight for update in given]), first.when)
        return losses, updates

    def _tensors(self, batch: dict[str, np.ndarray]) -> Batch:
        arrays = device_arrays(batch)
        if len(self._devices) > 1:
            arrays = fill_rows(arrays, len(self._devices))
        return {name: tf.convert_to_tensor(value) for name, value in arrays.items()}

    def _seeds(self, index: tf.Tensor) -> tf.Tensor:
        """Returns the seeds of this worker and of micro-batch `index` of the step, int32 [2]."""
        count = self.step * self._train.num_accumulated_batches + index
        # Seeds are 32 bit; wrapping after 2^31 micro-batches is harmless.
        return tf.stack([tf.constant(self._seed % 2**31, tf.int32), tf.cast(count % 2**31, tf.int32)])

    def _one_batch(self, batch: Batch, index: tf.Tensor) -> tuple[dict[str, Gradients], tf.Tensor, Conditions]:
        """Runs a micro-batch; returns gradients, the vector of losses and weights, and `when`, by optimizer."""
        losses, updates = self._on_devices(batch, self._seeds(index))
        self._loss_names, self._weight_names = list(losses), list(updates)
        sums, weights = zip(*losses.values(), strict=True)
        vector = tf.stack([*sums, *weights, *(update.weight for update in updates.values())])
        gradients = {name: update.gradients for name, update in updates.items()}
        return gradients, vector, {name: update.when for name, update in updates.items()}

    def _accumulate(self, batch: Batch, index: tf.Tensor) -> None:
        gradients, vector, _ = self._one_batch(batch, index)
        self._accumulator.add(gradients, vector)

    def _finish(self, batch: Batch, index: tf.Tensor) -> tf.Tensor:
        """Runs the last micro-batch of a step and updates the weights."""
        gradients, vector, when = self._one_batch(batch, index)
        if self._accumulator is not None:
            gradients, vector = self._accumulator.add(gradients, vector)
        gradients, vector = self._reduced(gradients, vector)
        return self._apply(gradients, vector, when)

    def _reduced(self, gradients: dict[str, Gradients], vector: tf.Tensor) -> tuple[dict[str, Gradients], tf.Tensor]:
        """Sums gradients, losses and weights over the workers; sparse gradients travel with distinct rows."""
        gradients = {name: distinct(given) for name, given in gradients.items()}
        pairs = [
            (gradient, variable)
            for name, given in gradients.items()
            for gradient, variable in zip(given, self._parameters[name].variables, strict=True)
            if gradient is not None
        ]
        for gradient, variable in pairs:
            if not isinstance(gradient, tf.IndexedSlices):
                gradient.set_shape(variable.shape)  # which shapes of batches may have blurred
        *summed, vector = self.workers.reduce([*(g for g, _ in pairs), vector], [v for _, v in pairs])
        vector = self.workers.sum_stages(vector, "losses")
        rest = iter(summed)
        filled = {name: [None if g is None else next(rest) for g in given] for name, given in gradients.items()}
        return filled, vector

    def _apply(self, gradients: dict[str, Gradients], vector: tf.Tensor, when: Conditions) -> tf.Tensor:
        """Checks, clips and applies; all-or-nothing over the optimizers of a step."""
        scale = tf.constant(1.0) if self.loss_scale is None else self.loss_scale.value.read_value()
        factors, norm = self._clip(gradients, tf.unstack(vector[-len(gradients) :]), scale)
        finite = tf.math.is_finite(norm) & tf.reduce_all(tf.math.is_finite(vector))
        made = self.step - self.span.start if self.span.start else self.step
        rates = {name: self.schedules[name](made) for name in gradients}
        self._note(finite)

        def change() -> tf.Tensor:
            for name, given in gradients.items():
                _when(when[name], self.optimizers[name].apply, given, factors[name], rates[name])
            self.averages.update()
            return tf.constant(0.0)

        # Once a step has failed, nothing changes the weights any more: the host sees it only at the next log or save.
        tf.cond(finite & ~self.failed, change, lambda: tf.constant(0.0))
        if self._accumulator is not None:
            self._accumulator.reset()
        self.step.assign_add(1)
        skipped, failed = tf.cast(~finite, tf.float32), tf.cast(self.failed, tf.float32)
        facts = [norm, next(iter(rates.values())), skipped, failed, scale]
        return tf.concat([vector, tf.stack(facts)], axis=0)

    def _clip(
        self, gradients: dict[str, Gradients], weights: list[tf.Tensor], scale: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Returns what each optimizer's gradients are multiplied by, and the global norm of the mean gradients."""
        factors, norms = {}, []
        for (name, given), weight in zip(gradients.items(), weights, strict=True):
            factor = tf.math.divide_no_nan(1.0, scale if name in self._divided else weight * scale)
            shards = [shard_of(variable) for variable in self._parameters[name].variables]
            norm = global_norm(given, shards)
            if self.workers.stage is not None:
                norm = tf.sqrt(self.workers.sum_stages(tf.square(norm), f"squares_of_{name}"))
            norms.append(norm * factor)
            if self._train.gradient_clip:
                limit = self._train.clip_norm_value
                factor *= limit / tf.maximum(norms[-1], limit)
            factors[name] = factor
        return factors, tf.norm(tf.stack(norms))

    def _note(self, finite: tf.Tensor) -> None:
        """Counts a non-finite step; without a loss scale left to lower, it is a failure."""
        self.skipped.assign_add(tf.cast(~finite, tf.int64))
        hopeless = ~finite if self.loss_scale is None else self.loss_scale.update(finite)
        self.failed.assign(self.failed | hopeless)


def _when(condition: tf.Tensor | None, apply: Callable, gradients: list, factor: tf.Tensor, rate: tf.Tensor) -> None:
    def update() -> tf.Tensor:
        apply([None if gradient is None else scaled(gradient, factor) for gradient in gradients], rate)
        return tf.constant(0.0)

    if condition is None:
        update()
    else:
        tf.cond(condition, update, lambda: tf.constant(0.0))
