"""Documents as passages of which spans are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.text_pretrain.passages import Cutter, on_one_line
from appzoo.text_pretrain.spans.corruption import SpanRemover
from easytransfer.app.inputs.base import Encoded, Input, Tensors
from easytransfer.app.inputs.tokens import SAMPLE_TEXTS
from easytransfer.data.schema import ListForm
from easytransfer.data.table import RowChunk
from easytransfer.layers.draws import RowDraws
from easytransfer.text.hiding import TextDraws
from easytransfer.text.packing import heads
from modelzoo.t5.tokenizer import MODEL_FILE, GraphPieces, T5Tokenizer


class SpanPassages(Input):
    """`input_ids` and `input_mask` [batch, pieces] of passages; in training spans are left out anew in every step.

    Args:
        tokenizer: Of the network.
        column: Table column with documents.
        remover: Leaves spans out.
        most: Most pieces of a passage.
        seed: Seed of how documents are cut, and of the spans of an evaluation.
        short_passages: Share of passages that are shorter, see `Cutter`.
    """

    asset_files: ClassVar[tuple[str, ...]] = (MODEL_FILE,)
    masks = {"input_mask": "input_ids"}
    doc = "raw text"
    # Passages are longer than `sequence_length`, which bounds what is left of them.
    preprocessable = False
    chunk_rows = 1024

    def __init__(
        self,
        tokenizer: T5Tokenizer,
        column: str,
        remover: SpanRemover,
        *,
        most: int,
        seed: int,
        short_passages: float = 0.0,
    ) -> None:
        self.tokenizer, self.column, self._remover, self.most, self._seed = tokenizer, column, remover, most, seed
        self._cutter = Cutter(tokenizer, most, seed=seed, short_passages=short_passages)
        self._graph: GraphPieces | None = None

    def table_columns(self) -> list[str]:
        """Returns the column of the documents."""
        return [self.column]

    def text_columns(self) -> dict[str, ListForm]:
        """Returns the column of the documents: lists are refused."""
        return {self.column: "none"}

    def explode(self, chunk: RowChunk) -> RowChunk:
        """Returns the chunk with a row for every passage; a document without any is a bad row."""
        found = self._cutter.cut(chunk.columns[self.column], chunk.index.tolist())
        for row, passages in enumerate(found):
            if not passages:
                chunk.reject(row, self.column, "empty text")
        source = [row for row, passages in enumerate(found) for _ in passages]
        texts = [on_one_line(passage.first) for passages in found for passage in passages]
        return chunk.explode(source, {self.column: texts})

    def encode(self, chunk: RowChunk) -> Encoded:
        """Returns the pieces of the passages."""
        pieces = self.tokenizer.pieces(chunk.columns[self.column])
        cut = pieces.lengths > self.most
        ids = heads(pieces, np.minimum(pieces.lengths, self.most))
        unknown = np.array([int((ids[row] == self.tokenizer.unknown_id).sum()) for row in range(len(ids))], np.int64)
        counts = {"truncated": cut, "tokens": ids.lengths, "unknown": unknown}
        counts |= {"documents": np.diff(chunk.index, prepend=-1) != 0, "places": np.full(len(ids), self.most)}
        return Encoded({"input_ids": ids}, counts)

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns ids and mask."""
        return {name: tf.TensorSpec([None, None], tf.int32) for name in ("input_ids", "input_mask")}

    def meaning(self) -> dict[str, Any]:
        """Returns the digest of the tokenizer."""
        return {"vocabulary": self.tokenizer.digest}

    def augment(self, batch: Tensors, draws: RowDraws) -> Tensors:
        """Returns the batch with spans left out."""
        return self._remover.remove(batch, draws)

    def removed(self, batch: Tensors) -> Tensors:
        """Returns the batch with spans left out, by what it holds alone."""
        return self._remover.remove(batch, TextDraws(batch["input_ids"], batch["input_mask"], self._seed))

    def serving_specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the raw text."""
        return {"text": tf.TensorSpec([None], tf.string)}

    def samples(self) -> dict[str, np.ndarray]:
        """Returns texts."""
        return {"text": np.array(SAMPLE_TEXTS, object)}

    def from_request(self, tensors: Tensors) -> Tensors:
        """Returns ids and mask of the beginnings of raw texts."""
        ids = self._graph.encode(tf.strings.regex_replace(tensors["text"], "\n", " "))[:, : self.most]
        width = tf.maximum(ids.bounding_shape(axis=1, out_type=tf.int32), 1)
        shape = tf.stack([tf.cast(ids.nrows(), tf.int32), width])
        arrays = {"input_ids": ids.to_tensor(shape=shape), "input_mask": tf.ones_like(ids).to_tensor(shape=shape)}
        return {name: tf.ensure_shape(value, [None, None]) for name, value in arrays.items()}

    def serving_module(self, folder: Path) -> tf.Module:
        """Returns the tokenizer in a graph."""
        self._graph = self.tokenizer.in_graph()
        return self._graph

    def save_assets(self, folder: Path) -> None:
        """Writes the tokenizer."""
        self.tokenizer.save(folder)
