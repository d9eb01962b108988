"""Documents as passages, whose words are hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from appzoo.encoder import Encoder, EncoderTokens
from appzoo.text_pretrain.passages import Cutter, on_one_line
from appzoo.text_pretrain.words import WordList, check_blanks, inside_words, marks_of
from easytransfer.app.inputs.base import Encoded, Tensors
from easytransfer.data.encoded import Ragged
from easytransfer.data.id_tables import HIDDEN, HIDDEN_AT
from easytransfer.data.table import RowChunk
from easytransfer.layers.draws import RowDraws
from easytransfer.text.hiding import TextDraws, WordHider

SECOND = "second segment"
# What the network calls the columns `HIDDEN` of records.
_OURS = ("hidden_positions", "hidden_ids", "hidden_weights")


class Passages(EncoderTokens):
    """Pieces of passages of documents; in training words are hidden anew in every step.

    Args:
        encoder: Tokenizer, configuration and settings of the job.
        column: Table column with documents.
        paired: Whether a passage is two neighbouring segments.
        words: Words whose pieces are hidden together, None for those of the tokenizer alone.
    """

    # Documents of a chunk: they become many passages, and copies of their pieces.
    chunk_rows = 1024

    def __init__(self, encoder: Encoder, column: str, paired: bool, words: WordList | None = None) -> None:
        super().__init__(encoder, column, SECOND if paired else None)
        settings, data, self.seed = encoder.job.model, encoder.job.data, encoder.job.runtime.seed
        self.words, self._by_blanks = words, settings.words_by_blanks
        length = data.sequence_length
        most = settings.max_predictions or max(1, round(settings.mlm_probability * length))
        self.hider = WordHider(
            encoder.tokenizer,
            share=settings.mlm_probability,
            most=most,
            max_length=length,
            whole_word=settings.whole_word,
            max_ngram=settings.max_ngram,
            words=words,
        )
        room = encoder.tokenizer.layout.room(length, paired)
        self._cutter = Cutter(
            encoder.tokenizer, room, seed=self.seed, short_passages=settings.short_passages, paired=paired
        )

    def table_columns(self) -> list[str]:
        """Returns the column of the documents."""
        return [self.first]

    def explode(self, chunk: RowChunk) -> RowChunk:
        """Returns the chunk with a row for every passage; a document without any is a bad row."""
        found = self._cutter.cut(chunk.columns[self.first], chunk.index.tolist())
        for row, passages in enumerate(found):
            if not passages:
                chunk.reject(row, self.first, "too short: a pair needs two pieces" if self.second else "empty text")
        source = [row for row, passages in enumerate(found) for _ in passages]
        columns = {self.first: [on_one_line(passage.first) for passages in found for passage in passages]}
        if self.second:
            columns[self.second] = [on_one_line(passage.second) for passages in found for passage in passages]
        return chunk.explode(source, columns)

    def encode(self, chunk: RowChunk) -> Encoded:
        """Tokenizes the passages; with words by blanks also says which pieces stand inside of one."""
        encoded = super().encode(chunk)
        second = chunk.columns[self.second] if self.second else None
        # Passages of a document follow each other.
        begins = np.diff(chunk.index, prepend=-1) != 0
        counts = {"documents": begins, "places": np.full(len(chunk.index), self.max_length)}
        return Encoded(encoded.columns | self.marks(chunk.columns[self.first], second), encoded.counts | counts)

    def marks(self, first: Sequence[str], second: Sequence[str] | None) -> dict[str, Ragged]:
        """Returns `inside_word` of passages, see `WordHider.hide`; nothing without words by blanks."""
        if not self._by_blanks:
            return {}
        marked = []
        for texts in (first, second):
            if texts is not None:
                ids, spans = self.tokenizer.pieces_with_offsets(texts)
                # Marked by a number beyond all pieces, so that rows are cut as those of pieces are.
                inside = marks_of(texts, spans)
                check_blanks(inside)
                marked.append(Ragged(inside.values * len(self.tokenizer), ids.offsets))
        rows = self.tokenizer.pack(marked[0], marked[1] if second is not None else None, self.max_length).input_ids
        return {"inside_word": Ragged((rows.values == len(self.tokenizer)).astype("int32"), rows.offsets)}

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Returns ids, mask and segments, and with words by blanks which pieces stand inside of one."""
        added = {"inside_word": tf.TensorSpec([None, None], tf.int32)} if self._by_blanks else {}
        return super().specs() | added

    def from_request(self, tensors: Tensors) -> Tensors:
        """Tokenizes the raw texts; adds what `encode` does."""
        tensors = {name: tf.strings.regex_replace(text, "\n", " ") for name, text in tensors.items()}
        arrays = super().from_request(tensors)
        if not self._by_blanks:
            return arrays
        marked = []
        for name in self.raw:
            ids, spans = self._graph.pieces_with_offsets(tensors[name])
            marked.append(ids.with_values(inside_words(tensors[name], spans).values * len(self.tokenizer)))
        rows = self._graph.pack(*marked)["input_ids"]
        return {**arrays, "inside_word": tf.cast(rows == len(self.tokenizer), tf.int32)}

    @property
    def asset_files(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the files of encoder and tokenizer, and of the list of words."""
        return (*super().asset_files, *([WordList.FILE] if self.words else []))

    def save_assets(self, folder: Path) -> None:
        """Writes vocabulary, tokenizer settings, encoder configuration and words."""
        super().save_assets(folder)
        if self.words:
            self.words.save(folder)

    def augment(self, batch: Tensors, draws: RowDraws) -> Tensors:
        """Returns the batch with words hidden; where the table says which, it is left as it is."""
        return batch if HIDDEN_AT in batch else self.hider.hide(batch, draws)

    def hidden(self, batch: Tensors) -> Tensors:
        """Returns the batch with words hidden, as the table says, or by what it holds alone."""
        if HIDDEN_AT in batch:
            return batch | {ours: batch[name] for name, ours in zip(HIDDEN, _OURS, strict=True)}
        return self.hider.hide(batch, TextDraws(batch["input_ids"], batch["input_mask"], self.seed))

    def masked(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the records of rows: words hidden by their pieces and the seed, see `Input.masked`."""
        found = self.hidden({name: tf.constant(value) for name, value in rows.items()})
        return {"input_ids": found["input_ids"].numpy()} | {
            name: found[ours].numpy() for name, ours in zip(HIDDEN, _OURS, strict=True)
        }
