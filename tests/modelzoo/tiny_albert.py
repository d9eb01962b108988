"""Tiny ALBERT models made by transformers, the reference implementation, with a tokenizer of ours."""

import pytest

from easytransfer.text.piece_model import ALBERT_PIECES
from easytransfer.text.sentence_piece import SentencePiece
from modelzoo.tiny_pieces import piece_model, tiny_pieces

PIECES = tiny_pieces()[:58]
SIZES = {
    "vocab_size": len(PIECES) + 5,
    "embedding_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}


def hf_folder(folder, architecture="AlbertModel", **settings):
    """Saves a transformers model with noisy LayerNorms and biases, so that no wrong mapping can hide."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    torch.manual_seed(7)
    config = transformers.AlbertConfig(**{**SIZES, "initializer_range": 0.2, **settings})
    model = getattr(transformers, architecture)(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 1:
                value.add_(0.1 * torch.randn_like(value))
    model.save_pretrained(folder, safe_serialization=True)
    SentencePiece(piece_model(PIECES, ALBERT_PIECES.special)).save(folder)
    return model
