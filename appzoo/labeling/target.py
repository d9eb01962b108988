"""A tag for every word: labels of tokens in, tags of words and entities out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from appzoo.labeling.data import encode_words, split_tags
from appzoo.labeling.entities import EntityEvaluator, unusual_tags
from appzoo.labeling.found import Entity, entity_page, found_entities
from appzoo.labeling.inputs import EncodedWords, WordWindows
from appzoo.labeling.settings import LabelingConfig
from easytransfer.app.assets import Assets
from easytransfer.app.inputs.base import Encoded
from easytransfer.app.targets.base import Target
from easytransfer.app.targets.labels import text_array
from easytransfer.config.job import NO_CLASSES
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.labels import LabelMap
from easytransfer.data.table import RowChunk
from easytransfer.deferred import tf
from easytransfer.errors import ConfigError
from easytransfer.losses.sequence import labelled_tokens, token_cross_entropy_sum
from easytransfer.run.atomic import write_text
from easytransfer.run.log import warn
from easytransfer.train.step import Loss, Losses, Step
from easytransfer.train.task import Batch, Outputs

if TYPE_CHECKING:
    from appzoo.labeling.crf import LinearChainCRF

PAGE = "entities.html"


class TagTarget(Target):
    """One tag for every word or character: `label_id` int32 [windows, tokens], -1 where a token has none.

    Trained are the outputs `logits` [windows, tokens, tags]; predictions are `tags` [windows, words] and
    `log_probabilities` [windows, words, tags] of the words that each window answers for.

    Args:
        labels: Tags with their ids; None where text without tags is preprocessed.
        words: The input with the words.
        config: Of the job.
    """

    encoded_columns: ClassVar[tuple[str, ...]] = ("label_id",)
    asset_files: ClassVar[tuple[str, ...]] = (LabelMap.FILE,)
    pad_values = {"label_id": -1}

    def __init__(self, labels: LabelMap | None, words: WordWindows, config: LabelingConfig) -> None:
        self.labels, self.words, self.config = labels, words, config
        # Tags that nobody has been told of yet, with how they are read; None before the first row.
        self._unusual: dict[str, str] | None = None

    @property
    def names(self) -> list[str] | None:  # type: ignore[override]
        """Tags in id order."""
        return self.labels.names if self.labels is not None else None

    def table_columns(self) -> list[str]:
        """Returns the column with the tags."""
        return [self.words.tags] if self.words.tags else []

    def encode(self, chunk: RowChunk, inputs: Sequence[Encoded]) -> Encoded:
        """Puts tags on the tokens of their words; rows without words, or whose tags do not fit, are bad rows."""
        words: EncodedWords = inputs[0]
        windows, cells = words.windows, chunk.columns[self.words.tags]
        counts = np.bincount(windows.row_of, windows.word_starts.lengths, len(cells)).astype(np.int64).tolist()
        tags = (self._read(chunk, row, *cell) for row, cell in enumerate(zip(cells, counts, strict=True)))
        flat = np.fromiter(chain.from_iterable(tags), np.int64)
        return Encoded(
            {"label_id": windows.token_labels(flat, self.config.model.label_all_subtokens)}, row_of=words.row_of
        )

    def _read(self, chunk: RowChunk, row: int, cell: Any, count: int) -> list[int]:
        """Returns the tag ids of the `count` words of a row; without meaning where it is a bad row."""
        names = split_tags(cell)
        found = [self.labels.ids.get(name, -1) for name in names]
        if not count:
            chunk.reject(row, self.words.first, "empty text: there is nothing to give a tag to")
        elif len(names) != count:
            reason = f"wrong number of tags: {len(names)} for {count} {self.words.unit}s"
            chunk.reject(row, self.words.tags, reason)
        elif -1 in found:
            place = found.index(-1)
            word = self.words.words(chunk.columns[self.words.first][row])[place]
            chunk.reject(row, self.words.tags, self.labels.why_unknown(names[place], "tag", f" of {word!r}"))
        self._tell_unusual(chunk, row, names)
        return found if len(found) == count else [-1] * count

    def _tell_unusual(self, chunk: RowChunk, row: int, names: list[str]) -> None:
        """Warns at the first row that has it of a tag that is written otherwise than the tags of entities are."""
        if self._unusual is None:
            self._unusual = unusual_tags(self.names)
        for name in sorted(self._unusual.keys() & set(names)):
            how = self._unusual.pop(name)
            warn(f"{chunk.origin(row)}: the tag {name} is read as {how}; usual tags are O and B-{{type}}")

    # Training ------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, outputs: Outputs, step: Step) -> Losses:
        """Returns the cross entropy of labelled tokens, by tokens."""
        labels, weight = _token_labels(batch), batch["example_weight"]
        total = token_cross_entropy_sum(labels, outputs["logits"], weight, self.config.train.label_smoothing)
        return {"loss": Loss(total, labelled_tokens(labels, weight))}

    def sequence_losses(self, batch: Batch, outputs: Outputs, crf: LinearChainCRF) -> Losses:
        """Returns the negative log likelihood of the tags of each window as one sequence, by labelled tokens."""
        from appzoo.labeling.model import at_words

        labels, weight = _token_labels(batch), batch["example_weight"]
        emissions, lengths = at_words(outputs["logits"], batch["word_starts"], self.words.before)
        tags, _ = at_words(labels, batch["word_starts"], self.words.before)
        likelihood = crf.log_likelihood(emissions, tags, lengths)
        return {"loss": Loss(-tf.reduce_sum(weight * likelihood), labelled_tokens(labels, weight))}

    def evaluator(self) -> EntityEvaluator:
        """Returns token accuracy and entity scores, windows merged."""
        return EntityEvaluator(self.names, before=self.words.before)

    # Results -------------------------------------------------------------------------------------------------

    def output_columns(self) -> tuple[str, ...]:
        """Returns one tag per word, the probability of each, and a JSON list of entities."""
        return ("predictions", "probabilities", "entities")

    def postprocess(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, list[Any]]:
        """Returns tags, their probabilities and the entities of every row.

        Raises:
            ConfigError: Entities are asked for, and the table holds token ids.
        """
        tags, words = _of_words(outputs["tags"], encoded), _words(encoded)
        logs = _of_words(outputs["log_probabilities"], encoded)[np.arange(len(tags)), tags]
        ends = np.cumsum(words)[:-1]
        columns = {
            "predictions": [" ".join(names) for names in np.split(np.array(self.names, object)[tags], ends)],
            "probabilities": np.split(np.exp(logs), ends),
        }
        if "text" not in encoded.columns:
            schema = self.config.data.output_schema
            if schema is None or "entities" in schema:
                raise ConfigError("a table of token ids has no text to take entities from", fix="give outputSchema")
            return columns
        found = self._entities(encoded, tags, words)
        return columns | {"entities": [json.dumps(row, ensure_ascii=False) for row in found]}

    def _entities(self, encoded: EncodedTable, tags: np.ndarray, words: np.ndarray) -> list[list[Entity]]:
        """Returns the entities of every row.

        Args:
            encoded: The rows.
            tags: Tag ids of all words, int [all words].
            words: Number of words of every row, [rows].
        """
        return found_entities(self.names, self.words.unit, _texts(encoded), tags, words.tolist())

    def answer(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns `tags` (joined by spaces), `probabilities`, and whether a word was `truncated`, for every text."""
        # Windows come in the order of their words: without the padding they are merged.
        tags, logs = (tf.boolean_mask(outputs[name], outputs["is_word"]) for name in ("tags", "log_probabilities"))
        counts = outputs["word_count"]
        names = tf.RaggedTensor.from_row_lengths(tf.gather(tf.constant(self.names), tags), counts)
        best = tf.RaggedTensor.from_row_lengths(tf.exp(tf.gather(logs, tags, batch_dims=1)), counts)
        return {
            "tags": tf.strings.reduce_join(names, axis=-1, separator=" "),
            "probabilities": best.to_tensor(),
            "truncated": outputs["truncated"],
        }

    def answer_rows(self, outputs: dict[str, np.ndarray], encoded: EncodedTable) -> dict[str, np.ndarray]:
        """Returns what `answer` returns, by NumPy."""
        if not len(encoded):
            nothing = np.zeros([0, 0], np.float32)
            return {"tags": text_array([]), "probabilities": nothing, "truncated": np.zeros(0, bool)}
        tags, counts = _of_words(outputs["tags"], encoded), _words(encoded)
        best = np.exp(_of_words(outputs["log_probabilities"], encoded)[np.arange(len(tags)), tags])
        real = np.arange(counts.max()) < counts[:, None]
        probabilities = np.zeros(real.shape, np.float32)
        probabilities[real] = best  # words stand in the order of their rows
        names = np.split(np.array(self.names, object)[tags], np.cumsum(counts)[:-1])
        words = list(map(self.words.words, _texts(encoded)))
        cut = encode_words(self.words.tokenizer, words, self.words.max_length).cut > 0
        return {"tags": text_array([" ".join(row) for row in names]), "probabilities": probabilities, "truncated": cut}

    def report(self, folder: Path, encoded: EncodedTable, outputs: dict[str, np.ndarray]) -> list[str]:
        """Writes a page with true and predicted entities of the first rows; none for a table of token ids."""
        if "text" not in encoded.columns:
            return []
        words, sides = _words(encoded), (_true_tags(encoded, self.words.before), _of_words(outputs["tags"], encoded))
        true, predicted = (self._entities(encoded, tags, words) for tags in sides)
        write_text(folder / PAGE, entity_page(_texts(encoded), true, predicted))
        return [PAGE]

    def save_assets(self, folder: Path) -> None:
        """Writes the tags."""
        self.labels.save(folder)


def known_tags(config: LabelingConfig, assets: Assets) -> LabelMap | None:
    """Returns the tags of a trained run, or those that the label option lists; None where there are none.

    Raises:
        ConfigError: The table has tags and nothing lists them, or `num_labels` differs from their number.
    """
    data, stated, labels = config.data, config.model.num_labels, None
    if assets.folder is not None:
        labels = LabelMap.load(assets.folder)
    elif (spec := data.label_enumerate_values or _auto(data.label_name, assets)) not in (None, NO_CLASSES):
        labels = LabelMap.parse(
            spec,
            lambda: Counter(chain.from_iterable(map(split_tags, assets.values(data.label_name)))),
        )
    elif data.label_name:
        raise ConfigError("sequence labelling needs the list of tags", fix="give labelEnumerateValues, e.g. auto")
    if stated is not None and labels is not None and stated != len(labels):
        wrong = "model.num_labels differs from the number of tags listed"
        raise ConfigError(wrong, received=stated, accepted=str(len(labels)))
    return labels


def _auto(column: str | None, assets: Assets) -> str | None:
    """Returns `auto` where the table has tags that nobody has listed, None where it has none."""
    return "auto" if column is not None and next(iter(assets.values(column)), None) is not None else None


def _token_labels(batch: Batch) -> tf.Tensor:
    """Returns the labels, -1 behind the end of a text, where a table of token ids may have anything."""
    return tf.where(batch["input_mask"] > 0, batch["label_id"], -1)


def _words(encoded: EncodedTable) -> np.ndarray:
    """Returns the number of words of every row."""
    return np.bincount(encoded.row_of, list(map(len, _starts(encoded))), encoded.row_count).astype(np.int64)


def _starts(encoded: EncodedTable) -> list[np.ndarray]:
    """Returns `word_starts` of the words of every window; a table of token ids pads with 0."""
    starts = encoded.columns["word_starts"]
    return [row[row > 0] for row in (starts[i] for i in range(len(starts)))]


def _true_tags(encoded: EncodedTable, before: int) -> np.ndarray:
    """Returns the true tags of all words, which stand behind `before` special tokens."""
    labels = encoded.columns["label_id"]
    return np.concatenate([labels[i][starts - 1 + before] for i, starts in enumerate(_starts(encoded))])


def _texts(encoded: EncodedTable) -> list[str]:
    """Returns the text of every row, which all its windows carry."""
    return encoded.columns["text"].objects(np.flatnonzero(np.diff(encoded.row_of, prepend=-1))).tolist()


def _of_words(values: np.ndarray, encoded: EncodedTable) -> np.ndarray:
    """Returns a padded output of all windows as one array over all words; windows come in the order of their words."""
    return np.concatenate([row[: len(starts)] for row, starts in zip(values, _starts(encoded), strict=True)])
