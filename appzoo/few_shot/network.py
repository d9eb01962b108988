"""Networks that answer by words at masks: an encoder with its head for hidden words, and trainable prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from appzoo.few_shot.inputs import HIDDEN
from easytransfer import keras
from modelzoo.encoder_backbone import EncoderBackbone
from modelzoo.encoder_heads import PretrainingHead


class PromptEncoder(keras.layers.Layer):
    """Trained vectors, made into prompts that depend on each other (Liu et al. 2021, arXiv 2103.10385, equation 4).

    Args:
        prompts: How many there are.
        width: Of the word embeddings.
        kind: lstm: MLP(BiLSTM(vectors)), with an MLP of two layers and ReLU; mlp: MLP(vectors); none: the vectors.
        seed: Seed of the start values.

    Call arguments:
        numbers: Of prompts, from 1, integer of any shape; others give any vector.

    Returns:
        Vectors float32 [..., width].
    """

    def __init__(self, prompts: int, width: int, kind: str, seed: int) -> None:
        super().__init__(name="prompts")
        start = keras.initializers.RandomNormal(stddev=0.02, seed=seed)
        self.vectors = self.add_weight("prompts/vectors", [prompts, width], initializer=start)
        self.lstm = self.dense = None
        if kind == "lstm":
            # Unrolled: prompts are few, and a graph without loops is served anywhere.
            cell = keras.layers.LSTM(-(-width // 2), return_sequences=True, unroll=True, name="lstm")
            self.lstm = keras.layers.Bidirectional(cell, name="both_ways")
        if kind != "none":
            layers = [("inner", "relu"), ("outer", None)]
            self.dense = [keras.layers.Dense(width, activation, name=name) for name, activation in layers]

    def call(self, numbers: tf.Tensor) -> tf.Tensor:
        """See the class."""
        x = tf.convert_to_tensor(self.vectors)[tf.newaxis]
        if self.lstm is not None:
            x = self.lstm(x)
        for layer in self.dense or []:
            x = layer(x)
        return tf.gather(tf.cast(x[0], tf.float32), tf.maximum(numbers - 1, 0))


class PatternNetwork(keras.Model):
    """Scores labels by the words that stand for them, at the masks of a row.

    The score of a label is the sum of the log-probabilities of its pieces, the i-th at the i-th mask, all guessed at
    once (Schick and Schütze 2021, arXiv 2001.07676, section 3.1; of several pieces arXiv 2009.07118, section 3.1). Of
    labels with one piece each, softmax over scores is the softmax over the logits of the words.

    Args:
        backbone: Encoder.
        head: Its head for hidden words.
        words: Pieces of the words of every label.
        prompts: Makes the vectors of prompts; None without.
        placeholder: Piece that stands where prompts are.

    Call arguments:
        batch: `input_ids`, `input_mask`, `segment_ids` and `slots`, int32 [batch, pieces]; in a training with hidden
            words also `hidden_input_ids` of the same shape, `hidden_positions`, `hidden_ids` and `hidden_weights`
            [batch, words].

    Returns:
        `logits` float32 [batch, labels]; with hidden words `hidden_nll` float32 [batch], the sum of their cross
        entropies.
    """

    def __init__(
        self,
        backbone: EncoderBackbone,
        head: PretrainingHead,
        words: Sequence[Sequence[int]],
        prompts: PromptEncoder | None = None,
        placeholder: int = 0,
    ) -> None:
        super().__init__(name="few_shot")
        self.backbone, self.head, self.prompts, self._placeholder = backbone, head, prompts, placeholder
        self.masks = max(map(len, words))
        pieces = np.zeros([self.masks, len(words)], np.int32)
        weights = np.zeros([self.masks, len(words)], np.float32)
        for label, split in enumerate(words):
            pieces[: len(split), label], weights[: len(split), label] = split, 1
        self._pieces, self._weights = pieces, weights

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """See the class."""
        marks = tf.range(-1, -self.masks - 1, -1)
        at_mask = tf.equal(batch["slots"][:, tf.newaxis], marks[:, tf.newaxis])
        places = tf.argmax(at_mask, axis=2, output_type=tf.int32)
        words = tf.nn.log_softmax(self._words(batch, batch["input_ids"], places, training))
        scores = [
            tf.gather(words[:, mask], self._pieces[mask], axis=1) * self._weights[mask] for mask in range(self.masks)
        ]
        outputs = {"logits": tf.add_n(scores)}
        if HIDDEN in batch:
            logits = self._words(batch, batch[HIDDEN], batch["hidden_positions"], training)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["hidden_ids"], logits)
            outputs["hidden_nll"] = tf.reduce_sum(losses * batch["hidden_weights"], axis=1)
        return outputs

    def _words(self, batch: dict[str, tf.Tensor], ids: tf.Tensor, places: tf.Tensor, training: bool) -> tf.Tensor:
        """Returns the logits of all words at some places, float32 [batch, places, vocabulary]."""
        read = {"input_ids": ids, "input_mask": batch["input_mask"], "segment_ids": batch["segment_ids"]}
        table = self.backbone.input_embeddings
        if self.prompts is not None:
            # What is added makes the embedding of the placeholder that of the prompt.
            added = self.prompts(batch["slots"]) - tf.cast(tf.gather(table, self._placeholder), tf.float32)
            read["added_embeddings"] = tf.where(batch["slots"][..., tf.newaxis] > 0, added, tf.zeros_like(added))
        states = self.backbone(read, training=training)["sequence_output"]
        return self.head(states, table, places)["mlm_logits"]

    def layer_groups(self) -> list[list[tf.Variable]]:
        """Returns embeddings with prompts, encoder layers, and the head with the unused pooler."""
        embeddings, *encoder, pooler = self.backbone.layer_groups()
        prompts = [] if self.prompts is None else self.prompts.trainable_variables
        return [embeddings, *encoder, [*pooler, *self.head.trainable_variables, *prompts]]
