"""Tiny RoBERTa models made by transformers, the reference implementation, with a tokenizer of ours."""

import pytest

from easytransfer.text.byte_level_bpe import ByteLevelBpe
from modelzoo.roberta.tiny import tiny_bpe

BPE = tiny_bpe(["good", "film"])
SIZES = {
    "vocab_size": len(BPE.vocab),
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 26,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
}


def hf_folder(folder, architecture="RobertaModel", tokenizer=None, **settings):
    """Saves a transformers model with noisy LayerNorms and biases, so that no wrong mapping can hide."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    torch.manual_seed(7)
    kind = getattr(transformers, architecture)
    model = kind(kind.config_class(**{**SIZES, "initializer_range": 0.2, **settings})).eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 1:
                value.add_(0.1 * torch.randn_like(value))
    model.save_pretrained(folder, safe_serialization=True)
    (tokenizer or ByteLevelBpe(BPE)).save(folder)
    return model
