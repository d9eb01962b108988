"""SentencePiece as T5 uses it: the pieces of a text and an end, and the text of written pieces.

Training and prediction call the operators that an exported model holds, so that both split a text alike: of equally
good segmentations releases of the library choose different ones, and TF Text has another release than the Python
package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text

from easytransfer.data.encoded import Ragged
from easytransfer.data.values import is_utf8
from easytransfer.errors import DataError, ModelError
from easytransfer.run.atomic import atomic_path

MODEL_FILE = "spiece.model"
# The largest known ones, of 250,000 pieces, have 5 MB.
_MOST_BYTES = 64 << 20
# Rows tokenized at a time: bounds the tensors alive at once.
_ROWS_AT_A_TIME = 8192
_no_autograph = tf.autograph.experimental.do_not_convert


class T5Tokenizer:
    """Turns text into the ids of a SentencePiece model and ids into text (Kudo and Richardson 2018, arXiv 1808.06226).

    Args:
        model: Serialized model with a piece `</s>`, which ends a text; the first piece is that of padding.

    Attributes:
        eos_id: Id of the end.
        unknown_id: Id of what no piece stands for.
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
        self.digest = hashlib.sha256(model).hexdigest()

    def __len__(self) -> int:
        return self.size

    @classmethod
    def from_folder(cls, folder: str | Path) -> T5Tokenizer:
        """Loads `spiece.model` of a model folder, or its only file with the ending `.model`.

        Raises:
            ModelError: The file is missing, too large or damaged.
        """
        found = [path for path in sorted(Path(folder).glob("*.model")) if path.is_file()]
        named = [path for path in found if path.name == MODEL_FILE]
        if len(named or found) != 1:
            raise ModelError(
                f"no {MODEL_FILE} in {folder}",
                received=", ".join(path.name for path in found) or None,
                fix="copy the SentencePiece model of the network into the folder",
            )
        path = (named or found)[0]
        if path.stat().st_size > _MOST_BYTES:
            raise ModelError(f"{path} is larger than any SentencePiece model", received=f"{path.stat().st_size} bytes")
        return cls(path.read_bytes(), str(path))

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
        wrong = next((text for text in texts if not is_utf8(text)), None)
        if wrong is not None:
            raise DataError("not a text", received=ascii(wrong)[:80], fix="half of a surrogate pair is no character")
        parts = [
            self._run("encode", tf.constant(list(texts[at : at + _ROWS_AT_A_TIME]), tf.string))
            for at in range(0, max(len(texts), 1), _ROWS_AT_A_TIME)
        ]
        lengths = np.concatenate([part.row_lengths().numpy() for part in parts])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        return Ragged(np.concatenate([part.values.numpy() for part in parts]), offsets)

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

    @_no_autograph
    def encode(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Returns the ids of every text, int32 [texts, (pieces)]."""
        return self._pieces.tokenize(texts)

    @_no_autograph
    def decode(self, ids: tf.Tensor | tf.RaggedTensor) -> tf.Tensor:
        """Returns the text of every row of ids, string [rows]; control pieces give nothing."""
        if not isinstance(ids, tf.RaggedTensor):
            ids = tf.RaggedTensor.from_tensor(ids)
        # Rows of the embeddings beyond the pieces have no text: those that fill up, and the sentinels of pre-training.
        return self._pieces.detokenize(tf.ragged.boolean_mask(ids, (ids >= 0) & (ids < self._size)))


def _pieces(model: bytes, where: str) -> tuple[list[str], int]:
    """Returns the pieces, and the id of the one for what no piece stands for."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(model)
    except (DecodeError, RuntimeError) as error:
        raise ModelError(f"{where} is no SentencePiece model ({error})", fix="copy the file again") from None
    if not proto.pieces:
        raise ModelError(f"{where} is no SentencePiece model: it has no pieces", fix="copy the file again")
    unknown = [number for number, piece in enumerate(proto.pieces) if piece.type == piece.UNKNOWN]
    if len(unknown) != 1:
        raise ModelError(f"{where} has {len(unknown)} pieces for the unknown, not one", fix="copy the file again")
    return [piece.piece for piece in proto.pieces], unknown[0]
