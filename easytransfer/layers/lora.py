"""Low-rank adapters (LoRA): what a training adds to the kernels of a pre-trained network that stays as it is.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685, section 4.1.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from easytransfer import keras
from easytransfer.errors import ConfigError
from easytransfer.layers.dropout import Dropout

_MARK = "_easytransfer_base"


class LowRank(keras.layers.Layer):
    """The change of one kernel, as a product of two narrow ones: (alpha / rank) B A x (section 4.1).

    B starts as zeros, so that training starts from the pre-trained network; A is drawn from a normal distribution whose
    variance is 1 / inputs.

    Args:
        shape: Of the kernel, its input axes first.
        inputs: Number of input axes.
        rank: Width between A and B.
        alpha: The product is multiplied by alpha / rank.
        dropout: Dropout on what the adapter reads.
        seed: Seed of A.

    Call arguments:
        x: [..., input axes].

    Returns:
        [..., output axes], what is added to the output of the kernel.

    Raises:
        ConfigError: The rank is larger than the kernel's.
    """

    def __init__(
        self,
        shape: Sequence[int],
        inputs: int,
        *,
        rank: int,
        alpha: float,
        dropout: float,
        seed: Sequence[int],
        name: str,
    ) -> None:
        super().__init__(name=name)
        into, out = list(shape[:inputs]), list(shape[inputs:])
        if rank > min(math.prod(into), math.prod(out)):
            raise ConfigError(
                f"an adapter of {name} is wider than its kernel",
                received=f"model.lora_rank={rank}",
                accepted=f"1 to {min(math.prod(into), math.prod(out))}",
            )
        self._axes, self._scale = inputs, alpha / rank
        drawn = np.random.default_rng(seed).normal(0.0, math.prod(into) ** -0.5, [*into, rank])
        self.a = self.add_weight(
            f"{name}/a", [*into, rank], initializer=keras.initializers.Constant(drawn.astype(np.float32))
        )
        self.b = self.add_weight(f"{name}/b", [rank, *out], initializer="zeros")
        self.dropout = Dropout(dropout, name="dropout")
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """See the class."""
        x = self.dropout(x)
        narrow = tf.tensordot(x, tf.cast(self.a, x.dtype), self._axes)
        return tf.tensordot(narrow, tf.cast(self.b, x.dtype), 1) * tf.cast(self._scale, x.dtype)

    def change(self) -> tf.Tensor:
        """Returns what calling the adapter comes to for the kernel: (alpha / rank) A B, in the kernel's shape."""
        return tf.tensordot(tf.convert_to_tensor(self.a), tf.convert_to_tensor(self.b), 1) * self._scale


def adapted(output: tf.Tensor, adapter: LowRank | None, x: tf.Tensor) -> tf.Tensor:
    """Returns the output of a kernel for x with what its adapter adds, in the output's type."""
    return output if adapter is None else output + tf.cast(adapter(x), output.dtype)


class AdaptedDense(keras.layers.Layer):
    """A dense layer with an adapter, in its place; calls, kernel and bias are as before.

    Args:
        dense: `Dense` or `EinsumDense`, built.
        adapter: What is added to its output, before its activation: it must have none.
    """

    def __init__(self, dense: keras.layers.Layer, adapter: LowRank) -> None:
        super().__init__(name=dense.name)
        self.dense, self.adapter = dense, adapter
        self.built = True

    @property
    def kernel(self) -> tf.Variable:
        """The pre-trained kernel."""
        return self.dense.kernel

    @property
    def bias(self) -> tf.Variable:
        """The pre-trained bias."""
        return self.dense.bias

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the output of the layer and its adapter."""
        return adapted(self.dense(x), self.adapter, x)


@dataclass(frozen=True)
class Projection:
    """A kernel of a network that an adapter may change.

    Attributes:
        name: Of the place, such as `layer_0/query`.
        depth: Number of its group in `layer_groups`.
        kernel: Its variable.
        inputs: Number of input axes of the kernel; they come first.
        attach: Puts an adapter beside the kernel, or takes it away again (None).
        outputs_first: Whether the output axes come first in place of the input axes.
    """

    name: str
    depth: int
    kernel: tf.Variable
    inputs: int
    attach: Callable[[LowRank | None], None]
    outputs_first: bool = False

    @property
    def order(self) -> list[int]:
        """The kernel's axes in the order of an adapter: those of the input first."""
        axes = list(range(len(self.kernel.shape)))
        return [*axes[-self.inputs :], *axes[: -self.inputs]] if self.outputs_first else axes

    @property
    def shape(self) -> list[int]:
        """The kernel's shape, input axes first."""
        return [self.kernel.shape[axis] for axis in self.order]


def dense_projection(name: str, depth: int, owner: object, attribute: str, inputs: int = 1) -> Projection:
    """Returns the projection of a dense layer without activation, which is an attribute of `owner`."""
    dense = getattr(owner, attribute)

    def attach(adapter: LowRank | None) -> None:
        setattr(owner, attribute, dense if adapter is None else AdaptedDense(dense, adapter))

    return Projection(name, depth, dense.kernel, inputs, attach)


class KernelLayer(keras.layers.Layer):
    """A layer with kernels of its own as attributes, beside which there may be adapters of the same names."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.adapters: dict[str, LowRank] = {}

    def with_adapter(self, kernel: str, output: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Returns the output of a kernel for x with what its adapter adds, if there is one."""
        return adapted(output, self.adapters.get(kernel), x)

    def projection(
        self, name: str, depth: int, kernel: str, inputs: int = 1, outputs_first: bool = False
    ) -> Projection:
        """Returns a kernel by the name of its attribute; the rest as `Projection` has it."""

        def attach(adapter: LowRank | None) -> None:
            # A new dict each time: Keras follows what is assigned, not what is taken out.
            others = {each: found for each, found in self.adapters.items() if each != kernel}
            self.adapters = others if adapter is None else {**others, kernel: adapter}

        return Projection(name, depth, getattr(self, kernel), inputs, attach, outputs_first)


class Adaptation:
    """The adapters of one network.

    Args:
        projections: Kernels that get one.
        rank: Of every adapter.
        alpha: See `LowRank`.
        dropout: See `LowRank`.
        seed: Seed of the start values, which depend on the names of the places too.
    """

    def __init__(
        self, projections: Iterable[Projection], *, rank: int, alpha: float, dropout: float, seed: int
    ) -> None:
        self._pairs = [
            (
                place,
                LowRank(
                    place.shape, place.inputs, rank=rank, alpha=alpha, dropout=dropout,
                    seed=[seed % 2**32, zlib.crc32(place.name.encode())], name=f"lora/{place.name}",
                ),
            )
            for place in projections
        ]  # fmt: skip
        for place, adapter in self._pairs:
            place.attach(adapter)

    def variables(self, depth: int) -> list[tf.Variable]:
        """Returns the variables of the adapters in a group of `layer_groups`."""
        return [variable for place, adapter in self._pairs if place.depth == depth for variable in adapter.weights]

    def merge(self) -> None:
        """Adds every adapter to its kernel and takes it away: the network is an ordinary one again."""
        for place, adapter in self._pairs:
            place.kernel.assign_add(tf.transpose(adapter.change(), np.argsort(place.order)))
            place.attach(None)


def mark_base(variables: Iterable[tf.Variable], is_base: bool = True) -> None:
    """Notes that variables are never trained and in no checkpoint: those that adapters stand beside."""
    for variable in variables:
        setattr(variable, _MARK, is_base)


def without_base(variables: Iterable[tf.Variable]) -> list[tf.Variable]:
    """Returns the variables that are trained and stored: of a network without adapters all of them."""
    return [variable for variable in variables if not getattr(variable, _MARK, False)]


def base_digest(variables: Iterable[tf.Variable]) -> str | None:
    """Returns the SHA-256 of the values that adapters stand beside, None where there are no adapters."""
    base = [variable for variable in variables if getattr(variable, _MARK, False)]
    if not base:
        return None
    digest = hashlib.sha256()
    for variable in base:
        digest.update(repr(variable.shape.as_list()).encode())
        digest.update(np.ascontiguousarray(variable.numpy()).data)
    return digest.hexdigest()
