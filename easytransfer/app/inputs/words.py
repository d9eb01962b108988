"""Words of a text, looked up in a vocabulary made from the training table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from easytransfer.app.inputs.base import Encoded, Input, Tensors
from easytransfer.data.schema import ListForm
from easytransfer.data.table import RowChunk
from easytransfer.deferred import tf
from easytransfer.text.words import VOCAB_FILE, WordVocabulary

if TYPE_CHECKING:
    from easytransfer.text.words_graph import GraphWords

# Rows every export is checked on: plain, empty, non-ASCII, control characters, longer than any limit.
SAMPLE_TEXTS = ("as promised", "", "ΟΔΥΣΣΕΥΣ Überraschend, 质量不错 👍", "tabs\tand\x07bells", "very " * 600 + "long")


class WordsInput(Input):
    """One text as `input_ids` and `input_mask` [batch, words].

    Args:
        column: Table column with the text.
        vocabulary: Words with ids.
        max_length: Most words; the rest of a text is cut off.
        suffix: Behind the names of the arrays and of the raw tensor, where a network reads several texts.
        no_truncate: Whether a text that is too long is a bad row instead.
    """

    doc = "raw text"
    asset_files: ClassVar[tuple[str, ...]] = (VOCAB_FILE,)

    def __init__(
        self, column: str, vocabulary: WordVocabulary, max_length: int, *, suffix: str = "", no_truncate: bool = False
    ) -> None:
        self.column, self.vocabulary, self.max_length = column, vocabulary, max_length
        self._suffix, self._no_truncate = suffix, no_truncate
        self.ids, self.mask, self.raw = f"input_ids{suffix}", f"input_mask{suffix}", f"text{suffix}"
        self.masks = {self.mask: self.ids}
        self._graph: GraphWords | None = None

    def table_columns(self) -> list[str]:
        """Returns the text column."""
        return [self.column]

    def text_columns(self) -> dict[str, ListForm]:
        """Returns the text column: lists are refused."""
        return {self.column: "none"}

    def encode(self, chunk: RowChunk) -> Encoded:
        """Looks words up; with `no_truncate`, long texts are bad rows."""
        found = self.vocabulary.encode(chunk.columns[self.column], max_length=self.max_length)
        if self._no_truncate:
            for row in np.flatnonzero(found.truncated):
                chunk.reject(int(row), self.column, f"too long: more than {self.max_length} words")
        counts = {"truncated": found.truncated, "tokens": found.ids.lengths, "unknown": found.unknown}
        return Encoded({self.ids: found.ids}, counts)

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns ids and mask."""
        return {name: tf.TensorSpec([None, None], tf.int32) for name in (self.ids, self.mask)}

    def meaning(self) -> dict[str, Any]:
        """Returns the words in the order of their ids, and how texts are split into them."""
        return {"vocabulary": self.vocabulary.words, "way of splitting texts": self.vocabulary.split}

    def serving_specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the raw text."""
        return {self.raw: tf.TensorSpec([None], tf.string)}

    def samples(self) -> dict[str, np.ndarray]:
        """Returns texts."""
        return {self.raw: np.array(SAMPLE_TEXTS[::-1] if self._suffix == "_b" else SAMPLE_TEXTS, object)}

    def from_request(self, tensors: Tensors) -> Tensors:
        """Looks the words of the raw texts up."""
        found = self._graph(tensors[self.raw], self.max_length)
        return {f"{name}{self._suffix}": value for name, value in found.items()}

    def serving_module(self, folder: Path) -> tf.Module:
        """Returns the lookup tables."""
        from easytransfer.text.words_graph import GraphWords

        self._graph = GraphWords(self.vocabulary)
        return self._graph

    def save_assets(self, folder: Path) -> None:
        """Writes the vocabulary."""
        self.vocabulary.save(folder)
