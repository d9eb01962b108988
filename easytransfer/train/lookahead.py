"""Weights of losses in all batches of a step, known before the first of them is differentiated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from easytransfer import keras
from easytransfer.distributed.workers import Workers
from easytransfer.train.task import Batch, Task

# Returns the weights of one batch; takes its seeds too.
Weigh = Callable[[Batch, tf.Tensor], list[tf.Tensor]]


class LookAhead:
    """Adds up the weights of losses over the micro-batches and workers of a step.

    The train step is traced once more, and all that the weights do not depend on is cut out of its graph: forward and
    backward pass, moving averages and exchanges. What is left costs next to nothing, but where weights come from a part
    of the model that is not trained, such as a teacher's masks: it is called once more for every batch.

    Args:
        task: Whose losses have weights of their own.
        workers: Of the job.
        signature: Shapes and dtypes of a batch; those of each batch when None.

    Attributes:
        totals: The weights of the present step, float32 [losses with weights of their own].
        needed: Whether there are any; None until the step has been traced.
    """

    def __init__(self, task: Task, workers: Workers, signature: dict[str, tf.TensorSpec] | None) -> None:
        self._task, self._workers, self._signature = task, workers, signature
        self.totals = tf.Variable(tf.zeros([0]), shape=[None], trainable=False)
        self.needed: bool | None = None
        self._traced: dict[tuple, Callable[..., list[tf.Tensor]]] = {}
        self._share = tf.function(lambda x: workers.sum_replicas(x, "weights"), autograph=False)

    def add_up(self, weigh: Weigh, batches: Sequence[tuple[Batch, tf.Tensor]]) -> None:
        """Sets `totals` for the step of these batches and their seeds.

        Raises:
            ValueError: A weight depends on what is trained of the model.
        """
        vectors = [tf.stack(self._weights_only(weigh, batch)(batch, seed)) for batch, seed in batches]
        self.totals.assign(self._share(tf.add_n(vectors)))

    def _weights_only(self, weigh: Weigh, batch: Batch) -> Callable[..., list[tf.Tensor]]:
        specs = self._signature or {name: tf.TensorSpec(x.shape, x.dtype) for name, x in batch.items()}
        key = tuple((name, tuple(spec.shape)) for name, spec in specs.items())
        if key not in self._traced:
            names = sorted(specs)
            seed = tf.TensorSpec([2], tf.int32)

            def flat(*tensors: tf.Tensor) -> list[tf.Tensor]:
                return weigh(dict(zip(names, tensors[:-1], strict=True)), tensors[-1])

            whole = tf.compat.v1.wrap_function(flat, [*(specs[name] for name in names), seed])
            cut = whole.prune(whole.inputs[: len(names) + 1], whole.outputs)
            self._check(cut)
            self._traced[key] = lambda batch, seed: cut(*(batch[name] for name in names), seed)
        return self._traced[key]

    def _check(self, cut: tf.types.experimental.ConcreteFunction) -> None:
        model = self._task.model
        used = {id(handle) for handle, inside in cut.graph.captures if inside.consumers()}
        still = {id(v) for layer in model.submodules if _is_still(layer) for v in layer.weights}
        found = [v.name for v in model.weights if id(v.handle) in used and id(v) not in still]
        if found:
            raise ValueError(
                f"the weight of a loss of {type(self._task).__name__} depends on the model ({found[0]}); it may depend "
                "on the batch only, and on layers with trainable=False"
            )


def _is_still(layer: tf.Module) -> bool:
    """Whether nothing in a layer changes in a step, its moving statistics included."""
    return isinstance(layer, keras.layers.Layer) and not layer.trainable
