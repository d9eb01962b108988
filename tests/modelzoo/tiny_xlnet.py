"""Tiny XLNet models made by transformers, the reference implementation, with a tokenizer of ours."""

import pytest

from easytransfer.text.sentence_piece import XlnetSentencePiece
from modelzoo.tiny_pieces import piece_model, tiny_pieces
from modelzoo.xlnet.tiny import SPECIAL

PIECES = tiny_pieces()[:54]
SIZES = {
    "vocab_size": len(PIECES) + len(SPECIAL),
    "d_model": 32,
    "n_layer": 3,
    "n_head": 4,
    "d_inner": 48,
}


def hf_folder(folder, architecture="XLNetModel", **settings):
    """Saves a transformers model with noisy LayerNorms and biases, so that no wrong mapping can hide."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    torch.manual_seed(7)
    config = transformers.XLNetConfig(**{**SIZES, "initializer_range": 0.2, **settings})
    model = getattr(transformers, architecture)(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 1:
                value.add_(0.1 * torch.randn_like(value))
    model.save_pretrained(folder, safe_serialization=True)
    XlnetSentencePiece(piece_model(PIECES, SPECIAL)).save(folder)
    return model
