"""What is to be guessed of labels of regions: hidden words, replaced labels, the regions they name; in the graph."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from easytransfer.app.inputs.region_labels import ATTRIBUTE, OBJECT, STORED, LabelMaker
from easytransfer.text.hiding import Draws
from easytransfer.train.task import Batch

# In place of a piece that is not there.
NO_PIECE = -1
# Labels of other images that a row takes along, in the form of the first two of `STORED`.
SPARE = ("spare_labels", "spare_label_words")
# Arrays of pieces that `LabelMaker.in_use` returns.
_LAID_OUT = ("label_ids", "label_slot", "label_inner", "label_word", "label_mask")


class LabelRates(NamedTuple):
    """Chances of what happens to labels.

    Attributes:
        used: That an image is shown with its labels.
        hidden: That a word of a label is hidden.
        replaced: That a label is replaced by one of other images.
    """

    used: float = 0.7
    hidden: float = 0.3
    replaced: float = 0.25


class LabelHider:
    """Lays out the labels of images and decides what is to be guessed of them.

    Replaced labels have hidden words like others, so that a mask does not tell which ones were replaced; nothing is
    guessed of them but that they were.

    Args:
        maker: Of the labels.
        rates: Chances.
        least: Confidence from which regions have a text, as the maker takes them.
    """

    def __init__(self, maker: LabelMaker, rates: LabelRates, least: float) -> None:
        self._maker, self._rates, self._least = maker, rates, least

    def hide(self, batch: Batch, draws: Draws) -> Batch:
        """Returns the batch with its labels laid out.

        Args:
            batch: With the arrays of `STORED`, classes of regions and, where labels may be replaced, those of `SPARE`.
            draws: Random numbers of the rows.

        Returns:
            What `LabelMaker.in_use` says, words hidden, and no [SEP] where no labels are shown; `label_targets` int32
            [batch, M], the pieces before they were hidden, and `label_hidden` float32 [batch, M], 1 for what is to be
            guessed; `label_real` and `label_original` float32 [batch, S], 1 for labels that are there and for those
            not replaced; `label_regions` float32 [batch, S, K], 1 for regions with the text of such a label.
        """
        maker, rates = self._maker, self._rates
        used = draws.uniform(1) < rates.used
        fate, first, second = (draws.uniform(maker.slots) for _ in range(3))
        word_keys = tf.reshape(draws.uniform(2 * maker.slots), [-1, maker.slots, 2])
        pieces, words, regions = (batch[name] for name in STORED)
        there = (regions >= 0) & used
        pieces = tf.where(there[..., tf.newaxis], pieces, NO_PIECE)
        replaced = tf.zeros_like(there)
        if SPARE[0] in batch:
            other = self._drawn(batch, first, second)
            replaced = there & (fate < rates.replaced) & other.usable & ~_is_among(other.pieces, pieces)
            replaced &= self._has_room(pieces, other.pieces, replaced)
            pieces, words = (
                tf.where(replaced[..., tf.newaxis], new, old)
                for new, old in ((other.pieces, pieces), (other.words, words))
            )
        regions = tf.where(there, regions, -1)
        found = maker.in_use({**batch, **dict(zip(STORED, (pieces, words, regions), strict=True))}, draws)
        # Which a graph for any number of rows does not keep.
        shapes = dict.fromkeys(_LAID_OUT, maker.pieces) | {"label_region": maker.slots}
        found |= {name: tf.ensure_shape(found[name], [None, size]) for name, size in shapes.items()}
        return {**found, **self._hidden(found, word_keys, _in_order(replaced, regions, found["label_region"]))}

    def _hidden(self, found: Batch, keys: tf.Tensor, replaced: tf.Tensor) -> Batch:
        """Returns what is hidden of labels that are laid out, and what is to be guessed.

        Args:
            found: What `LabelMaker.in_use` returned.
            keys: Random numbers [batch, S, 2] of the words of labels.
            replaced: Replaced labels, bool [batch, S].
        """
        slot, word, pad_id = found["label_slot"], found["label_word"], self._maker.tokenizer.pad_id
        of_label = slot >= 0
        at = tf.maximum(slot, 0)
        of_words = tf.reshape(keys < self._rates.hidden, [-1, 2 * keys.shape[1]])
        chosen = tf.gather(of_words, 2 * at + tf.maximum(word, 0), batch_dims=1) & of_label
        shown = tf.reduce_any(of_label, axis=1, keepdims=True)
        ids = tf.where(shown, found["label_ids"], pad_id)
        real = found["label_region"] >= 0
        original = tf.cast(real & ~replaced, tf.float32)
        guessed = chosen & ~tf.gather(replaced, at, batch_dims=1)
        return {
            "label_ids": tf.where(chosen, self._maker.tokenizer.mask_id, ids),
            "label_mask": found["label_mask"] * tf.cast(shown, tf.int32),
            "label_targets": ids,
            "label_hidden": tf.cast(guessed, tf.float32),
            "label_real": tf.cast(real, tf.float32),
            "label_original": original,
            "label_regions": self._alike(found) * original[..., tf.newaxis],
        }

    def _alike(self, found: Batch) -> tf.Tensor:
        """Returns 1 for regions whose class and attribute are those of the region of a label, float32 [batch, S, K]."""
        sure = (found["region_mask"] > 0) & (found["object_id"] >= 0) & (found["object_conf"] >= self._least)
        described = (found["attribute_id"] >= 0) & (found["attribute_conf"] >= self._least)
        attribute = tf.where(described, found["attribute_id"], -1)
        source = tf.maximum(found["label_region"], 0)
        equal = sure[:, tf.newaxis]
        for number in (found["object_id"], attribute):
            equal &= tf.gather(number, source, batch_dims=1)[..., tf.newaxis] == number[:, tf.newaxis]
        return tf.cast(equal, tf.float32)

    def _drawn(self, batch: Batch, first: tf.Tensor, second: tf.Tensor) -> _Labels:
        """Returns for each label the attribute of one and the object of another label of other images."""
        slots, inner = self._maker.slots, self._maker.inner
        # Which tables of an evaluation do not say.
        pieces, words = (tf.ensure_shape(batch[name], [None, slots, inner]) for name in SPARE)
        parts = []
        for kind, drawn in ((ATTRIBUTE, first), (OBJECT, second)):
            at = tf.cast(drawn * slots, tf.int32)
            own, kinds = (tf.gather(each, at, batch_dims=1) for each in (pieces, words))
            parts.append(tf.where(kinds == kind, own, NO_PIECE))
        usable = tf.reduce_any(parts[1] >= 0, axis=2)
        # As a maker does where both have no room: the object alone.
        fits = tf.reduce_sum(tf.cast(tf.concat(parts, axis=2) >= 0, tf.int32), axis=2, keepdims=True) <= inner
        both = tf.concat([tf.where(fits, parts[0], NO_PIECE), parts[1]], axis=2)
        kinds = tf.concat([tf.fill(tf.shape(parts[0]), ATTRIBUTE), tf.fill(tf.shape(parts[1]), OBJECT)], axis=2)
        order = tf.argsort(tf.where(both >= 0, 0, 1), axis=2, stable=True)[..., :inner]
        both, kinds = (tf.gather(each, order, batch_dims=2) for each in (both, kinds))
        return _Labels(both, tf.where(both >= 0, kinds, -1), usable)

    def _has_room(self, old: tf.Tensor, new: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
        """Returns which of the wanted replacements leave room for all labels of an image, bool [batch, S]."""
        before, after = (tf.reduce_sum(tf.cast(each >= 0, tf.int32), axis=2) for each in (old, new))
        left = self._maker.pieces - 1 - tf.reduce_sum(before, axis=1, keepdims=True)
        longer = tf.where(wanted, tf.maximum(after - before, 0), 0)
        return (longer == 0) | (tf.cumsum(longer, axis=1) <= left)


class _Labels(NamedTuple):
    """Pieces and words of labels, int32 [batch, S, inner], and where they can be used, bool [batch, S]."""

    pieces: tf.Tensor
    words: tf.Tensor
    usable: tf.Tensor


def _is_among(labels: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
    """Returns which labels are one of those known in their row, bool [batch, S]: they would be no wrong ones."""
    equal = tf.reduce_all(labels[:, :, tf.newaxis] == known[:, tf.newaxis], axis=3)
    return tf.reduce_any(equal, axis=2)


def _in_order(flags: tf.Tensor, regions: tf.Tensor, ordered: tf.Tensor) -> tf.Tensor:
    """Returns flags of labels [batch, S] in the order in which their regions stand in `ordered`."""
    # A region has one label at most.
    same = (ordered[..., tf.newaxis] == regions[:, tf.newaxis]) & (ordered >= 0)[..., tf.newaxis]
    return tf.reduce_any(same & flags[:, tf.newaxis], axis=2)
