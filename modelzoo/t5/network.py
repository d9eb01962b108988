"""Layers of T5: pre-norm blocks without biases, positions as numbers added to attention (arXiv 1910.10683, 2.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from easytransfer import keras
from easytransfer.layers.dropout import Dropout
from easytransfer.layers.lora import KernelLayer, Projection
from modelzoo.t5.config import T5Config

# Added to the scores of places that are not looked at; float32 keeps it.
NOT_SEEN = -1e9
ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "relu": tf.nn.relu,
    "gelu": lambda x: tf.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: tf.nn.gelu(x, approximate=True),
    "silu": tf.nn.silu,
}


# Kernels that adapters may change, by what they compute.
_ATTENTION = {"query": "q", "key": "k", "value": "v", "attention_output": "o"}


class RmsNorm(keras.layers.Layer):
    """Divides by the root of the mean square over the last axis, in float32, and scales: no mean, no bias."""

    def __init__(self, width: int, epsilon: float, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.scale = self.add_weight(f"{self.name}/gamma", [width], initializer="ones")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Returns x in its type."""
        wide = tf.cast(x, tf.float32)
        wide *= tf.math.rsqrt(tf.reduce_mean(tf.square(wide), -1, keepdims=True) + self.epsilon)
        return tf.cast(wide, x.dtype) * tf.cast(self.scale, x.dtype)


class Kernels(KernelLayer):
    """A layer with kernels [inputs, outputs]."""

    def product(self, kernel: str, x: tf.Tensor) -> tf.Tensor:
        """Returns x [..., inputs] times a kernel, in the type of x.

        As one product of two matrices: a product of each row's places, which `@` makes, reads the kernel for every row,
        and its gradient holds a kernel for every row.
        """
        return self.with_adapter(kernel, tf.tensordot(x, tf.cast(getattr(self, kernel), x.dtype), 1), x)


class Attention(Kernels):
    """Attention with a norm before it; scores are not divided by the root of the head's width.

    What is looked at is given as keys and values [batch, heads, places, head], see `keys`.
    """

    def __init__(self, config: T5Config, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.heads, self.width = config.num_heads, config.d_kv
        inner = self.heads * self.width
        self.norm = RmsNorm(config.d_model, config.layer_norm_epsilon, name=f"{self.name}/norm")
        self.q, self.k, self.v = (self.add_weight(f"{self.name}/{name}", [config.d_model, inner]) for name in "qkv")
        self.o = self.add_weight(f"{self.name}/o", [inner, config.d_model])
        self.dropout = Dropout(config.dropout_rate)

    def keys(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns keys and values of what `norm` gives, or of the encoder's states."""
        return self._split(self.product("k", x)), self._split(self.product("v", x))

    def call(
        self, x: tf.Tensor, keys: tuple[tf.Tensor, tf.Tensor], bias: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Returns x plus what was seen; x [batch, places, width] is not normalised yet."""
        query = self._split(self.product("q", self.norm(x)))
        scores = tf.cast(tf.matmul(query, keys[0], transpose_b=True), tf.float32) + bias
        shares = self.dropout(tf.cast(tf.nn.softmax(scores), x.dtype), training=training)
        seen = tf.transpose(tf.matmul(shares, keys[1]), [0, 2, 1, 3])
        seen = tf.reshape(seen, [tf.shape(x)[0], tf.shape(x)[1], self.heads * self.width])
        return x + self.dropout(self.product("o", seen), training=training)

    def one(self, x: tf.Tensor, keys: tuple[tf.Tensor, tf.Tensor], bias: tf.Tensor) -> tf.Tensor:
        """Returns the same for one place of each row, x [rows, width], bias [rows or 1, heads or 1, places].

        Without batched products: those with one query in a row have crashed TensorFlow with oneDNN.
        """
        query = tf.reshape(self.product("q", self.norm(x)), [-1, self.heads, 1, self.width])
        shares = tf.nn.softmax(tf.reduce_sum(query * keys[0], -1) + bias)
        seen = tf.reduce_sum(shares[..., None] * keys[1], 2)
        return x + self.product("o", tf.reshape(seen, [-1, self.heads * self.width]))

    def one_key(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns keys and values of one place of each row, x [rows, width] that `norm` gave."""
        return tuple(tf.reshape(self.product(name, x), [-1, self.heads, 1, self.width]) for name in "kv")

    def _split(self, x: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(x)
        return tf.transpose(tf.reshape(x, [shape[0], shape[1], self.heads, self.width]), [0, 2, 1, 3])


class FeedForward(Kernels):
    """Two dense layers without biases, the first one gated or not, with a norm before them."""

    def __init__(self, config: T5Config, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.activation = ACTIVATIONS[config.activation]
        self.norm = RmsNorm(config.d_model, config.layer_norm_epsilon, name=f"{self.name}/norm")
        self.into = ["wi_0", "wi_1"] if config.is_gated else ["wi"]
        for name in self.into:
            setattr(self, name, self.add_weight(f"{self.name}/{name}", [config.d_model, config.d_ff]))
        self.wo = self.add_weight(f"{self.name}/wo", [config.d_ff, config.d_model])
        self.dropout = Dropout(config.dropout_rate)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns x plus the output."""
        normal = self.norm(x)
        first, *gates = (self.product(name, normal) for name in self.into)
        inner = self.activation(first)
        for gate in gates:
            inner *= gate
        inner = self.dropout(inner, training=training)
        return x + self.dropout(self.product("wo", inner), training=training)


class Block(keras.layers.Layer):
    """Attention to the own side, in the decoder attention to the encoder, and the feed-forward part."""

    def __init__(self, config: T5Config, has_cross: bool, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.attention = Attention(config, name=f"{self.name}/attention")
        self.cross = Attention(config, name=f"{self.name}/cross") if has_cross else None
        self.feed_forward = FeedForward(config, name=f"{self.name}/feed_forward")

    def call(
        self,
        x: tf.Tensor,
        bias: tf.Tensor,
        memory: tuple[tf.Tensor, tf.Tensor] | None = None,
        memory_bias: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Returns states of the same shape."""
        x = self.attention(x, self.attention.keys(self.attention.norm(x)), bias, training=training)
        if self.cross is not None:
            x = self.cross(x, memory, memory_bias, training=training)
        return self.feed_forward(x, training=training)

    def projections(self, depth: int) -> dict[str, list[Projection]]:
        """Returns the kernels that adapters may change; depth: number of the group of this block's variables."""
        attentions = [self.attention] if self.cross is None else [self.attention, self.cross]
        found = {
            name: [layer.projection(f"{layer.name}/{kernel}", depth, kernel) for layer in attentions]
            for name, kernel in _ATTENTION.items()
        }
        feed = self.feed_forward
        for name, kernels in (("inner", feed.into), ("output", ["wo"])):
            found[name] = [feed.projection(f"{feed.name}/{kernel}", depth, kernel) for kernel in kernels]
        return found


class Stack(keras.layers.Layer):
    """Encoder or decoder: blocks that share one table of relative positions, and a last norm.

    Args:
        config: Sizes and settings.
        is_decoder: Places look at themselves and those before, and at the encoder.
    """

    def __init__(self, config: T5Config, is_decoder: bool, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.config, self.is_decoder = config, is_decoder
        self.positions = self.add_weight(
            f"{self.name}/positions", [config.relative_attention_num_buckets, config.num_heads]
        )
        layers = config.num_decoder_layers if is_decoder else config.num_layers
        self.blocks = [Block(config, is_decoder, name=f"{self.name}/block_{i}") for i in range(layers)]
        self.norm = RmsNorm(config.d_model, config.layer_norm_epsilon, name=f"{self.name}/norm")
        self.dropout = Dropout(config.dropout_rate)

    def call(
        self,
        x: tf.Tensor,
        mask: tf.Tensor | None = None,
        memory: Sequence[tuple[tf.Tensor, tf.Tensor]] | None = None,
        memory_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Returns normalised states [batch, places, width].

        Args:
            x: Embeddings of the same shape.
            mask: 1 for real places [batch, places]; the decoder needs none, as places behind a text are not looked at.
            memory: Keys and values of the encoder by block.
            memory_mask: 1 for real places of the encoder.
            training: Whether dropout is on.
        """
        places = tf.range(tf.shape(x)[1])
        bias = self.bias(places, places)
        if self.is_decoder:
            bias += tf.where(places[None, :] > places[:, None], NOT_SEEN, 0.0)
        if mask is not None:
            bias += hidden(mask)
        memory_bias = None if memory_mask is None else hidden(memory_mask)
        x = self.dropout(x, training=training)
        for number, block in enumerate(self.blocks):
            seen = {"memory": memory[number], "memory_bias": memory_bias} if memory is not None else {}
            x = block(x, bias, training=training, **seen)
        return self.dropout(self.norm(x), training=training)

    def bias(self, queries: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """Returns what relative positions add to scores, float32 [1, heads, queries, keys]."""
        found = buckets(
            keys[None, :] - queries[:, None],
            self.config.relative_attention_num_buckets,
            self.config.relative_attention_max_distance,
            both_ways=not self.is_decoder,
        )
        return tf.transpose(tf.gather(tf.cast(self.positions, tf.float32), found), [2, 0, 1])[None]

    def memory(self, states: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Returns keys and values of the encoder's states by block."""
        return [block.cross.keys(states) for block in self.blocks]

    def one(
        self,
        x: tf.Tensor,
        place: tf.Tensor,
        cache: Sequence[tuple[tf.Tensor, tf.Tensor]],
        memory: Sequence[tuple[tf.Tensor, tf.Tensor]],
        memory_mask: tf.Tensor,
    ) -> tuple[tf.Tensor, list[tuple[tf.Tensor, tf.Tensor]]]:
        """Returns the states of the next place, [rows, width], and the longer cache.

        Args:
            x: Embeddings of the place, [rows, width].
            place: Its number, from 0.
            cache: Keys and values of the places before by block, [rows, heads, places, head].
            memory: Those of the encoder.
            memory_mask: 1 for real places of the encoder.
        """
        bias = self.bias(place[None], tf.range(place + 1))[:, :, 0]
        memory_bias, longer = hidden(memory_mask)[:, :, 0], []
        for block, (keys, values), seen in zip(self.blocks, cache, memory, strict=True):
            own = block.attention.one_key(block.attention.norm(x))
            longer.append((tf.concat([keys, own[0]], 2), tf.concat([values, own[1]], 2)))
            x = block.attention.one(x, longer[-1], bias)
            x = block.feed_forward(block.cross.one(x, seen, memory_bias))
        return self.norm(x), longer


def hidden(mask: tf.Tensor) -> tf.Tensor:
    """Returns what a mask adds to scores, float32 [batch, 1, 1, places]."""
    return (1.0 - tf.cast(mask, tf.float32)[:, None, None, :]) * NOT_SEEN


def buckets(distance: tf.Tensor, count: int, farthest: int, both_ways: bool) -> tf.Tensor:
    """Returns the rows of the table of relative positions: small distances have their own, larger ones share.

    Args:
        distance: Place of the key less that of the query, integer.
        count: Rows.
        farthest: Distances from here on share the last row.
        both_ways: Half of the rows are for keys behind the query; else those count as distance 0.

    Returns:
        int32 of the same shape, from 0 to count - 1.
    """
    first = 0
    if both_ways:
        count //= 2
        first = tf.where(distance > 0, count, 0)
        distance = tf.abs(distance)
    else:
        distance = tf.maximum(-distance, 0)
    exact = count // 2
    share = tf.math.log(tf.maximum(tf.cast(distance, tf.float32), 1.0) / exact) / math.log(farthest / exact)
    far = tf.minimum(exact + tf.cast(share * (count - exact), tf.int32), count - 1)
    return first + tf.where(distance < exact, distance, far)
