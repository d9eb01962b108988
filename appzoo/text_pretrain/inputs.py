"""Documents as passages, whose words are hidden."""

from __future__ import annotations

from appzoo.encoder import Encoder, EncoderTokens
from appzoo.text_pretrain.hiding import TextDraws, WordHider
from appzoo.text_pretrain.passages import Cutter
from easytransfer.app.inputs.base import Tensors
from easytransfer.data.table import RowChunk
from easytransfer.layers.draws import RowDraws

SECOND = "second segment"


class Passages(EncoderTokens):
    """Pieces of passages of documents; in training words are hidden anew in every step.

    Args:
        encoder: Tokenizer, configuration and settings of the job.
        column: Table column with documents.
        paired: Whether a passage is two neighbouring segments.
    """

    # Tables of pieces would hold no documents any more.
    preprocessable = False

    def __init__(self, encoder: Encoder, column: str, paired: bool) -> None:
        super().__init__(encoder, column, SECOND if paired else None)
        settings, data, self.seed = encoder.job.model, encoder.job.data, encoder.job.runtime.seed
        length = data.sequence_length
        most = settings.max_predictions or max(1, round(settings.mlm_probability * length))
        self.hider = WordHider(
            encoder.tokenizer,
            share=settings.mlm_probability,
            most=most,
            max_length=length,
            whole_word=settings.whole_word,
            max_ngram=settings.max_ngram,
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
        columns = {self.first: [passage.first for passages in found for passage in passages]}
        if self.second:
            columns[self.second] = [passage.second for passages in found for passage in passages]
        return chunk.explode(source, columns)

    def augment(self, batch: Tensors, draws: RowDraws) -> Tensors:
        """Returns the batch with words hidden."""
        return self.hider.hide(batch, draws)

    def hidden(self, batch: Tensors) -> Tensors:
        """Returns the batch with words hidden, by what it holds alone."""
        return self.hider.hide(batch, TextDraws(batch["input_ids"], batch["input_mask"], self.seed))
