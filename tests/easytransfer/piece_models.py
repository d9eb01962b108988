"""SentencePiece models for tests: a trained one, and one whose pieces are nearly all characters of the corpus."""

from __future__ import annotations

import io
import random
from collections import Counter
from functools import lru_cache

from multilingual_corpus import SENTENCES, corpus
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer, sentencepiece_model_pb2

WORD_BEGIN = "\u2581"


@lru_cache(maxsize=4)
def trained_model(size: int = 600, **options) -> bytes:
    """A model as ALBERT's were made: its special tokens, user-defined symbols, the trainer's usual normalization."""
    made = io.BytesIO()
    settings = {
        "vocab_size": size, "hard_vocab_limit": False, "character_coverage": 1.0, "minloglevel": 2, "num_threads": 1,
        "pad_id": 0, "pad_piece": "<pad>", "unk_id": 1, "unk_piece": "<unk>", "bos_id": -1, "eos_id": -1,
        "control_symbols": ["[CLS]", "[SEP]", "[MASK]"], "user_defined_symbols": ["(", ")"],
    }  # fmt: skip
    lines = [line for line in SENTENCES if line.strip() and "\x00" not in line]
    SentencePieceTrainer.train(sentence_iterator=iter(lines * 3), model_writer=made, **settings | options)
    return made.getvalue()


def for_xlnet(model: bytes) -> bytes:
    """The same model with XLNet's special tokens at the same ids."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    for number, token in ((2, "<cls>"), (3, "<sep>"), (4, "<mask>")):
        proto.pieces[number].piece = token
    return proto.SerializeToString()


def as_xlm_roberta(model: bytes) -> bytes:
    """The same pieces with the special tokens of XLM-RoBERTa's model as it was published: <unk>, <s>, </s>."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    kept = [piece for piece in proto.pieces[5:] if piece.piece not in ("<unk>", "<s>", "</s>", "<pad>", "<mask>")]
    del proto.pieces[3:]
    proto.pieces.extend(kept)
    for piece, token, kind in zip(proto.pieces, ("<unk>", "<s>", "</s>"), (2, 3, 3), strict=False):
        piece.piece, piece.type = token, kind
    return proto.SerializeToString()


@lru_cache(maxsize=1)
def character_model() -> bytes:
    """A model in which a difference cannot hide behind <unk>: nearly every character of the corpus is a piece."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(trained_model())
    del proto.pieces[5:]
    processor = SentencePieceProcessor(model_proto=trained_model())
    words = [word for line in corpus() for word in processor.normalize(line).split(WORD_BEGIN) if word]
    words += [word.lower() for word in words]
    characters = [c for i, c in enumerate(sorted(set("".join(words)))) if i % 97 and c not in "\x00" + WORD_BEGIN]
    runs = Counter(word[at : at + size] for word in words for size in (2, 3, 5) for at in range(len(word) - size + 1))
    pieces = characters + [run for run, count in runs.most_common(3000) if count > 2 and "\x00" not in run]
    source = random.Random(3)
    known = {piece.piece for piece in proto.pieces}
    for piece in dict.fromkeys([WORD_BEGIN, *pieces, *(WORD_BEGIN + piece for piece in pieces)]):
        if piece in known:
            continue
        proto.pieces.add(piece=piece, score=-source.uniform(5, 15) / (1 + 0.2 * len(piece)))
    return proto.SerializeToString()
