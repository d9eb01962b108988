"""Texts in a pattern: the row that the encoder reads, and where its masks and prompts stand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from appzoo.encoder import Encoder, EncoderTokens
from appzoo.few_shot.pattern import PatternLayout
from easytransfer.app.inputs.base import Encoded, Tensors
from easytransfer.data.encoded import Ragged
from easytransfer.data.table import RowChunk
from easytransfer.errors import ConfigError
from easytransfer.layers.draws import RowDraws
from easytransfer.text import graph, packing
from easytransfer.text.hiding import WordHider
from easytransfer.text.packing import FIRST, SECOND

HIDDEN = "hidden_input_ids"


class PatternTokens(EncoderTokens):
    """Pieces of texts in a pattern; in a training with `mlm_alpha` also the row with words hidden.

    Of two texts the longer one is cut first; of one text its end.

    Args:
        encoder: Tokenizer, configuration and settings of the job.
        first: Table column with the text.
        second: That of the second text of a pair.
    """

    # A table of pieces does not say where masks and prompts stand.
    preprocessable = False

    def __init__(self, encoder: Encoder, first: str, second: str | None) -> None:
        super().__init__(encoder, first, second)
        self.set_masks(1)
        model = encoder.job.model
        self._hider = None
        if model.mlm_alpha:
            most = max(1, round(model.mlm_probability * self.max_length))
            self._hider = WordHider(
                encoder.tokenizer, share=model.mlm_probability, most=most, max_length=self.max_length, whole_word=False
            )

    def set_masks(self, masks: int) -> None:
        """Sets how many masks stand for [MASK], once the words of the labels are known.

        Raises:
            ConfigError: The pattern leaves no room for text.
        """
        model = self.encoder.job.model
        self.pattern = PatternLayout.of(model.pattern, self.tokenizer, masks)
        used = self.pattern.layout.specials(paired=False)
        if used >= self.max_length:
            raise ConfigError(
                f"model.pattern takes {used} pieces and leaves no room for text",
                received=f"sequenceLength={self.max_length}",
                fix="give a larger sequenceLength, or a shorter pattern",
            )

    def encode(self, chunk: RowChunk) -> Encoded:
        """Tokenizes the texts and puts them into the pattern; with `no_truncate`, long ones are bad rows."""
        first = self._pieces(FIRST, chunk.columns[self.first])
        second = self._pieces(SECOND, chunk.columns[self.second]) if self.second else None
        room, layout = self.max_length - self.pattern.layout.specials(paired=False), self.pattern.layout
        if second is None:
            kept, cut = packing.heads(first, np.minimum(first.lengths, room)), first.lengths > room
            texts = [kept]
        else:
            lengths = packing.longest_first(first.lengths, second.lengths, room)
            cut = (first.lengths > lengths[0]) | (second.lengths > lengths[1])
            texts = [packing.heads(rows, kept) for rows, kept in zip((first, second), lengths, strict=True)]
        if self._no_truncate:
            for row in np.flatnonzero(cut):
                chunk.reject(int(row), self.first, f"too long: more than sequenceLength={self.max_length} tokens")
        ids, segments = layout.assemble(self.pattern.ids, *texts, *[None] * (2 - len(texts)))
        blank = [Ragged(np.zeros_like(rows.values), rows.offsets) for rows in texts]
        slots, _ = layout.assemble(self.pattern.slots, *blank, *[None] * (2 - len(texts)))
        unknown = np.sum([_count(rows, self.tokenizer.unk_id) for rows in texts], axis=0)
        counts = {"truncated": cut, "tokens": ids.lengths, "unknown": unknown}
        return Encoded({"input_ids": ids, "segment_ids": segments, "slots": slots}, counts)

    def _pieces(self, name: str, texts: Sequence[str]) -> Ragged:
        return self.tokenizer.pieces([f" {text}" for text in texts] if self.pattern.spaced[name] else texts)

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns ids, mask, segments, and `slots`: -i at the i-th mask, i at the i-th prompt, 0 elsewhere."""
        return super().specs() | {"slots": tf.TensorSpec([None, None], tf.int32)}

    def meaning(self) -> dict[str, Any]:
        """Returns the digest of the tokenizer, and what the pattern makes of texts."""
        return {**super().meaning(), "pattern": (self.pattern.layout, self.pattern.ids)}

    def from_request(self, tensors: Tensors) -> Tensors:
        """Tokenizes the raw texts and puts them into the pattern."""
        names = (FIRST, SECOND)[: len(self.raw)]
        texts = [
            self._graph.pieces(tf.strings.join([" ", tensors[raw]]) if self.pattern.spaced[name] else tensors[raw])
            for name, raw in zip(names, self.raw, strict=True)
        ]
        room = self.max_length - self.pattern.layout.specials(paired=False)
        lengths = [rows.row_lengths() for rows in texts]
        kept = [tf.minimum(lengths[0], room)] if len(texts) == 1 else graph.longest_first(*lengths, room)
        texts = [graph.heads(rows, count) for rows, count in zip(texts, kept, strict=True)]
        found = graph.assembled(self.pattern.layout, self.pattern.ids, *texts)
        blank = [rows.with_values(tf.zeros_like(rows.values)) for rows in texts]
        return {**found, "slots": graph.assembled(self.pattern.layout, self.pattern.slots, *blank)["input_ids"]}

    def augment(self, batch: Tensors, draws: RowDraws) -> Tensors:
        """Returns the batch, with `mlm_alpha` also its ids with words hidden, and which they are."""
        if self._hider is None:
            return batch
        found = self._hider.hide({name: batch[name] for name in ("input_ids", "input_mask")}, draws)
        hidden = {name: value for name, value in found.items() if name.startswith("hidden_")}
        return {**batch, **hidden, HIDDEN: found["input_ids"]}

    def serving_module(self, folder: Path) -> tf.Module:
        """Returns the tokenizer in a graph."""
        self._graph = self.tokenizer.in_graph(self.max_length, folder)
        return self._graph


def _count(rows: Ragged, piece: int) -> np.ndarray:
    """Returns how often a piece is in each row."""
    before = np.concatenate([[0], np.cumsum(rows.values == piece)])
    return before[rows.offsets[1:]] - before[rows.offsets[:-1]]
