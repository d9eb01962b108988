"""The network of sequence labelling."""

from __future__ import annotations

from typing import ClassVar

import tensorflow as tf

from appzoo.labeling.crf import LinearChainCRF
from easytransfer import keras
from easytransfer.layers.dropout import Dropout
from modelzoo.backbone import Backbone

# The transitions start from nothing while the encoder is only adjusted.
CRF_RATE_FACTOR = 100.0


class LabelingModel(keras.Model):
    """Encoder, dropout, one dense layer per token (BERT, arXiv 1810.04805, section 5.3), optional CRF over words.

    Args:
        backbone: Encoder.
        num_tags: Number of tags.
        dropout_rate: Dropout before the dense layer.
        use_crf: Score neighbouring tags.
        seed: Seed of the dense layer's Glorot uniform start values.
        before: Special tokens before the text, see `Layout`.

    Call arguments:
        batch: `input_ids`, `input_mask`, `segment_ids`, each [batch, tokens], and `word_starts` [batch, words]: the
            first piece of every word whose tag is wanted, by its number among those of the text, from 1; 0 behind the
            last word.

    Returns:
        `logits` float32 [batch, tokens, num_tags] and, unless training, `tags` int32 [batch, words] and
        `log_probabilities` float32 [batch, words, num_tags] of the words, meaningless behind the last.
    """

    # Which input has the length of an output over words; the others are over tokens.
    length_inputs: ClassVar[dict[str, str]] = {"tags": "word_starts", "log_probabilities": "word_starts"}

    def __init__(
        self, backbone: Backbone, num_tags: int, dropout_rate: float, use_crf: bool, seed: int, before: int = 1
    ) -> None:
        super().__init__(name="sequence_labeler")
        self.backbone, self._before = backbone, before
        self.dropout = Dropout(dropout_rate, name="head_dropout")
        glorot = keras.initializers.GlorotUniform(seed=seed)
        self.head = keras.layers.Dense(num_tags, kernel_initializer=glorot, dtype="float32", name="head")
        self.crf = LinearChainCRF(num_tags, CRF_RATE_FACTOR) if use_crf else None

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """See the class."""
        hidden = self.backbone(batch, training=training)["sequence_output"]
        logits = self.head(tf.cast(self.dropout(hidden, training=training), tf.float32))
        if training:
            return {"logits": logits}
        emissions, lengths = at_words(logits, batch["word_starts"], self._before)
        if self.crf is not None:
            return {"logits": logits, **self.crf(emissions, lengths)}
        return {
            "logits": logits,
            "tags": tf.argmax(emissions, axis=-1, output_type=tf.int32),
            "log_probabilities": tf.nn.log_softmax(emissions),
        }

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings, encoder layers, and the head with the unused pooler: what freezing leaves."""
        *encoder, pooler = self.backbone.layer_groups()
        crf = self.crf.trainable_variables if self.crf is not None else []
        return [*encoder, [*pooler, *self.head.trainable_variables, *crf]]


def at_words(values: tf.Tensor, word_starts: tf.Tensor, before: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the values [batch, words, ...] at the first pieces of words, and the number of words, int32 [batch].

    Args:
        values: Of every token, [batch, tokens, ...].
        word_starts: Numbers of these pieces, from 1, so that 0 can say that there is no further word.
        before: Special tokens before the text.
    """
    lengths = tf.reduce_sum(tf.cast(word_starts > 0, tf.int32), axis=1)
    return tf.gather(values, tf.maximum(word_starts - 1 + before, 0), batch_dims=1), lengths
