"""A row of a table as a network sees it: words, regions and labels hidden, texts exchanged, inside the graph."""

from __future__ import annotations

import tensorflow as tf

from appzoo.vl_pretraining.labels import LabelHider
from appzoo.vl_pretraining.regions import RegionHider
from easytransfer.app.inputs.tokens import NAMES
from easytransfer.text.hiding import Draws, TextDraws, WordHider
from easytransfer.text.tokenizer import Tokenizer
from easytransfer.train.task import Batch

# What tables for training and evaluation have beside the arrays of the inputs: texts of other images [rows, texts,
# pieces], and the number of the row.
OTHER_TEXTS, ROW_NUMBER = "other_ids", "row_number"
# Whether rows were hidden by their numbers, as an evaluation does, int32 [rows].
BY_NUMBER = "hidden_by_number"


class PairHider:
    """Decides what has to be guessed of texts and images.

    Hidden are words of texts that do not match, too: else a mask would tell which ones do.

    Args:
        tokenizer: Of the texts.
        words: Hides words.
        regions: Hides regions.
        labels: Hides labels; None = there are none.
        max_length: Most pieces of a text.
        other_texts: Texts of other images that a row has.
        unmatched: Share of rows with one of these.
        seed: Seed where there are no draws.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        words: WordHider,
        regions: RegionHider,
        labels: LabelHider | None,
        *,
        max_length: int,
        other_texts: int,
        unmatched: float,
        seed: int,
    ) -> None:
        self._pad_id, self._words, self._regions, self._labels = tokenizer.pad_id, words, regions, labels
        self._max_length, self._other_texts, self._unmatched = max_length, other_texts, unmatched
        self._seed = seed

    def fixed(self, batch: Batch) -> Batch:
        """Returns the batch hidden by the numbers of its rows, or by its texts where there are no numbers.

        Also `hidden_by_number`, which of the two it was, for the evaluator.
        """
        numbered = ROW_NUMBER in batch
        ids, mask = batch["input_ids"], batch["input_mask"]
        if numbered:
            ids = batch[ROW_NUMBER][:, tf.newaxis]
            mask = tf.ones_like(ids)
        found = self.hide(batch, TextDraws(ids, mask, self._seed))
        return {**found, BY_NUMBER: tf.fill(tf.shape(ids)[:1], int(numbered))}

    def hide(self, batch: Batch, draws: Draws) -> Batch:
        """Returns the batch hidden.

        Args:
            batch: Arrays of the inputs and, where texts and labels can be exchanged, those of a target.
            draws: Random numbers of the rows.

        Returns:
            As `WordHider`, `RegionHider` and `LabelHider` say, and `match_label` int32 [batch], 0 for exchanged texts.
        """
        batch = self._exchanged(batch, draws)
        batch = self._regions.hide(self._words.hide(batch, draws), draws)
        return batch if self._labels is None else self._labels.hide(batch, draws)

    def _exchanged(self, batch: Batch, draws: Draws) -> Batch:
        # Batches may be wider than the longest text, as widths are rounded up.
        batch = {**batch, **{name: batch[name][:, : self._max_length] for name in NAMES}}
        ids, mask = batch["input_ids"], batch["input_mask"]
        if OTHER_TEXTS not in batch:
            return {**batch, "match_label": tf.ones(tf.shape(ids)[:1], tf.int32)}
        others = tf.ensure_shape(batch[OTHER_TEXTS], [None, self._other_texts, self._max_length])
        fate, which = draws.uniform(1)[:, 0], draws.uniform(1)[:, 0]
        chosen = tf.gather(others, tf.cast(which * self._other_texts, tf.int32), batch_dims=1)
        exchanged = (fate < self._unmatched) & (chosen[:, 0] != self._pad_id)
        ids = tf.where(mask > 0, ids, self._pad_id)
        ids = tf.pad(ids, [[0, 0], [0, self._max_length - tf.shape(ids)[1]]], constant_values=self._pad_id)
        ids = tf.where(exchanged[:, tf.newaxis], chosen, tf.ensure_shape(ids, [None, self._max_length]))
        return {
            **batch,
            "input_ids": ids,
            "input_mask": tf.cast(ids != self._pad_id, tf.int32),
            "segment_ids": tf.zeros_like(ids),
            "match_label": 1 - tf.cast(exchanged, tf.int32),
        }
