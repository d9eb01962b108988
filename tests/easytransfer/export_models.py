"""Two small text classifiers to export: one on core operators, one on tf.Text."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from easytransfer.savedmodel.example_signatures import classify_signature
from easytransfer.savedmodel.signature import Signature

LABELS = ["bad", "good", "odd"]
WORDS = ["good", "bad", "naïve", "漢字", "##s", "long"]
TEXTS = np.array(["good 漢字", "", "naïve café", "bad " * 300], object)


class CoreClassifier(tf.Module):
    """Mean of word vectors, looked up in a vocabulary file."""

    def __init__(self, folder: Path) -> None:
        vocabulary = folder / "vocab.txt"
        vocabulary.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
        lines = tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self.table = tf.lookup.StaticHashTable(lines, default_value=len(WORDS))
        generator = tf.random.Generator.from_seed(1)
        self.vectors = tf.Variable(generator.normal([len(WORDS) + 1, len(LABELS)]), name="vectors")
        # What a training object drags along and an export must not.
        self.slot = tf.Variable(tf.zeros([1000, 1000]), name="optimizer_slot")

    def ids(self, text: tf.Tensor) -> tf.RaggedTensor:
        return self.table.lookup(tf.strings.split(text)).with_row_splits_dtype(tf.int64)

    def logits(self, ids: tf.RaggedTensor) -> tf.Tensor:
        sums = tf.reduce_sum(tf.ragged.map_flat_values(tf.gather, self.vectors, ids), axis=1)
        return sums / tf.cast(1 + ids.row_lengths(), tf.float32)[:, None]

    def answer(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = tf.nn.softmax(self.logits(self.ids(text)))
        label = tf.gather(tf.constant(LABELS), tf.argmax(probabilities, axis=-1))
        return {"probabilities": probabilities, "label": label, "score": tf.reduce_max(probabilities, axis=-1)}

    def predict_ids(self, input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        vectors = tf.gather(self.vectors, input_ids) * tf.cast(input_mask, tf.float32)[..., None]
        return {"logits": tf.reduce_sum(vectors, axis=1) + tf.reduce_sum(0.0 * tf.cast(segment_ids, tf.float32))}


class TextClassifier(CoreClassifier):
    """The same with a tf.Text tokenizer."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import tensorflow_text

        self.tokenizer = tensorflow_text.BertTokenizer(self.table, lower_case=True)
        self.unknown = len(WORDS)

    def ids(self, text: tf.Tensor) -> tf.RaggedTensor:
        return tf.minimum(self.tokenizer.tokenize(text).merge_dims(1, 2), self.unknown)


def signatures(model: CoreClassifier) -> dict[str, Signature]:
    """Raw text, token ids and tf.Example."""
    raw = Signature(model.answer, {"text": tf.TensorSpec([None], tf.string)}, {"text": TEXTS}, "raw text")
    ids = np.array([[0, 1, 2, 0], [3, 0, 0, 0]], np.int32)
    arrays = {"input_ids": ids, "input_mask": (ids > 0).astype(np.int32), "segment_ids": 0 * ids}
    spec = tf.TensorSpec([None, None], tf.int32)
    return {
        "serving_default": raw,
        "predict_ids": Signature(model.predict_ids, dict.fromkeys(arrays, spec), arrays, "ids"),
        "classify": classify_signature(raw, LABELS),
    }
