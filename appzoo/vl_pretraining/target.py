"""What is learnt of texts and images: hidden words and regions, which belong together, and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from appzoo.vl_pretraining.hiding import OTHER_TEXTS, ROW_NUMBER
from appzoo.vl_pretraining.labels import NO_PIECE, SPARE
from appzoo.vl_pretraining.metrics import PretrainEvaluator
from appzoo.vl_pretraining.pairs import labels_of_other_images, of_other_images
from appzoo.vl_pretraining.tasks import Tasks
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.inputs.region_labels import STORED
from easytransfer.app.targets.base import Target
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.regions import WRONG_REGIONS
from easytransfer.data.table import RowChunk
from easytransfer.errors import DataError
from easytransfer.metrics.evaluator import Evaluator
from easytransfer.metrics.scores import sigmoid
from easytransfer.text.tokenizer import Tokenizer
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs


class PairTarget(Target):
    """Texts and images without labels of people; rows take along what they may be exchanged with.

    Args:
        tasks: What is learnt.
        tokenizer: Of the texts.
        max_length: Most pieces of a text.
        other_texts: Texts of other images that a row takes along.
        group_column: Column with the group of an image, from which these are taken.
        seed: Seed of which.
        image_column: Column that bad regions are told of.
        classes: How many classes there are of `object_id` and `attribute_id`, where they are predicted.
    """

    def __init__(
        self,
        tasks: Tasks,
        tokenizer: Tokenizer,
        max_length: int,
        *,
        other_texts: int,
        group_column: str | None,
        seed: int,
        image_column: str,
        classes: Mapping[str, int],
    ) -> None:
        self.tasks, self.tokenizer, self._max_length = tasks, tokenizer, max_length
        self._other_texts, self._group_column, self._seed = other_texts, group_column, seed
        self._classes, self._image_column = classes, image_column
        exchanged = {"matching": (OTHER_TEXTS,), "label_match": SPARE}
        found = [name for task, names in exchanged.items() if task in tasks.weights for name in names]
        self.encoded_columns = (ROW_NUMBER, *found)  # type: ignore[misc]

    def table_columns(self) -> list[str]:
        """Returns the column of groups, where there is one."""
        return [self._group_column] if self._group_column else []

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Returns `row_number` int32, `other_ids` int32 [other_texts, pieces] and the arrays of `SPARE`.

        A row with a class that the network does not know is a bad row.
        """
        columns = inputs[0].columns | inputs[1].columns
        self._check_classes(chunk, columns)
        kept = np.flatnonzero(chunk.accepted)
        numbers = chunk.index[kept]
        images = columns["image_id"].objects(kept).tolist()
        found = {ROW_NUMBER: chunk.index.astype(np.int32)}
        if OTHER_TEXTS in self.encoded_columns:
            found[OTHER_TEXTS] = self._texts(chunk, columns["input_ids"], kept, numbers, images)
        if SPARE[0] in self.encoded_columns:
            labels, words, regions = (columns[name] for name in STORED)
            there = regions[kept] >= 0
            row, place = labels_of_other_images(numbers, images, there, self._seed, count=regions.shape[1])
            for name, values in zip(SPARE, (labels, words), strict=True):
                found[name] = np.full(values.shape, NO_PIECE, np.int32)
                found[name][kept] = np.where((row >= 0)[..., None], values[kept][row, place], NO_PIECE)
        return Encoded(found)

    def _check_classes(self, chunk: RowChunk, columns: Mapping[str, Any]) -> None:
        for name, count in self._classes.items():
            for row in np.flatnonzero((columns[name] >= count).any(axis=1)).tolist():
                most = int(columns[name][row].max())
                reason = f"{WRONG_REGIONS}: {name} {most}, and the network tells {count} apart, numbered from 0"
                chunk.reject(row, self._image_column, reason)

    def _texts(
        self, chunk: RowChunk, ids: Any, kept: np.ndarray, numbers: np.ndarray, images: Sequence[str]
    ) -> np.ndarray:
        """Returns the pieces of texts of other images, rows of padding where there are none."""
        padded = ids.padded(np.arange(len(ids)), self._max_length, self.tokenizer.pad_id)
        groups = None
        if self._group_column is not None:
            cells = chunk.columns[self._group_column]
            groups = [str(cells[row]) for row in kept.tolist()]
        texts = [row.tobytes() for row in padded[kept]]
        rows = of_other_images(numbers, images, texts, self._seed, count=self._other_texts, groups=groups)
        found = np.full([len(padded), self._other_texts, self._max_length], self.tokenizer.pad_id, np.int32)
        there = rows[:, 0] >= 0
        found[kept[there]] = padded[kept[rows[there]]]
        return found

    def on_train_table(self, train: EncodedTable) -> None:
        """Refuses a table whose texts all belong to one image."""
        if OTHER_TEXTS not in self.encoded_columns:
            return
        if not any((train.batch([row])[OTHER_TEXTS] != self.tokenizer.pad_id).any() for row in range(len(train))):
            raise DataError(
                f"no text of {len(train)} rows can be exchanged with that of another image",
                fix="a table needs several images with different texts; model.matching=false trains without pairs",
            )

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the losses without their weights, each by what it is of."""
        weight = batch["example_weight"]
        return {
            f"{name}_loss": Loss(
                tf.reduce_sum(outputs[f"{name}_sum"] * weight), tf.reduce_sum(outputs[f"{name}_weight"] * weight)
            )
            for name in self.tasks.weights
        }

    def evaluator(self) -> Evaluator:
        """Returns means of losses, and what is guessed."""
        return PretrainEvaluator(self.tasks)

    def output_columns(self) -> tuple[str, ...]:
        """Returns the chance that text and image match, the perplexity, and hidden words with what was guessed."""
        matching = ("match",) if "matching" in self.tasks.weights else ()
        labels = ("hidden_labels", "guessed_labels") if self.tasks.has_labels else ()
        return (*matching, "perplexity", "hidden_words", "guessed_words", *labels)

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns a row for every pair."""
        found: dict[str, list[Any]] = {}
        if "matching" in self.tasks.weights:
            logits = outputs["matching_logits"].astype(np.float64)
            found["match"] = sigmoid(logits[:, 1] - logits[:, 0]).tolist()
        hidden = outputs["hidden_weights"] > 0
        found["perplexity"] = np.exp(outputs["mlm_sum"] / np.maximum(outputs["mlm_weight"], 1)).tolist()
        found["hidden_words"] = self._pieces(outputs["hidden_ids"], hidden)
        found["guessed_words"] = self._pieces(outputs["guesses"], hidden)
        if self.tasks.has_labels:
            hidden = outputs["label_hidden"] > 0
            found["hidden_labels"] = self._pieces(outputs["label_targets"], hidden)
            found["guessed_labels"] = self._pieces(outputs["label_guesses"], hidden)
        return found

    def _pieces(self, ids: np.ndarray, chosen: np.ndarray) -> list[str]:
        vocab = self.tokenizer.vocab
        return [" ".join(vocab[i] for i in row[mask].tolist()) for row, mask in zip(ids, chosen, strict=True)]

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns `match` and `perplexity` float32 [batch]."""
        found = {"perplexity": tf.exp(outputs["mlm_sum"] / tf.maximum(outputs["mlm_weight"], 1))}
        if "matching" in self.tasks.weights:
            found["match"] = tf.nn.softmax(outputs["matching_logits"])[:, 1]
        return found
