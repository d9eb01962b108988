"""What is learnt of passages: the words that were hidden, and how the segments of a pair belong together."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from appzoo.text_pretrain.inputs import Passages
from appzoo.text_pretrain.metrics import PretrainEvaluator
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.base import Target
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.table import RowChunk
from easytransfer.errors import DataError
from easytransfer.losses.classification import softmax_cross_entropy_sum
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.run.atomic import write_text
from easytransfer.run.page import application_page
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs

_PAGE = "words.html"
_SHOWN = 100
_GUESSED, _MISSED = '<mark class="hue-2">{}</mark>', '<mark class="hue-1 wrong">{}</mark>'


class Perplexity(Target):
    """What a network guesses of a text: pieces whose number is the weight of the loss; no labels are needed."""

    encoded_columns: ClassVar[tuple[str, ...]] = ()
    loss_name: ClassVar[str]

    def table_columns(self) -> list[str]:
        """Returns nothing: the labels are the words of the text."""
        return []

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns nothing."""
        return Encoded({})

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the cross entropy of the pieces, by pieces."""
        weight = batch["example_weight"]
        hidden = tf.reduce_sum(outputs["hidden"] * weight)
        return {self.loss_name: Loss(tf.reduce_sum(outputs["nll"] * weight), hidden)}

    def output_columns(self) -> tuple[str, ...]:
        """Returns perplexity, and how many pieces it is of."""
        return ("perplexity", "hidden")

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns a row for every passage."""
        perplexity = np.exp(outputs["nll"] / np.maximum(outputs["hidden"], 1))
        return {"perplexity": perplexity.tolist(), "hidden": outputs["hidden"].astype(int).tolist()}

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns `perplexity` and `hidden`, float32 and int32 [batch]."""
        perplexity = tf.exp(outputs["nll"] / tf.maximum(outputs["hidden"], 1))
        return {"perplexity": perplexity, "hidden": tf.cast(outputs["hidden"], tf.int32)}


class HiddenWords(Perplexity):
    """Words that were hidden."""

    loss_name = "mlm_loss"

    def __init__(self, passages: Passages) -> None:
        self.passages, self.tokenizer = passages, passages.tokenizer

    def evaluator(self) -> Evaluator:
        """Returns perplexity and accuracy of the hidden words."""
        return PretrainEvaluator()

    def report(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Writes a page of passages with hidden words: what was guessed, and what was not, with the guess."""
        ids, vocab = encoded.columns["input_ids"], self.tokenizer.vocab
        lines = []
        for row in range(min(len(encoded), _SHOWN)):
            count = int(outputs["hidden"][row])
            places = outputs["hidden_positions"][row][:count]
            guesses = dict(zip(places.tolist(), outputs["guesses"][row][:count].tolist(), strict=True))
            cells = [_piece(vocab, number, guesses.get(place)) for place, number in enumerate(ids[row].tolist())]
            lines.append(f'<p class="text">{" ".join(cells)}</p>')
        lead = f"<p>Hidden pieces: {_GUESSED.format('guessed')}, or {_MISSED.format('missed (with the guess)')}.</p>"
        write_text(folder / _PAGE, application_page("Words", lead, ["\n".join(lines)]))
        return [_PAGE]


def _piece(vocab: Sequence[str], number: int, guess: int | None) -> str:
    shown = html.escape(vocab[number])
    if guess is None:
        return shown
    return _GUESSED.format(shown) if guess == number else _MISSED.format(f"{shown} ({html.escape(vocab[guess])})")


class PairedWords(HiddenWords):
    """Hidden words, and of a pair whether its second segment was replaced (`nsp`) or both were exchanged (`sop`).

    BERT, arXiv 1810.04805, section 3.1, task 2; ALBERT, arXiv 1909.11942, section 3.1. Half of the pairs are changed.

    Args:
        passages: The pairs as they stand in the text.
        task: `nsp` or `sop`.
        seed: Seed of which pairs are changed.
    """

    encoded_columns: ClassVar[tuple[str, ...]] = ("next_sentence_labels",)

    def __init__(self, passages: Passages, task: str, seed: int) -> None:
        super().__init__(passages)
        self.task, self._seed = task, seed

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns `next_sentence_labels` int32, 1 for changed pairs, and their pieces in place of the input's."""
        texts = [list(chunk.columns[name]) for name in (self.passages.first, self.passages.second)]
        numbers = chunk.index
        # A document has several pairs: the first row of the chunk numbers them on.
        draw = np.random.Generator(np.random.PCG64([self._seed, int(numbers[0]) if len(numbers) else 0]))
        label = draw.random(len(numbers)) < 0.5
        if self.task == "sop":
            pairs = [(b, a) if changed else (a, b) for a, b, changed in zip(*texts, label, strict=True)]
        else:
            other = _of_other_documents(numbers, draw)
            label &= other >= 0
            pairs = [
                (a, texts[1][far] if changed else b) for a, b, changed, far in zip(*texts, label, other, strict=True)
            ]
        length = self.passages.max_length
        first, second = [a for a, _ in pairs], [b for _, b in pairs]
        tokens = self.tokenizer.encode(first, second, max_length=length)
        columns = {"input_ids": tokens.input_ids, "segment_ids": tokens.segment_ids}
        columns |= self.passages.marks(first, second)
        return Encoded({**columns, "next_sentence_labels": label.astype(np.int32)})

    def on_train_table(self, train: EncodedTable) -> None:
        """Refuses a table whose pairs are all alike."""
        labels = np.asarray(train.columns["next_sentence_labels"])
        if not labels.any():
            raise DataError(
                f"no pair of {len(labels)} was changed, so there is nothing to tell apart",
                fix="pair_task=nsp needs several documents, pair_task=sop several pairs",
            )

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the losses of words and of pairs, by words and by pairs."""
        weight = batch["example_weight"]
        total = softmax_cross_entropy_sum(batch["next_sentence_labels"], outputs["pair_logits"], weight)
        return {**super().losses(batch, outputs, step), "pair_loss": Loss(total, tf.reduce_sum(weight))}

    def evaluator(self) -> Evaluator:
        """Returns the metrics of words, and the accuracy of pairs."""
        return PretrainEvaluator(paired=True)

    def output_columns(self) -> tuple[str, ...]:
        """Returns also the probability that a pair was changed."""
        return (*super().output_columns(), "changed")

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns a row for every passage."""
        logits = outputs["pair_logits"].astype(np.float64)
        changed = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
        return {**super().postprocess(outputs, encoded), "changed": changed.tolist()}

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns also `changed`, float32 [batch]."""
        return {**super().answer(outputs), "changed": tf.nn.softmax(outputs["pair_logits"])[:, 1]}


def _of_other_documents(numbers: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Returns for every passage one of another document, -1 where there is none; `numbers` are sorted."""
    begin, end = (np.searchsorted(numbers, numbers, side) for side in ("left", "right"))
    others = len(numbers) - (end - begin)
    chosen = np.minimum((draw.random(len(numbers)) * others).astype(np.int64), np.maximum(others - 1, 0))
    return np.where(others > 0, np.where(chosen < begin, chosen, chosen + end - begin), -1)
