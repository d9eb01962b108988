"""The text that is read: its pieces and an end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from easytransfer.app.inputs.base import Encoded, Input, Tensors
from easytransfer.app.inputs.tokens import SAMPLE_TEXTS
from easytransfer.data.encoded import Ragged
from easytransfer.data.schema import ListForm
from easytransfer.data.table import RowChunk
from modelzoo.t5.tokenizer import MODEL_FILE, GraphPieces, T5Tokenizer


class SourceText(Input):
    """`input_ids` and `input_mask` [batch, pieces] of a prefix, the text and an end.

    Args:
        tokenizer: Of the network.
        column: Table column with the text.
        prefix: Stands before every text.
        max_length: Most pieces, the end included; what is longer is cut off.
        no_truncate: Whether a text that is too long is a bad row instead.
    """

    asset_files: ClassVar[tuple[str, ...]] = (MODEL_FILE,)
    masks = {"input_mask": "input_ids"}
    doc = "raw text"

    def __init__(
        self, tokenizer: T5Tokenizer, column: str, *, prefix: str, max_length: int, no_truncate: bool = False
    ) -> None:
        self.tokenizer, self.column, self.prefix = tokenizer, column, prefix
        self.max_length, self.no_truncate = max_length, no_truncate
        # The tokenizer of an export, which a target writes its answers with.
        self.graph: GraphPieces | None = None

    def table_columns(self) -> list[str]:
        """Returns the text column."""
        return [self.column]

    def text_columns(self) -> dict[str, ListForm]:
        """Returns the text column: lists are refused."""
        return {self.column: "none"}

    def encode(self, chunk: RowChunk) -> Encoded:
        """Returns the pieces; with `no_truncate`, long texts are bad rows."""
        pieces = self.tokenizer.encode([self.prefix + text for text in chunk.columns[self.column]])
        cut = pieces.lengths > self.max_length - 1
        if self.no_truncate:
            for row in np.flatnonzero(cut):
                chunk.reject(int(row), self.column, f"too long: more than sequenceLength={self.max_length} tokens")
        ids = with_end(pieces, self.max_length, self.tokenizer.eos_id)
        unknown = np.array([int((ids[row] == self.tokenizer.unknown_id).sum()) for row in range(len(ids))], np.int64)
        return Encoded({"input_ids": ids}, {"truncated": cut, "tokens": ids.lengths, "unknown": unknown})

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns ids and mask."""
        return {name: tf.TensorSpec([None, None], tf.int32) for name in ("input_ids", "input_mask")}

    def meaning(self) -> dict[str, Any]:
        """Returns the digest of the tokenizer and the prefix."""
        return {"vocabulary": self.tokenizer.digest, "prefix": self.prefix}

    def serving_specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the raw text."""
        return {"text": tf.TensorSpec([None], tf.string)}

    def samples(self) -> dict[str, np.ndarray]:
        """Returns texts."""
        return {"text": np.array(SAMPLE_TEXTS, object)}

    def from_request(self, tensors: Tensors) -> Tensors:
        """Returns ids and mask of the raw texts."""
        pieces = self.graph.encode(tf.strings.join([self.prefix, tensors["text"]]))[:, : self.max_length - 1]
        ids = tf.concat([pieces, tf.fill([pieces.nrows(), 1], self.tokenizer.eos_id)], axis=1)
        mask = tf.ones_like(ids).to_tensor(shape=[None, None])
        return {"input_ids": ids.to_tensor(shape=[None, None]), "input_mask": mask}

    def serving_module(self, folder: Path) -> tf.Module:
        """Returns the tokenizer in a graph."""
        self.graph = self.tokenizer.in_graph()
        return self.graph

    def save_assets(self, folder: Path) -> None:
        """Writes the tokenizer."""
        self.tokenizer.save(folder)


def with_end(pieces: Ragged, most: int, end: int) -> Ragged:
    """Returns the first ids of every row, at most `most` with the end behind them."""
    lengths = np.minimum(pieces.lengths, most - 1) + 1
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    is_end = place == np.repeat(lengths, lengths) - 1
    ids = np.full(offsets[-1], end, np.int32)
    ids[~is_end] = pieces.values[(np.repeat(pieces.offsets[:-1], lengths) + place)[~is_end]]
    return Ragged(ids, offsets)
