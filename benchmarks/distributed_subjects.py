"""The subjects of `distributed.py`: one training step, and the ways its gradients get to the other processes."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import tensorflow as tf
from distributed_models import FLOAT, MODELS, Model

from easytransfer import keras
from easytransfer.distributed.collectives import Group, horovod
from easytransfer.distributed.horovod_workers import HorovodWorkers
from easytransfer.distributed.shards import shard_of
from easytransfer.train.gradients import Accumulator, Gradients, dense

ALONE = Group("alone", (0,), 0)
Step = tuple[list[Any], tf.Tensor]


class Subject:
    """One process, without any exchange; the others override what they do differently.

    Args:
        settings: Model, global batch, number of workers, rank and the levers of the subject.
        learning_rate: Of Adam.
    """

    # Micro-batches per update.
    micro_batches = 1

    def __init__(self, settings: dict[str, Any], learning_rate: float) -> None:
        self.settings, self.parts, self.rank = settings, settings["parts"], settings["rank"]
        self.group = ALONE
        self.open()
        with self.scope():
            self.model: Model = MODELS[settings["model"]](settings, self.group)
            self.optimizer = keras.optimizers.Adam(learning_rate, jit_compile=False)
            self.optimizer.build(self.model.variables)
        # The mean over the rows of one update.
        self.divisor = float(settings["batch"] * self.micro_batches)
        self._rows = self.own_rows()
        self._step = tf.function(self.step, autograph=False)
        self._done = 0

    def open(self) -> None:
        """Connects to the other processes, before TensorFlow computes anything."""

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Context in which variables are made."""
        return contextlib.nullcontext()

    def own_rows(self) -> dict[str, np.ndarray]:
        """Returns arrays [batches * parts, rows of a part, ...] of all rows."""
        arrays = MODELS[self.settings["model"]].rows(self.settings, np.random.default_rng(5))
        share = self.settings["batch"] // self.parts
        return {name: array.reshape(-1, share, *array.shape[1:]) for name, array in arrays.items()}

    def gradients(self, part: tf.Tensor) -> Step:
        """Computes the gradients of a part of a global batch, and its summed loss."""
        rows = {name: tf.constant(array)[part] for name, array in self._rows.items()}
        with tf.GradientTape() as tape:
            loss = self.model.losses(rows)
            objective = loss / self.divisor
        found = tape.gradient(objective, self.model.variables)
        return self.plain(found), loss

    def plain(self, gradients: Gradients) -> Gradients:
        """Returns gradients as they go into the exchange: that of a tied table is made dense."""
        return gradients if self.model.tied is None else dense(gradients)

    def exchange(self, gradients: Gradients, loss: tf.Tensor) -> Gradients:
        """Returns the sums over all processes."""
        return gradients

    def step(self, part: tf.Tensor) -> tf.Tensor:
        """Makes one update; returns the summed loss of this process' rows."""
        gradients, loss = self.gradients(part)
        self.optimizer.apply_gradients(zip(self.exchange(gradients, loss), self.model.variables, strict=True))
        return loss

    def run(self, count: int) -> list[Any]:
        """Makes `count` updates; returns their losses, still on the device."""
        return [self._step(self.next_part()) for _ in range(count)]

    def next_part(self) -> tf.Tensor:
        """Returns which part of the rows is next for this process."""
        batches = next(iter(self._rows.values())).shape[0] // self.parts
        part = self._done % batches * self.parts + self.rank
        self._done += 1
        return tf.constant(part)

    def fetched(self, losses: list[Any]) -> list[float]:
        """Returns the losses of `run` as numbers, one per update."""
        return [float(loss) for loss in losses]

    def replicated(self) -> list[tf.Variable]:
        """Returns the variables that must be equal on all ranks."""
        return [variable for variable in self.model.variables if shard_of(variable) is None]

    def sizes(self) -> dict[str, float]:
        """Returns parameters, and bytes of one step's gradients by how they travel."""
        model = self.model
        share = self.settings["batch"] / self.settings["workers"]
        sparse = {id(table) for table, _ in model.looked_up}
        rows = sum(count * share * (int(table.shape[1]) + 1) * FLOAT for table, count in model.looked_up)
        return {
            "parameters": sum(map(_size, model.variables)),
            "dense_bytes": FLOAT * sum(_size(v) for v in model.variables if id(v) not in sparse),
            "table_bytes": FLOAT * sum(_size(table) for table, _ in model.looked_up),
            "row_bytes": rows,
            "split_bytes": FLOAT * sum(map(_size, model.split)),
            "shared_bytes": model.shared_bytes(self.settings["batch"], self.settings["workers"]),
        }


class PlainHorovod(Subject):
    """Horovod's own all-reduce: all dense gradients in one group after the backward pass."""

    def open(self) -> None:
        """See `Subject`."""
        self._hvd = horovod()
        self._hvd.init()

    def exchange(self, gradients: Gradients, loss: tf.Tensor) -> Gradients:
        """See `Subject`."""
        ready = after_backward(gradients)
        places = [i for i, gradient in enumerate(ready) if not isinstance(gradient, tf.IndexedSlices)]
        for i, total in zip(
            places, self._hvd.grouped_allreduce([ready[i] for i in places], op=self._hvd.Sum), strict=True
        ):
            ready[i] = total
        return [self._hvd.allreduce(g, op=self._hvd.Sum) if isinstance(g, tf.IndexedSlices) else g for g in ready]


class Ours(Subject):
    """Our reducer, with the levers of the settings: `overlap`, `wire_dtype`, `sharded`."""

    def open(self) -> None:
        """See `Subject`."""
        settings = self.settings
        self.workers = HorovodWorkers(wire_dtype=settings["wire_dtype"], bucket_mb=settings["bucket_mb"])
        if settings["sharded"]:
            self.group = self.workers.data

    def __init__(self, settings: dict[str, Any], learning_rate: float) -> None:
        super().__init__(settings, learning_rate)
        self.workers.keep_residuals(self.model.variables)

    def exchange(self, gradients: Gradients, loss: tf.Tensor) -> Gradients:
        """See `Subject`."""
        if not self.settings["overlap"]:
            gradients = after_backward(gradients)
        return self.workers.reduce([*gradients, tf.reshape(loss, [1])], self.model.variables)[:-1]


class Accumulated(Ours):
    """Our reducer, after every fourth micro-batch only."""

    micro_batches = 4

    def __init__(self, settings: dict[str, Any], learning_rate: float) -> None:
        super().__init__(settings, learning_rate)
        self._sums = Accumulator({"default": self.model.variables})
        self._add = tf.function(self.add, autograph=False)

    def add(self, part: tf.Tensor) -> tf.Tensor:
        """Computes a micro-batch and keeps its gradients."""
        gradients, loss = self.gradients(part)
        self._sums.add({"default": gradients}, tf.reshape(loss, [1]))
        return loss

    def step(self, part: tf.Tensor) -> tf.Tensor:
        """Computes the last micro-batch of an update and makes the update."""
        gradients, loss = self.gradients(part)
        sums, vector = self._sums.add({"default": gradients}, tf.reshape(loss, [1]))
        reduced = self.workers.reduce([*sums["default"], vector], self.model.variables)[:-1]
        self.optimizer.apply_gradients(zip(reduced, self.model.variables, strict=True))
        self._sums.reset()
        return vector[0]

    def run(self, count: int) -> list[Any]:
        """See `Subject`."""
        losses = []
        for _ in range(count):
            for _ in range(self.micro_batches - 1):
                self._add(self.next_part())
            losses.append(self._step(self.next_part()))
        return losses


class Mirrored(Subject):
    """MultiWorkerMirroredStrategy over gRPC; with `pack_mb` in packs, and a tied table's gradient made dense."""

    def open(self) -> None:
        """See `Subject`."""
        size = self.settings["pack_mb"]
        options = tf.distribute.experimental.CommunicationOptions(
            bytes_per_pack=int(size * 2**20),
            implementation=tf.distribute.experimental.CommunicationImplementation.RING,
        )
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options if size else None)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """See `Subject`."""
        return self._strategy.scope()

    def plain(self, gradients: Gradients) -> Gradients:
        """See `Subject`; untuned, gradients stay as TensorFlow makes them."""
        return super().plain(gradients) if self.settings["pack_mb"] else gradients

    def step(self, part: tf.Tensor) -> tf.Tensor:
        """See `Subject`; the strategy's replica context makes the optimizer sum."""
        return self._strategy.run(super().step, args=(part,))


class ParameterServer(Subject):
    """Coordinator of ParameterServerStrategy: asynchronous updates, each from one worker's part of a global batch."""

    def __init__(self, settings: dict[str, Any], learning_rate: float) -> None:
        super().__init__(settings, learning_rate)
        self.divisor /= self.parts

    def open(self) -> None:
        """See `Subject`."""
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        self._strategy = tf.distribute.ParameterServerStrategy(resolver)
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(self._strategy)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """See `Subject`."""
        return self._strategy.scope()

    def plain(self, gradients: Gradients) -> Gradients:
        """Gradients stay as TensorFlow makes them."""
        return gradients

    def step(self, part: tf.Tensor) -> tf.Tensor:
        """See `Subject`."""
        return self._strategy.run(super().step, args=(part,))

    def run(self, count: int) -> list[Any]:
        """Lets the workers compute `count` global batches."""
        losses = [self._coordinator.schedule(self._step, args=(self.next_part(),)) for _ in range(count * self.parts)]
        self._coordinator.join()
        return losses

    def next_part(self) -> tf.Tensor:
        """Returns the next part, whoever will compute it."""
        part = self._done % next(iter(self._rows.values())).shape[0]
        self._done += 1
        return tf.constant(part)

    def fetched(self, losses: list[Any]) -> list[float]:
        """See `Subject`."""
        parts = [float(loss.fetch()) for loss in losses]
        return [sum(parts[i : i + self.parts]) for i in range(0, len(parts), self.parts)]


KINDS: dict[str, type[Subject]] = {
    "alone": Subject,
    "horovod": PlainHorovod,
    "ours": Ours,
    "accumulated": Accumulated,
    "mirrored": Mirrored,
    "server": ParameterServer,
}


def open_subject(settings: dict[str, Any], learning_rate: float) -> Subject:
    """Builds the subject of the settings; Horovod's workers start with the values of rank 0."""
    subject = KINDS[settings["kind"]](settings, learning_rate)
    if isinstance(subject, (PlainHorovod, Ours)):
        # The optimizer's variables are zeros everywhere.
        horovod().broadcast_variables(subject.replicated(), root_rank=0)
    return subject


def after_backward(gradients: Gradients) -> Gradients:
    """Returns the same gradients, none before all of them are there."""
    parts = tf.nest.flatten(gradients, expand_composites=True)
    with tf.control_dependencies(parts):
        return tf.nest.map_structure(tf.identity, gradients, expand_composites=True)


def _size(variable: tf.Variable) -> int:
    return int(np.prod(variable.shape))
