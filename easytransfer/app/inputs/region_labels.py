"""Words that a detector has for the regions of an image, as pieces beside the words of a text.

LAMP, Guo et al. 2020, "LAMP: Label Augmented Multimodal Pretraining", arXiv 2012.04446, adds them to pairs of image and
text; which are taken, and in which order, the paper does not say, and is decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from easytransfer.app.inputs.base import Tensors
from easytransfer.data.regions import ImageRegions
from easytransfer.deferred import tf
from easytransfer.errors import DataError
from easytransfer.layers.draws import RowDraws
from easytransfer.text.tokenizer import Tokenizer

# Words of a label, as `label_word` numbers them.
ATTRIBUTE, OBJECT = 0, 1
# Arrays of a row before the labels have an order: pieces and kinds of words [slots, pieces], regions [slots].
STORED = ("stored_labels", "stored_label_words", "stored_label_regions")


@dataclass
class Labels:
    """Labels of an image, the surest and largest first.

    Attributes:
        texts: Each as text, such as `red car`.
        pieces: Ids of the word pieces of each.
        words: For every piece `ATTRIBUTE` or `OBJECT`.
        regions: The region that each came from.
    """

    texts: list[str] = field(default_factory=list)
    pieces: list[list[int]] = field(default_factory=list)
    words: list[list[int]] = field(default_factory=list)
    regions: list[int] = field(default_factory=list)


class LabelMaker:
    """Makes labels of detected regions.

    A region whose object is sure enough is a candidate: its attribute, where that is sure enough, and its object.
    Candidates are ordered by confidence times the root of the box's share of the image; one with the text of a label
    that is taken, and a box of nearly the same place, is left out; and labels are taken until there are `slots` of
    them, or the next one has no room among the pieces.

    Args:
        tokenizer: Of the texts.
        objects: Names of the classes of objects.
        attributes: Names of attributes.
        slots: Most labels of an image.
        pieces: Most pieces of all labels, one of which is for [SEP].
        inner: Most pieces of a label; an attribute that has no room is left out.
        least: Confidence from which an object, and an attribute, is taken.
        overlap: Intersection over union of boxes above which they are nearly the same place.

    Raises:
        DataError: The name of an object has no pieces, or more than `inner`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        objects: Sequence[str],
        attributes: Sequence[str],
        *,
        slots: int = 15,
        pieces: int = 40,
        inner: int = 8,
        least: float = 0.3,
        overlap: float = 0.6,
    ) -> None:
        self.tokenizer, self.slots, self.pieces, self.inner = tokenizer, slots, pieces, inner
        self.objects, self.attributes = list(objects), list(attributes)
        self._least, self._overlap = least, overlap
        self._of_objects, self._of_attributes = (_pieces(tokenizer, names) for names in (self.objects, self.attributes))
        for name, found in zip(self.objects, self._of_objects, strict=True):
            if not 1 <= len(found) <= inner:
                raise DataError(f"the object {name!r} has {len(found)} word pieces, a label has 1 to {inner}")

    def make(self, regions: ImageRegions) -> Labels:
        """Returns the labels of an image.

        Args:
            regions: As `data.regions.checked` returns them; those without classes have no labels.

        Raises:
            ValueError: A class has no name; the message is the reason shown to the user.
        """
        found = Labels()
        if regions.object_id is None:
            return found
        score = _confidence(regions.object_id, regions.object_conf)
        sure = np.flatnonzero((score >= self._least) & (regions.object_id >= 0))
        if regions.boxes is not None:
            score = score * np.sqrt(area(regions.boxes))
        left = self.pieces - 1
        for region in sure[np.argsort(-score[sure], kind="stable")].tolist():
            text, pieces, words = self._label(regions, region)
            if self._is_taken(found, regions, region, text):
                continue
            if len(found.texts) == self.slots or len(pieces) > left:
                break
            left -= len(pieces)
            found.texts.append(text)
            found.pieces.append(pieces)
            found.words.append(words)
            found.regions.append(region)
        return found

    def _label(self, regions: ImageRegions, region: int) -> tuple[str, list[int], list[int]]:
        number = int(regions.object_id[region])
        _check_named("object", number, self.objects)
        text, pieces = self.objects[number], self._of_objects[number]
        words = [OBJECT] * len(pieces)
        if regions.attribute_id is None:
            return text, pieces, words
        attribute = int(regions.attribute_id[region])
        sure = _confidence(regions.attribute_id, regions.attribute_conf)[region] >= self._least
        if attribute < 0 or not sure:
            return text, pieces, words
        _check_named("attribute", attribute, self.attributes)
        before = self._of_attributes[attribute]
        if not before or len(before) + len(pieces) > self.inner:
            return text, pieces, words
        return f"{self.attributes[attribute]} {text}", before + pieces, [ATTRIBUTE] * len(before) + words

    def _is_taken(self, found: Labels, regions: ImageRegions, region: int, text: str) -> bool:
        for known, other in zip(found.texts, found.regions, strict=True):
            if known == text and regions.boxes is not None:
                if intersection_over_union(regions.boxes[region], regions.boxes[other]) > self._overlap:
                    return True
        return False

    # Arrays ----------------------------------------------------------------------------------------------------

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the arrays of `STORED`: -1 where there is no piece and no label."""
        shape = [None, self.slots, self.inner]
        shapes = zip(STORED, (shape, shape, shape[:2]), strict=True)
        return {name: tf.TensorSpec(each, tf.int32) for name, each in shapes}

    def fill(self, row: dict[str, np.ndarray], labels: Labels) -> None:
        """Writes labels into the arrays of a row, which hold -1."""
        pieces, words, regions = (row[name] for name in STORED)
        for slot, (ids, kinds) in enumerate(zip(labels.pieces, labels.words, strict=True)):
            pieces[slot, : len(ids)], words[slot, : len(ids)] = ids, kinds
        regions[: len(labels.regions)] = labels.regions

    def in_use(self, batch: Tensors, draws: RowDraws) -> Tensors:
        """Returns the batch with its labels in an order drawn anew, inside a graph: that of a detector says too much.

        Args:
            batch: With the arrays of `STORED`.
            draws: Source of the random numbers, `slots` a row.

        Returns:
            Without these, and with `label_ids`, `label_slot`, `label_inner`, `label_word`, `label_mask` int32 [batch,
            pieces] (the pieces of the labels, [SEP], padding; slots are numbered as they come, -1 for [SEP] and
            padding, as are `label_word`, and 0 in `label_inner`) and `label_region` int32 [batch, slots].
        """
        pieces, words, regions = (batch[name] for name in STORED)
        rows = tf.shape(pieces)[0]
        # Slots without a label come last.
        order = tf.argsort(tf.where(regions < 0, 2.0, draws.uniform(self.slots)), axis=1, stable=True)
        pieces, words, regions = (tf.gather(each, order, axis=1, batch_dims=1) for each in (pieces, words, regions))
        size = self.slots * self.inner
        places = tf.range(size, dtype=tf.int32)[None]
        flat = tf.reshape(pieces, [-1, size])
        # Of what is there the first places, in order.
        first = tf.argsort(tf.where(flat >= 0, places, size + places), axis=1)[:, : self.pieces]
        first = tf.pad(first, [[0, 0], [0, max(0, self.pieces - size)]])
        count = tf.reduce_sum(tf.cast(flat >= 0, tf.int32), axis=1, keepdims=True)
        number = tf.range(self.pieces, dtype=tf.int32)[None]
        real, is_end = number < count, number == count

        def taken(values: tf.Tensor, else_: int) -> tf.Tensor:
            found = tf.gather(tf.broadcast_to(values, [rows, size]), first, axis=1, batch_dims=1)
            return tf.where(real, found, else_)

        ids = taken(flat, self.tokenizer.pad_id)
        labels = {
            "label_ids": tf.where(is_end, self.tokenizer.sep_id, ids),
            "label_slot": taken(places // self.inner, -1),
            "label_inner": taken(places % self.inner, 0),
            "label_word": taken(tf.reshape(words, [-1, size]), -1),
            "label_mask": tf.cast(real | is_end, tf.int32),
            "label_region": regions,
        }
        return {name: value for name, value in batch.items() if name not in STORED} | labels


def read_names(path: str | Path) -> list[str]:
    """Returns the names of classes in a file, one a line; of synonyms with commas between them the first.

    Raises:
        DataError: The file cannot be read, or a line has no name.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the names of classes in {path}: {error}") from None
    names = [line.split(",", 1)[0].strip() for line in lines]
    if not names:
        raise DataError(f"{path} has no name of a class")
    if "" in names:
        raise DataError(
            f"{path}:{names.index('') + 1}: no name of a class", fix="one a line, in the order of their ids"
        )
    return names


def area(boxes: np.ndarray) -> np.ndarray:
    """Returns the areas of boxes x1, y1, x2, y2 [..., 4], 0 where one is turned round."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def intersection_over_union(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the area that boxes share, divided by what they cover together; [..., 4] each."""
    corners = [np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])]
    shared = area(np.concatenate(corners, axis=-1))
    return shared / (area(first) + area(second) - shared)


def _confidence(ids: np.ndarray, stated: np.ndarray | None) -> np.ndarray:
    """Returns how sure classes are; those that somebody wrote down without a confidence are certain."""
    return (ids >= 0).astype(np.float32) if stated is None else stated


def _check_named(kind: str, number: int, names: Sequence[str]) -> None:
    if number >= len(names):
        raise ValueError(f"unknown {kind}: {kind}_id {number}, and there are {len(names)} names")


def _pieces(tokenizer: Tokenizer, names: Sequence[str]) -> list[list[int]]:
    found = tokenizer.pieces(list(names))
    return [found[row].tolist() for row in range(len(names))]
