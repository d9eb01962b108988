"""Tiny models made by transformers, the reference implementation."""

import pytest

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(58))]
SIZES = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}


def write_vocabulary(folder):
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY), encoding="utf-8")


def hf_folder(folder, architecture="BertModel", **settings):
    """Saves a transformers model with noisy LayerNorms and biases, so that no wrong mapping can hide."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    torch.manual_seed(7)
    config = transformers.BertConfig(**{**SIZES, "initializer_range": 0.2, **settings})
    model = getattr(transformers, architecture)(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 1:
                value.add_(0.1 * torch.randn_like(value))
    model.save_pretrained(folder, safe_serialization=True)
    write_vocabulary(folder)
    return model


def torch_batch(batch):
    torch = pytest.importorskip("torch")
    names = {"input_ids": "input_ids", "input_mask": "attention_mask", "segment_ids": "token_type_ids"}
    return {names[key]: torch.tensor(value, dtype=torch.long) for key, value in batch.items()}
