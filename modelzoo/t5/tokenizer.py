"""SentencePiece as T5 uses it: the pieces of a text and an end, and the text of written pieces.

Training and prediction call the operators that an exported model holds, so that both split a text alike: of equally
good segmentations releases of the library choose different ones, and TF Text has another release than the Python
package.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text

from easytransfer.data.encoded import Ragged
from easytransfer.errors import ModelError
from easytransfer.presets.folder import read_json
from easytransfer.run.atomic import atomic_path
from easytransfer.text.graph import no_autograph
from easytransfer.text.piece_model import MODEL_FILE, holds_unigram, model_file, model_of_plain_json, parse_model
from easytransfer.text.sentence_piece import ROWS_AT_A_TIME, in_memory
from easytransfer.text.tokenizer import not_a_text
from easytransfer.text.tokenizer_json import JSON_FILE, bounded

# The sentinels of pre-training, where they are pieces, and how many T5 has where they are not.
_SENTINEL, _SENTINELS = re.compile(r"▁?<extra_id_\d+>"), 100


class T5Tokenizer:
    """Turns text into the ids of a SentencePiece model and ids into text (Kudo and Richardson 2018, arXiv 1808.06226).

    Args:
        model: Serialized model with a piece `</s>`, which ends a text; the first piece is that of padding.

    Attributes:
        eos_id: Id of the end.
        unknown_id: Id of what no piece stands for.
        sentinels: Id of the first sentinel of pre-training, from which the others go down, and how many there are:
            pieces of an mT5, of others rows of the embeddings behind the pieces.
        digest: SHA-256 of the model: equal digests give equal ids.

    Raises:
        ModelError: The model is damaged or has no end.

    Example:
        >>> tokenizer = T5Tokenizer.from_folder("my-t5")
        >>> tokenizer.decode([tokenizer.encode(["Hello world"]).values])
        ['Hello world']
    """

    files = (MODEL_FILE,)

    def __init__(self, model: bytes, where: str = "the SentencePiece model") -> None:
        pieces, self.unknown_id = _pieces(model, where)
        if "</s>" not in pieces:
            raise ModelError(f"{where} has no piece </s>, which ends a text", fix="take the model of a T5")
        self.model, self.size = model, len(pieces)
        self.eos_id = pieces.index("</s>")
        own = [number for number, piece in enumerate(pieces) if _SENTINEL.fullmatch(piece)]
        self.sentinels = (own[-1], len(own)) if own else (len(pieces) + _SENTINELS - 1, _SENTINELS)
        self.digest = hashlib.sha256(model).hexdigest()

    def __len__(self) -> int:
        return self.size

    @classmethod
    def from_folder(cls, folder: str | Path) -> T5Tokenizer:
        """Loads `spiece.model` of a model folder, its only file with the ending `.model`, or a `tokenizer.json`.

        Raises:
            ModelError: The file is missing, too large or damaged, or asks for what is not done here.
        """
        path = model_file(Path(folder))
        if path is None and holds_unigram(Path(folder)):
            where = Path(folder, JSON_FILE)
            return cls(model_of_plain_json(read_json(bounded(where)), {"<pad>", "</s>"}, str(where)), str(where))
        if path is None:
            raise ModelError(
                f"no {MODEL_FILE}, and no {JSON_FILE} with a Unigram model, in {folder}",
                received=", ".join(sorted(path.name for path in Path(folder).glob("*.model"))) or None,
                fix="copy the SentencePiece model of the network into the folder",
            )
        return cls(bounded(path).read_bytes(), str(path))

    def save(self, folder: str | Path) -> None:
        """Writes `files`."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        with atomic_path(Path(folder) / MODEL_FILE) as partial:
            partial.write_bytes(self.model)

    def in_graph(self) -> GraphPieces:
        """Returns the same inside a graph."""
        return GraphPieces(self.model, self.size)

    def _run(self, method: str, values: Any) -> Any:
        """Calls a method of the graph, made anew when TensorFlow has dropped its model, as whenever a seed is set."""
        try:
            return getattr(self._graph, method)(values)
        except tf.errors.NotFoundError:
            self._graph = self.in_graph()
            return getattr(self._graph, method)(values)

    @cached_property
    def _graph(self) -> GraphPieces:
        return self.in_graph()

    def encode(self, texts: Sequence[str]) -> Ragged:
        """Returns the ids of every text, int32, without an end.

        Raises:
            DataError: A text holds half of a surrogate pair.
        """
        if (refused := not_a_text(texts)) is not None:
            raise refused
        starts = range(0, max(len(texts), 1), ROWS_AT_A_TIME)
        return in_memory(
            [self._run("encode", tf.constant(list(texts[at : at + ROWS_AT_A_TIME]), tf.string)) for at in starts]
        )

    def pieces(self, texts: Sequence[str]) -> Ragged:
        """Returns what `encode` does, under the name that other tokenizers have for it."""
        return self.encode(texts)

    def pieces_with_offsets(self, texts: Sequence[str]) -> tuple[Ragged, Ragged]:
        """Returns the ids of every text and where each piece stands in it.

        Returns:
            Ids, int32, and spans, int32 [pieces, 2]: first character and the one behind the last.
        """
        if (refused := not_a_text(texts)) is not None:
            raise refused
        found = [self._run("encode_with_offsets", tf.constant(list(texts), tf.string))]
        ids, begins, ends = (in_memory([part]) for part in found[0])
        raw = np.frombuffer("".join(texts).encode(), np.uint8)
        # Characters before every byte of all texts; bytes that continue one count nothing.
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum((raw & 0xC0) != 0x80)])
        sizes = np.array([len(text.encode()) for text in texts], np.int64)
        first = np.repeat(np.cumsum(sizes) - sizes, ids.lengths)
        spans = np.stack([before[first + part.values] - before[first] for part in (begins, ends)], axis=1)
        return ids, Ragged(spans.astype(np.int32), ids.offsets)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Returns the texts of ids; padding, ends and ids that stand for no piece are left out."""
        if not len(rows):
            return []
        ids = tf.ragged.constant([list(map(int, row)) for row in rows], tf.int32, ragged_rank=1)
        return [text.decode("utf-8", "replace") for text in self._run("decode", ids).numpy()]


class GraphPieces(tf.Module):
    """Texts to pieces and back with TensorFlow operators only.

    Args:
        model: Serialized SentencePiece model.
        size: Number of its pieces.
    """

    def __init__(self, model: bytes, size: int) -> None:
        super().__init__(name="t5_pieces")
        self._size = size
        self._pieces: Any = tensorflow_text.SentencepieceTokenizer(model=model, out_type=tf.int32)

    @no_autograph
    def encode(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Returns the ids of every text, int32 [texts, (pieces)]."""
        return self._pieces.tokenize(texts)

    @no_autograph
    def encode_with_offsets(self, texts: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """Returns the ids of every text and in which bytes each piece begins and ends, int32 [texts, (pieces)] each."""
        ids, begins, ends = self._pieces.tokenize_with_offsets(texts)
        return ids, tf.cast(begins, tf.int32), tf.cast(ends, tf.int32)

    @no_autograph
    def decode(self, ids: tf.Tensor | tf.RaggedTensor) -> tf.Tensor:
        """Returns the text of every row of ids, string [rows]; control pieces give nothing."""
        if not isinstance(ids, tf.RaggedTensor):
            ids = tf.RaggedTensor.from_tensor(ids)
        # Rows of the embeddings beyond the pieces have no text: those that fill up, and the sentinels of pre-training.
        return self._pieces.detokenize(tf.ragged.boolean_mask(ids, (ids >= 0) & (ids < self._size)))


def _pieces(model: bytes, where: str) -> tuple[list[str], int]:
    """Returns the pieces, and the id of the one for what no piece stands for."""
    proto = parse_model(model, where)
    unknown = [number for number, piece in enumerate(proto.pieces) if piece.type == piece.UNKNOWN]
    if len(unknown) != 1:
        raise ModelError(f"{where} has {len(unknown)} pieces for the unknown, not one", fix="copy the file again")
    return [piece.piece for piece in proto.pieces], unknown[0]
