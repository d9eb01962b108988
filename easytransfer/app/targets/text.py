"""A text for every row: what a decoder is trained to write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.base import Target
from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.data.table import RowChunk
from easytransfer.deferred import tf
from easytransfer.losses.sequence import labelled_tokens, token_cross_entropy_sum
from easytransfer.metrics.evaluator import Evaluator, MeanEvaluator
from easytransfer.text.words import EOS_ID, VOCAB_FILE, WordVocabulary
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs


class TextTarget(Target):
    """Words with an end behind them: `target_ids` and `target_mask` [batch, words].

    Trained are the outputs `logits` [batch, words, vocabulary] of `forward`, which reads the words before each place;
    `predict_step` gives `ids` [batch, most words], such as `easytransfer.text.decoding.written` writes them. The metric
    is `exact_match`, the share of texts that are right word by word.

    Args:
        column: Table column with the text.
        vocabulary: Words with ids.
        max_length: Most words, the end included; the rest of a text is cut off.
    """

    encoded_columns: ClassVar[tuple[str, ...]] = ("target_ids", "target_mask")
    asset_files: ClassVar[tuple[str, ...]] = (VOCAB_FILE,)
    masks = {"target_mask": "target_ids"}

    def __init__(self, column: str, vocabulary: WordVocabulary, max_length: int) -> None:
        self.column, self.vocabulary, self.max_length = column, vocabulary, max_length

    def table_columns(self) -> list[str]:
        """Returns the text column."""
        return [self.column]

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns the words and the end of every text; an empty text is a bad row."""
        words = self.vocabulary.encode(chunk.columns[self.column], max_length=self.max_length - 1).ids
        for row in np.flatnonzero(words.lengths == 0):
            chunk.reject(int(row), self.column, "empty text")
        return Encoded({"target_ids": Ragged.from_lists([*words[row], EOS_ID] for row in range(len(words)))})

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the cross entropy of the words, by words."""
        labels = tf.where(batch["target_mask"] > 0, batch["target_ids"], -1)
        weight = batch["example_weight"]
        total = token_cross_entropy_sum(labels, outputs["logits"], weight)
        return {"loss": Loss(total, labelled_tokens(labels, weight))}

    def evaluator(self) -> Evaluator:
        """Returns the share of texts that are right."""
        return MeanEvaluator("exact_match", _equal)

    def output_columns(self) -> tuple[str, ...]:
        """Returns one column."""
        return ("predictions",)

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns the texts, words with spaces between."""
        words = self.vocabulary.words
        return {"predictions": [" ".join(words[i] for i in row if i not in (0, EOS_ID)) for row in outputs["ids"]]}

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns `text` [batch]."""
        words = tf.gather(tf.constant(self.vocabulary.words), outputs["ids"])
        shown = (outputs["ids"] != 0) & (outputs["ids"] != EOS_ID)
        return {"text": tf.strings.reduce_join(tf.ragged.boolean_mask(words, shown), axis=-1, separator=" ")}

    def save_assets(self, folder: Path) -> None:
        """Writes the vocabulary."""
        self.vocabulary.save(folder)


def _equal(batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> np.ndarray:
    """Returns whether each text is the wanted one."""
    found, wanted = outputs["ids"], batch["target_ids"]
    size = max(found.shape[1], wanted.shape[1])
    found, wanted = (np.pad(ids, [(0, 0), (0, size - ids.shape[1])]) for ids in (found, wanted))
    return (found == wanted).all(axis=1)
