"""One stage of a model that is cut by depth, and the schedule of its micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from easytransfer.distributed.collectives import Group, send_recv
from easytransfer.layers.dropout import dropout_part

Batch = dict[str, tf.Tensor]


class Stage:
    """This worker's stage of a pipeline (GPipe, Huang et al. 2019, arXiv 1811.06965, section 2.3).

    Every stage is a graph of its own. A batch is cut into micro-batches, whose forward passes run in order; what a
    stage has computed goes to the next one, which works on it while this one takes the next micro-batch. The backward
    pass of a micro-batch starts as soon as its gradient is there. Gradients are summed over the micro-batches.

    Departs from the paper: activations are kept until the backward pass instead of being computed again.

    Args:
        number: Position of the stage, from 0.
        before: This worker and the one that holds the stage before; None on the first stage.
        after: This worker and the one that holds the stage after; None on the last stage.
        stages: Number of stages.
        micro_batches: Parts of a batch.

    Attributes:
        zero: What a stage without losses gives in their place.
    """

    def __init__(self, number: int, stages: int, before: Group | None, after: Group | None, micro_batches: int) -> None:
        self.number, self.stages, self.micro_batches = number, stages, micro_batches
        self._before, self._after = before, after
        # What is received depends on zero, so that a gradient is asked for, which is what sends it back; exchanges of
        # constants are impossible, see `collectives`.
        self.zero, self._one = tf.Variable(0.0, trainable=True), tf.Variable(1.0, trainable=False)
        self._used = tf.Variable(0.0, trainable=False)

    @property
    def is_first(self) -> bool:
        """Whether this stage reads the batch's inputs."""
        return self._before is None

    @property
    def is_last(self) -> bool:
        """Whether this stage computes outputs and losses."""
        return self._after is None

    def share(self, layers: int) -> range:
        """Returns which of `layers` layers belong to this stage."""
        return range(layers * self.number // self.stages, layers * (self.number + 1) // self.stages)

    def receive(self, shape: tf.Tensor) -> tf.Tensor:
        """Returns the float32 activations of the stage before, which have this shape; gradients go back there."""
        return send_recv(tf.zeros(shape) + self.zero, self._before, "activations")

    def send(self, x: tf.Tensor) -> tf.Tensor:
        """Sends float32 activations to the stage after; the gradient of the result is what that one sends back."""
        return send_recv(x, self._after, "activations") * self._one

    def step(
        self, batch: Batch, objective: Callable[[Batch], tf.Tensor], variables: Sequence[tf.Variable]
    ) -> tuple[tf.Tensor, list[tf.Tensor | tf.IndexedSlices | None]]:
        """Runs forward and backward pass of all micro-batches.

        Args:
            batch: Arrays [batch, ...], `example_weight` among them; the same on every stage.
            objective: Takes a micro-batch to the scalar to differentiate: on the last stage the summed loss, on others
                any sum of what `send` returned.
            variables: Those of this stage.

        Returns:
            The sum of the objectives, and the gradient of the last stage's for each variable.
        """
        objectives: list[tf.Tensor] = []
        with tf.GradientTape() as tape:
            for number, part in enumerate(self.split(batch)):
                with (
                    # In order, so that the next stage gets the first micro-batch first.
                    tf.control_dependencies(objectives[-1:]),
                    dropout_part(1 + self.number * self.micro_batches + number),
                ):
                    objectives.append(objective({name: tf.identity(value) for name, value in part.items()}))
            total = tf.add_n(objectives)
        *gradients, back = tape.gradient(total, [*variables, self.zero])
        # An exchange is left out of the graph unless its result is used; to wait for it is not enough.
        self._used.assign(total if back is None else total + back)
        return total, gradients

    def split(self, batch: Batch) -> list[Batch]:
        """Cuts a batch into micro-batches of one size; rows of weight 0 fill the last ones."""
        rows, count = tf.shape(batch["example_weight"])[0], self.micro_batches
        size = -(-rows // count)
        numbers = tf.range(size * count)
        real = numbers < rows
        # Row 0 stands in for rows that are missing; its weight is zero below.
        filled = {name: tf.gather(value, tf.where(real, numbers, 0)) for name, value in batch.items()}
        filled["example_weight"] *= tf.cast(real, tf.float32)
        return [{name: value[i * size : (i + 1) * size] for name, value in filled.items()} for i in range(count)]
