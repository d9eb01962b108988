"""Short sequences before long ones: rows of passages cut into shorter rows, inside the graph.

Devlin et al. 2019, "BERT", arXiv 1810.04805, section A.2, train 90 % of the steps on sequences of 128 pieces: attention
to long ones costs more.
"""

from __future__ import annotations

import tensorflow as tf

from easytransfer.text.hiding import Draws
from easytransfer.text.tokenizer import Tokenizer
from easytransfer.train.task import Batch


class RowCutter:
    """Cuts rows `[CLS] text [SEP]` into as many rows of at most `length` pieces as there are whole ones in a full row.

    What is left over of a row is cut off at its ends, how much at each is drawn. A row that is shorter stays as it is.

    Args:
        tokenizer: Of the rows.
        most: Most pieces of a row, special ones included.
        length: Pieces of a short row, special ones included.
    """

    def __init__(self, tokenizer: Tokenizer, most: int, length: int) -> None:
        self._special = (tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id)
        self.length, self._room = length, length - 2
        self.parts = (most - 2) // self._room

    def cut(self, batch: Batch, draws: Draws) -> tuple[Batch, Draws]:
        """Returns the short rows, those of a row side by side, and their random numbers.

        Args:
            batch: `input_ids`, `input_mask`, perhaps `inside_word`, int32 [rows, pieces]; `example_weight` float32
                [rows].
            draws: Random numbers of the rows.

        Returns:
            The same arrays and `segment_ids` of [rows * parts, length]; rows without text have weight 0.
        """
        ids, (cls, sep, pad) = batch["input_ids"], self._special
        width = tf.shape(ids)[1]
        # Narrow batches have fewer parts.
        parts = tf.clip_by_value((width - 2 + self._room - 1) // self._room, 1, self.parts)
        text = tf.reduce_sum(batch["input_mask"], axis=1) - 2
        over = tf.cast(tf.maximum(text - self.parts * self._room, 0), tf.float32)
        first = tf.cast(draws.uniform(1)[:, 0] * (over + 1.0), tf.int32)
        place = tf.reshape(tf.range(parts * self._room), [parts, self._room]) + first[:, tf.newaxis, tf.newaxis]
        real = place < text[:, tf.newaxis, tf.newaxis]
        at = tf.minimum(place + 1, width - 1)

        def short(name: str, outside: int) -> tf.Tensor:
            inner = tf.where(real, tf.gather(batch[name], at, batch_dims=1), outside)
            return tf.pad(tf.reshape(inner, [-1, self._room]), [[0, 0], [1, 1]], constant_values=outside)

        size = tf.reshape(tf.reduce_sum(tf.cast(real, tf.int32), axis=2), [-1, 1])
        column = tf.range(self.length)[tf.newaxis]
        found = {"input_ids": tf.where(column == 0, cls, tf.where(column == size + 1, sep, short("input_ids", pad)))}
        found["input_mask"] = tf.cast(column < size + 2, tf.int32)
        found["segment_ids"] = tf.zeros_like(found["input_ids"])
        if "inside_word" in batch:
            found["inside_word"] = short("inside_word", 0)
        weight = tf.repeat(batch["example_weight"], parts) * tf.cast(size[:, 0] > 0, tf.float32)
        return {**found, "example_weight": weight}, _PartDraws(draws, self.parts, parts)


class _PartDraws:
    """Random numbers of short rows, made of those of the rows they are cut from.

    Args:
        draws: Of the rows.
        most: Most short rows of a row; what is drawn does not depend on how many there are.
        parts: How many there are.
    """

    def __init__(self, draws: Draws, most: int, parts: tf.Tensor) -> None:
        self._draws, self._most, self._parts = draws, most, parts

    def uniform(self, columns: int) -> tf.Tensor:
        """Returns fresh numbers in [0, 1), float32 [short rows, columns]."""
        every = tf.reshape(self._draws.uniform(columns * self._most), [-1, self._most, columns])
        return tf.reshape(every[:, : self._parts], [-1, columns])
