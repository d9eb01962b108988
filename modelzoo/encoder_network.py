"""The encoder of TensorFlow Model Garden as BERT, ALBERT and RoBERTa need it, whole or shared out over workers.

All that depends on how Model Garden is written inside stands here: its private attributes by our names (`PARTS`), its
epsilons and dropout layers, and the order of its layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from official.nlp.modeling.layers import TransformerEncoderBlock
from official.nlp.modeling.networks.bert_encoder import BertEncoderV2

from easytransfer import keras
from easytransfer.distributed.collectives import Group, copy_to, reduce_from
from easytransfer.distributed.pipeline import Stage
from easytransfer.distributed.shards import Shard, mark_shard
from easytransfer.errors import ConfigError
from easytransfer.layers.dropout import Dropout
from easytransfer.layers.lora import Projection, dense_projection
from modelzoo.encoder_config import EncoderConfig


def gelu_tanh(x: tf.Tensor) -> tf.Tensor:
    """Returns the tanh approximation of gelu (Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2)."""
    return keras.activations.gelu(x, approximate=True)


ACTIVATIONS = {"gelu": keras.activations.gelu, "gelu_tanh": gelu_tanh, "relu": keras.activations.relu}
# Attributes of Model Garden's layers by the names of parts of an encoder, and of one layer, in tables of weights.
PARTS = {
    "words": "_embedding_layer",
    "positions": "_position_embedding_layer",
    "segments": "_type_embedding_layer",
    "norm": "_embedding_norm_layer",
    "projection": "_embedding_projection",
    "layers": "_transformer_layers",
    "pooler": "_pooler_layer",
}
LAYER_PARTS = {
    "query": "_attention_layer._query_dense",
    "key": "_attention_layer._key_dense",
    "value": "_attention_layer._value_dense",
    "attention_output": "_attention_layer._output_dense",
    "attention_norm": "_attention_layer_norm",
    "inner": "_intermediate_dense",
    "output": "_output_dense",
    "output_norm": "_output_layer_norm",
}
# The variable of each table; kernels, biases and scales have Keras' names.
_TABLES = {"words": "embeddings", "positions": "_position_embeddings", "segments": "embeddings"}
# The axis of each variable that workers share out; the rest is whole on every worker.
_AXES = {
    "query": {"kernel": 1, "bias": 0},
    "key": {"kernel": 1, "bias": 0},
    "value": {"kernel": 1, "bias": 0},
    "attention_output": {"kernel": 0},
    "inner": {"kernel": 1, "bias": 0},
    "output": {"kernel": 0},
}


# Dense parts of a layer by the number of input axes of their kernels.
_INPUT_AXES = {"query": 1, "key": 1, "value": 1, "attention_output": 2, "inner": 1, "output": 1}


class Encoder(BertEncoderV2):
    """Embeddings, a stack of self-attention layers, and a tanh pooler on the first token.

    Of a pipeline each stage holds a share of the layers, the first also the embeddings, the last the pooler; variables
    have the names of the whole encoder's, and layers of other stages have none.

    Args:
        config: Sizes and settings.
        tensor: Workers that split every layer, see `SplitBlock`; None: the layers are whole.
        stage: Part of the depth that this worker holds; None holds all.

    Call arguments:
        inputs: `input_ids` and `segment_ids`, integer [batch, tokens], or `embeddings` in their place, float [batch,
            tokens, width of the word embeddings]; `input_mask`, integer [batch, tokens], or [batch, tokens, tokens]
            where each token has tokens of its own to look at; `added_embeddings` (optional), as wide as `embeddings`.
        first_tokens: Compute the last layer for so many first tokens only; None: for all.

    Returns:
        `hidden_states`, a tuple of the embeddings and every layer's output, each [batch, tokens, hidden], and
        `pooled_output` [batch, hidden]. Of a pipeline the last stage has the states it computed itself; the others have
        nothing but `sent`, what `Stage.send` returned.

    Raises:
        ConfigError: There are more stages than layers, or the layers cannot be split over so many workers.
    """

    def __init__(self, config: EncoderConfig, tensor: Group | None = None, stage: Stage | None = None) -> None:
        if stage is not None and stage.stages > config.num_hidden_layers:
            raise ConfigError(
                f"{config.num_hidden_layers} encoder layers cannot be cut into {stage.stages} stages",
                fix=f"set distribution.pipeline_stages to at most {config.num_hidden_layers}",
            )
        activation = ACTIVATIONS[config.hidden_act]
        super().__init__(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_layers=config.stored_layers,
            num_attention_heads=config.num_attention_heads,
            max_sequence_length=config.max_position_embeddings,
            type_vocab_size=config.type_vocab_size,
            inner_dim=config.intermediate_size,
            inner_activation=activation,
            embedding_width=config.word_width,
            initializer="zeros",
            name="encoder",
        )
        self._stage, self._hidden = stage, config.hidden_size
        self._first_position, self._pad = config.first_position, config.pad_token_id
        # Of layers with the same weights there is one, called again and again.
        self._num_layers = config.num_hidden_layers
        # Model Garden fixes epsilon at 1e-12 and has no argument for it; it is read when the layers are built.
        self._embedding_norm_layer.epsilon = config.layer_norm_eps
        self._embedding_dropout = Dropout(config.hidden_dropout_prob, name="embedding_dropout")
        split = tensor is not None and tensor.size > 1
        if split:
            for i, block in enumerate(self._transformer_layers):
                self._transformer_layers[i] = SplitBlock(config, tensor, activation, name=block.name)
        for block in self._transformer_layers:
            block._norm_epsilon = config.layer_norm_eps
        example = tf.zeros([1, 1], tf.int32)
        self({"input_ids": example, "input_mask": example, "segment_ids": example})
        for block in self._transformer_layers:
            if not block.built:
                continue  # of another stage
            _replace_dropout(block, config, tensor.rank if split else 0)
            if split:
                block.mark_parts()

    def call(self, inputs: dict[str, tf.Tensor], first_tokens: int | None = None) -> dict[str, Any]:
        """See the class."""
        stage, mask = self._stage, tf.convert_to_tensor(inputs["input_mask"])
        if stage is None or stage.is_first:
            x = self.normalized(self.embedded(inputs))
        else:
            ids = inputs["input_ids"] if "input_ids" in inputs else inputs["embeddings"][:, :, 0]
            x = stage.receive(tf.concat([tf.shape(ids), [self._hidden]], 0))
            x = tf.ensure_shape(x, [*ids.shape, self._hidden])
        mask = self._attention_mask_layer(x, mask) if mask.shape.rank == 2 else tf.cast(mask, x.dtype)
        states = self.states(x, mask, first_tokens)
        if stage is not None and not stage.is_last:
            return {"sent": stage.send(states[-1])}
        return {"hidden_states": states, "pooled_output": self.pooled(states[-1])}

    def normalized(self, embedded: tf.Tensor) -> tf.Tensor:
        """Returns what the first layer reads [batch, tokens, hidden], of sums of embeddings, as `embedded` gives."""
        x = self._embedding_dropout(self._embedding_norm_layer(embedded))
        return x if self._embedding_projection is None else self._embedding_projection(x)

    def states(self, x: tf.Tensor, mask: tf.Tensor, first_tokens: int | None = None) -> tuple[tf.Tensor, ...]:
        """Returns the given vectors and the output of every layer that is here.

        Args:
            x: What the first layer reads [batch, tokens, hidden].
            mask: [batch, tokens, tokens], of the type of x: 1 where the first token looks at the second.
            first_tokens: See the class.
        """
        stage, states, last = self._stage, [x], self._num_layers - 1
        for depth in range(self._num_layers) if stage is None else stage.share(self._num_layers):
            layer = self._transformer_layers[depth % len(self._transformer_layers)]
            x = layer([x, mask], output_range=first_tokens if depth == last else None)
            states.append(x)
        return tuple(states)

    def pooled(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the pooler's output [batch, hidden] for the last states [batch, tokens, hidden]."""
        return self._pooler_layer(x[:, 0])

    def attentions(self, states: tuple[tf.Tensor, ...], mask: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns the attention probabilities of every layer, each [batch, heads, tokens, tokens], without dropout.

        They are computed once more from what the layers read: few calls want them.

        Args:
            states: What `states` returned for all tokens.
            mask: As there.
        """
        layers = self._transformer_layers
        return tuple(_attention(layers[depth % len(layers)], x, mask) for depth, x in enumerate(states[:-1]))

    def embedded(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the sum of word, position and segment embeddings [batch, tokens, width], before their LayerNorm."""
        if "embeddings" in inputs:
            x = tf.cast(inputs["embeddings"], self.compute_dtype)
            return x if "added_embeddings" not in inputs else x + tf.cast(inputs["added_embeddings"], x.dtype)
        words = self._embedding_layer(inputs["input_ids"])
        if "added_embeddings" in inputs:
            words = words + tf.cast(inputs["added_embeddings"], words.dtype)
        positions = self._position_embedding_layer
        if self._first_position == 0 or not positions.built:
            return self._get_embeddings(inputs["input_ids"], inputs["segment_ids"], words, None, None)
        places = self._positions(inputs["input_ids"], tf.convert_to_tensor(inputs["input_mask"]))
        positions = tf.cast(tf.gather(positions._position_embeddings, places), words.dtype)
        return words + positions + self._type_embedding_layer(inputs["segment_ids"])

    def _positions(self, ids: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Returns rows of the table of positions: tokens are counted, padding has the row before the first one."""
        real = tf.cast(mask, tf.int32) if mask.shape.rank == 2 else tf.cast(tf.not_equal(ids, self._pad), tf.int32)
        return tf.cumsum(real, axis=1) * real + self._first_position - 1

    def projections(self) -> dict[str, list[Projection]]:
        """Returns the dense parts of the layers that adapters may change, by their names in `LAYER_PARTS`."""
        layers = list(enumerate(self._transformer_layers))
        return {part: [_projection(block, part, number) for number, block in layers] for part in _INPUT_AXES}

    def variable(self, path: str) -> tf.Variable:
        """Returns a variable by its path in the table of weights, such as `words` or `layers.0.query.kernel`."""
        part, *rest = path.split(".")
        found = getattr(self, PARTS[part])
        if part in _TABLES:
            return getattr(found, _TABLES[part])
        if part == "layers":
            return layer_variable(found[int(rest[0])], ".".join(rest[1:]))
        return getattr(found, rest[0])


def _attention(block: keras.layers.Layer, x: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    attend = block._attention_layer
    return attend(query=x, value=x, attention_mask=mask, return_attention_scores=True, training=False)[1]


def encoder_layer(config: EncoderConfig, name: str) -> keras.layers.Layer:
    """Returns one built layer of an encoder, for networks that have others than a stack of them.

    It takes a list of vectors [batch, tokens, hidden] and a mask [batch, tokens, tokens], and returns such vectors.
    """
    block = TransformerEncoderBlock(
        num_attention_heads=config.num_attention_heads,
        inner_dim=config.intermediate_size,
        inner_activation=ACTIVATIONS[config.hidden_act],
        kernel_initializer="zeros",
        norm_epsilon=config.layer_norm_eps,
        name=name,
    )
    block([tf.zeros([1, 1, config.hidden_size]), tf.ones([1, 1, 1])])
    _replace_dropout(block, config, 0)
    return block


def layer_variable(block: keras.layers.Layer, path: str) -> tf.Variable:
    """Returns a variable of an encoder layer by its path in the table of weights, such as `query.kernel`."""
    part, name = path.split(".")
    return getattr(_part(block, part), name)


def _part(block: keras.layers.Layer, part: str) -> keras.layers.Layer:
    """Returns a layer inside an encoder layer by its name in `LAYER_PARTS`."""
    for step in LAYER_PARTS[part].split("."):
        block = getattr(block, step)
    return block


def _projection(block: keras.layers.Layer, part: str, number: int) -> Projection:
    *steps, attribute = LAYER_PARTS[part].split(".")
    owner = getattr(block, steps[0]) if steps else block
    return dense_projection(f"layer_{number}/{part}", number + 1, owner, attribute, _INPUT_AXES[part])


def _replace_dropout(block: keras.layers.Layer, config: EncoderConfig, part: int) -> None:
    """Puts dropout that a resumed run repeats in place of Keras'."""
    # The workers' heads have masks of their own; all else is the same on every worker, so its masks must be.
    block._attention_layer._dropout_layer = Dropout(config.attention_probs_dropout_prob, part, name="probs_dropout")
    # Model Garden drops the attention output at the rate of the probabilities; BERT uses the hidden rate there.
    block._attention_dropout = Dropout(config.hidden_dropout_prob, name="attention_dropout")
    block._inner_dropout_layer = Dropout(0.0, name="inner_dropout")
    block._output_dropout = Dropout(config.hidden_dropout_prob, name="output_dropout")


class SplitBlock(TransformerEncoderBlock):
    """One worker's part of an encoder layer (Megatron-LM, Shoeybi et al. 2019, arXiv 1909.08053, section 3).

    The attention heads and the units of the feed-forward part are shared out; the two halves of the layer take one
    all-reduce each, forward and backward. Variables have the names of the whole layer's.

    Args:
        config: Sizes and settings of the encoder.
        group: Workers that share the layer; all have the same input.
        activation: Activation of the feed-forward part.
        **options: See `TransformerEncoderBlock`.

    Call arguments:
        inputs: Vectors [batch, tokens, hidden] and attention mask [batch, tokens, tokens].
        output_range: Compute the first tokens only.

    Returns:
        float32 [batch, tokens or output_range, hidden], the same on every worker.

    Raises:
        ConfigError: The group's size does not divide the heads or the feed-forward units.
    """

    def __init__(self, config: EncoderConfig, group: Group, activation: Callable[..., Any], **options: Any) -> None:
        heads, inner = config.num_attention_heads, config.intermediate_size
        for number, what in ((heads, "attention heads"), (inner, "feed-forward units")):
            if number % group.size:
                raise ConfigError(
                    f"{number} {what} cannot be split over {group.size} workers",
                    fix=f"set distribution.tensor_parallel to a divisor of {number}",
                )
        super().__init__(
            num_attention_heads=heads // group.size,
            key_dim=config.hidden_size // heads,
            inner_dim=inner // group.size,
            inner_activation=activation,
            kernel_initializer="zeros",
            **options,
        )
        self._group = group

    def mark_parts(self) -> None:
        """Notes which variables of the built layer are parts."""
        for part, axes in _AXES.items():
            for name, axis in axes.items():
                mark_shard(getattr(_part(self, part), name), Shard(self._group, axis))

    def call(self, inputs: list[tf.Tensor], output_range: int | None = None) -> tf.Tensor:
        """See the class."""
        x, mask = inputs
        shared = copy_to(x, self._group, f"{self.name}/attention/input")
        heads = self._attention_layer(
            query=shared[:, :output_range], value=shared, attention_mask=mask[:, :output_range]
        )
        attended = self._attention_dropout(self._sum(heads, self._attention_layer._output_dense, "attention/output"))
        x = self._attention_layer_norm(x[:, :output_range] + attended)
        shared = copy_to(x, self._group, f"{self.name}/feed_forward/input")
        units = self._intermediate_activation_layer(self._intermediate_dense(shared))
        output = self._output_dropout(self._sum(self._output_dense(units), self._output_dense, "feed_forward/output"))
        return self._output_layer_norm(tf.cast(output, tf.float32) + x)

    def _sum(self, partial: tf.Tensor, dense: keras.layers.Layer, name: str) -> tf.Tensor:
        """Adds up the workers' outputs of `dense`, each of which holds the whole bias."""
        total = reduce_from(partial, self._group, f"{self.name}/{name}")
        # Without a gradient: the bias has its own, once, from this worker's output.
        return total - tf.stop_gradient((self._group.size - 1) * tf.cast(dense.bias, total.dtype))
