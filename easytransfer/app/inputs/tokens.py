"""Pieces of one text or a packed pair of texts, for pre-trained encoders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easytransfer.app.inputs.base import Encoded, Input, Tensors
from easytransfer.data.schema import ListForm
from easytransfer.data.table import RowChunk
from easytransfer.deferred import tf
from easytransfer.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from easytransfer.text.graph import GraphTokenizer

# Rows every export is checked on: plain, empty, non-ASCII, control characters, longer than any limit.
SAMPLE_TEXTS = ("as promised", "", "Überraschend gut, 质量不错 👍", "tabs\tand\x07bells", "very " * 600 + "long")
NAMES = ("input_ids", "input_mask", "segment_ids")


class TokensInput(Input):
    """`input_ids`, `input_mask`, `segment_ids` [batch, tokens] of `[CLS] text [SEP]`, or `[CLS] text [SEP] text [SEP]`.

    Args:
        tokenizer: Of the encoder.
        first: Table column with the text.
        second: Table column with the second text of a pair; None = one text a row.
        max_length: Most tokens; what is longer is cut off.
        no_truncate: Whether a text that is too long is a bad row instead.
        suffix: Behind the names of the arrays, where a network reads several texts apart.
        raw: Names of the raw tensors of a request; by default `text`, or `text_a` and `text_b`.
        reads_apart: Whether the text has a vector of its own, see `Input`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        first: str,
        second: str | None = None,
        *,
        max_length: int,
        no_truncate: bool = False,
        suffix: str = "",
        raw: tuple[str, ...] = (),
        reads_apart: bool = False,
    ) -> None:
        self.tokenizer, self.first, self.second = tokenizer, first, second
        self.max_length, self._no_truncate, self._suffix = max_length, no_truncate, suffix
        self.reads_apart = reads_apart
        self.raw = raw or (("text",) if second is None else ("text_a", "text_b"))
        self.doc = "raw text" if len(self.raw) == 1 else "raw text pairs"
        self.masks = {f"input_mask{suffix}": f"input_ids{suffix}"}
        self.lengths = {f"segment_ids{suffix}": f"input_mask{suffix}"}
        self._graph: GraphTokenizer | None = None

    @property
    def asset_files(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the files of the tokenizer."""
        return self.tokenizer.files

    def table_columns(self) -> list[str]:
        """Returns the text columns."""
        return [name for name in (self.first, self.second) if name]

    def text_columns(self) -> dict[str, ListForm]:
        """Returns the text columns: lists are refused."""
        return dict.fromkeys(self.table_columns(), "none")

    def encode(self, chunk: RowChunk) -> Encoded:
        """Tokenizes the texts; with `no_truncate`, long ones are bad rows."""
        pairs = chunk.columns[self.second] if self.second else None
        tokens = self.tokenizer.encode(chunk.columns[self.first], pairs, max_length=self.max_length)
        if self._no_truncate:
            for row in np.flatnonzero(tokens.truncated):
                chunk.reject(int(row), self.first, f"too long: more than sequenceLength={self.max_length} tokens")
        columns = {"input_ids": tokens.input_ids, "segment_ids": tokens.segment_ids}
        counts = {"truncated": tokens.truncated, "tokens": tokens.input_ids.lengths, "unknown": tokens.unknown}
        return Encoded({f"{name}{self._suffix}": column for name, column in columns.items()}, counts)

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns ids, mask and segments."""
        return {f"{name}{self._suffix}": tf.TensorSpec([None, None], tf.int32) for name in NAMES}

    def meaning(self) -> dict[str, Any]:
        """Returns the digest of the tokenizer, and whether rows are pairs."""
        return {"vocabulary": self.tokenizer.digest, "number of texts": 1 if self.second is None else 2}

    def serving_specs(self) -> dict[str, tf.TensorSpec]:
        """Returns the raw texts."""
        return {name: tf.TensorSpec([None], tf.string) for name in self.raw}

    def samples(self) -> dict[str, np.ndarray]:
        """Returns texts; the second of a pair are the first in the other order."""
        texts = np.array(SAMPLE_TEXTS[::-1] if self._suffix else SAMPLE_TEXTS, object)
        return dict(zip(self.raw, (texts, texts[::-1].copy()), strict=False))

    def from_request(self, tensors: Tensors) -> Tensors:
        """Tokenizes the raw texts."""
        first, second = (*(tensors[name] for name in self.raw), None)[:2]
        return {f"{name}{self._suffix}": value for name, value in self._graph(first, second).items()}

    def request_columns(self) -> dict[str, str]:
        """Returns the text columns; none where a table holds token ids or one column twice."""
        columns = self.table_columns()
        return dict(zip(self.raw, columns, strict=True)) if len(set(columns)) == len(self.raw) else {}

    def serving_module(self, folder: Path) -> tf.Module:
        """Returns the tokenizer in a graph."""
        self._graph = self.tokenizer.in_graph(self.max_length, folder)
        return self._graph

    def save_assets(self, folder: Path) -> None:
        """Writes vocabulary and settings of the tokenizer."""
        self.tokenizer.save(folder)
