"""SentencePiece tokenizers as ALBERT, XLNet and XLM-RoBERTa use them.

Training and prediction call the very operators that an exported model holds: of equally good segmentations, such as
those of `!!!!!`, releases of the SentencePiece library choose different ones, and TF Text contains another release
than the Python package. TensorFlow is imported when the first text is encoded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from easytransfer.data.encoded import Ragged
from easytransfer.run.atomic import atomic_path
from easytransfer.text.packing import CLS_FIRST, CLS_LAST, SEP_TWICE, Layout
from easytransfer.text.piece_model import (
    ALBERT_PIECES,
    CONFIG_FILE,
    WORD_BEGIN,
    XLM_ROBERTA_PIECES,
    XLNET_PIECES,
    PieceKind,
    PieceRules,
    check_model,
    holds_unigram,
    model_file,
    parse_model,
    published_order,
    read_pieces,
    tokenizer_config,
)
from easytransfer.text.tokenizer import Tokenizer, not_a_text, write_file

if TYPE_CHECKING:
    import tensorflow as tf

    from easytransfer.text.sentence_piece_graph import GraphSentencePiece

# Rows tokenized at a time: bounds the tensors alive at once.
ROWS_AT_A_TIME = 8192


class SentencePiece(Tokenizer):
    """Turns text into the ids of a SentencePiece model (Kudo and Richardson 2018, arXiv 1808.06226).

    Before the model reads a text, two grave accents or apostrophes become a quotation mark, white space becomes a
    space, and accents and case are dropped where the rules say so: ALBERT's preparation (Lan et al. 2020, arXiv
    1909.11942, and its code). What the model's own normalization does comes after it.

    Ids are those of the Python package `sentencepiece` for the prepared text but where two segmentations are equally
    good, and those of `transformers`' AlbertTokenizer with `split_special_tokens=True` where its copy of the model's
    normalization does the same. The original's code split pieces of a number with a comma once more; `transformers`
    gave this up, and so do we.

    Args:
        model: Serialized model.
        rules: What happens to a text before; the family's when None.
        special: Special tokens for padding, unknown, classification, separation and masking; the family's when None.

    Raises:
        ModelError: The model is damaged, is of another kind, or has no such special tokens.

    Example:
        >>> tokenizer = SentencePiece.from_folder("albert-base-v2")
        >>> tokenizer.tokenize("Hello world")
        ['▁hello', '▁world']
    """

    kind: ClassVar[PieceKind] = ALBERT_PIECES

    def __init__(self, model: bytes, rules: PieceRules | None = None, special: tuple[str, ...] | None = None) -> None:
        rules, special = rules or self.kind.rules, special or self.kind.special
        check_model(model, special, "the SentencePiece model")
        pieces = [piece.piece for piece in parse_model(model, "the SentencePiece model").pieces]
        super().__init__(pieces, special)
        self.model, self.rules, self.special = model, rules, special

    @classmethod
    def from_folder(cls, folder: str | Path, lower_case: bool | None = None) -> Self:
        """Loads the tokenizer of a model folder; see `read_pieces` for the files and the errors."""
        found = read_pieces(folder, lower_case, cls.kind)
        return cls(found.model, found.rules, found.special)

    @classmethod
    def is_in(cls, folder: Path) -> bool:
        """See `Tokenizer`."""
        return model_file(folder) is not None or holds_unigram(folder)

    @property
    def files(self) -> tuple[str, ...]:
        """See `Tokenizer`."""
        return self.kind.file, CONFIG_FILE

    @property
    def digest(self) -> str:
        """See `Tokenizer`."""
        facts: list[Any] = [asdict(self.rules), self.special]
        facts += [asdict(self.layout)] if self.layout != CLS_FIRST else []
        return hashlib.sha256(self.model + json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def continues(self) -> np.ndarray:
        """See `Tokenizer`."""
        return np.array([not piece.startswith(WORD_BEGIN) for piece in self.vocab])

    def pieces(self, texts: Sequence[str]) -> Ragged:
        """See `Tokenizer`."""
        return in_memory(self._run(0, texts))

    def pieces_with_offsets(self, texts: Sequence[str]) -> tuple[Ragged, Ragged]:
        """See `Tokenizer`; white space around a piece does not belong to it."""
        parts = self._run(1, texts)
        ids, spans = (in_memory([part[i] for part in parts]) for i in range(2))
        return ids, spans

    @cached_property
    def _encoders(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The encoder of the graph without and with offsets, each traced once."""
        import tensorflow as tf

        graph, signature = self.in_graph(), [tf.TensorSpec([None], tf.string)]
        return tf.function(graph.pieces, signature), tf.function(graph.pieces_with_offsets, signature)

    def _run(self, encoder: int, texts: Sequence[str]) -> list[Any]:
        """Returns what one of the encoders makes of the texts, in parts."""
        import tensorflow as tf

        parts = []
        with tf.device("CPU"):
            for at in range(0, max(len(texts), 1), ROWS_AT_A_TIME):
                part = list(texts[at : at + ROWS_AT_A_TIME])
                if (refused := not_a_text(part)) is not None:
                    raise refused
                parts.append(self._encoded(encoder, tf.constant(part, tf.string)))
        return parts

    def _encoded(self, encoder: int, texts: tf.Tensor) -> Any:
        """Calls an encoder; TensorFlow drops the model of its operators whenever a seed is set, and gets it again."""
        import tensorflow as tf

        try:
            return self._encoders[encoder](texts)
        except tf.errors.NotFoundError:
            self.__dict__.pop("_encoders")
            return self._encoders[encoder](texts)

    def in_graph(self, max_length: int = 128, folder: Path | None = None) -> GraphSentencePiece:
        """See `Tokenizer`; the graph holds the model itself and needs no files."""
        from easytransfer.text.sentence_piece_graph import GraphSentencePiece

        quotes = self.kind.joins_quotes
        return GraphSentencePiece(self.model, self.rules, self.special_ids, max_length, self.layout, quotes)

    @property
    def stored_model(self) -> bytes:
        """The model as files have it."""
        return self.model

    def join(self, pieces: Sequence[str]) -> str:
        """See `Tokenizer`."""
        return "".join(pieces).replace(WORD_BEGIN, " ").strip()

    def save(self, folder: str | Path) -> None:
        """Writes the model and `tokenizer_config.json`, from which `from_folder` makes an equal tokenizer."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / self.kind.file) as partial:
            partial.write_bytes(self.stored_model)
        write_file(
            folder / CONFIG_FILE, json.dumps(tokenizer_config(self.rules, self.special, self.kind), indent=2) + "\n"
        )


class XlnetSentencePiece(SentencePiece):
    """The same for XLNet (Yang et al. 2019, arXiv 1906.08237): `a <sep> b <sep> <cls>`, the segment of <cls> is 2.

    Rows are padded at their end like all others; the published tokenizer pads before them, for which the network, whose
    positions are relative, has the same states. Text keeps its case where the files do not say otherwise. Ids are those
    of `transformers`' XLNetTokenizer with `split_special_tokens=True`, which drops accents whatever the files say;
    with `keep_accents` they are those of the original's code.

    Example:
        >>> XlnetSentencePiece.from_folder("xlnet-base-cased").tokenize("Hello world")
        ['▁Hello', '▁world']
    """

    kind: ClassVar[PieceKind] = XLNET_PIECES
    layout: ClassVar[Layout] = CLS_LAST


class XlmRobertaSentencePiece(SentencePiece):
    """The same for XLM-RoBERTa (Conneau et al. 2020, arXiv 1911.02116): RoBERTa's rows, ids as fairseq numbers them.

    Text reaches the model as it is but for white space. Its pieces have the published model's ids plus one, behind <s>,
    <pad>, </s> and <unk>; <mask> is the last one. Ids are those of `transformers`' XLMRobertaTokenizer with
    `split_special_tokens=True`, but for what `SentencePiece` says of equally good segmentations and normalization.

    Args:
        model: Serialized model with its pieces in the order of their ids, see `piece_model.fairseq_order`.
        rules: See `SentencePiece`.
        special: See `SentencePiece`.

    Raises:
        ModelError: See `SentencePiece`; or the special tokens have other ids.

    Example:
        >>> XlmRobertaSentencePiece.from_folder("xlm-roberta-base").tokenize("Hello world")
        ['▁Hello', '▁world']
    """

    kind: ClassVar[PieceKind] = XLM_ROBERTA_PIECES
    layout: ClassVar[Layout] = SEP_TWICE

    def __init__(self, model: bytes, rules: PieceRules | None = None, special: tuple[str, ...] | None = None) -> None:
        super().__init__(model, rules, special)
        self._published = published_order(model, "the SentencePiece model")

    @property
    def stored_model(self) -> bytes:
        """The model in the order in which it was published."""
        return self._published


def in_memory(parts: list[tf.RaggedTensor]) -> Ragged:
    """Returns rows of ids, those of several parts one after the other."""
    lengths = np.concatenate([part.row_lengths().numpy() for part in parts])
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    return Ragged(np.concatenate([part.values.numpy() for part in parts]), offsets)
