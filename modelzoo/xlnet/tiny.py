"""A seeded XLNet of two small layers and a small vocabulary, for tests and first steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from easytransfer.text.sentence_piece import XlnetSentencePiece
from modelzoo.encoder_weights import initial_value
from modelzoo.tiny_pieces import chosen_model
from modelzoo.xlnet import formats
from modelzoo.xlnet.config import XlnetConfig
from modelzoo.xlnet.convert import XLNET

# In the order of the published models.
SPECIAL = ("<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>")


def write_tiny(
    target: str | Path, *, seed: int = 0, vocab: Sequence[str] | str | Path | None = None, overwrite: bool = False
) -> XlnetConfig:
    """Writes the model with summary and head as a preset folder.

    Args:
        target: New folder.
        seed: Seed of the weights; equal seeds give equal files.
        vocab: Pieces without the special tokens, or a SentencePiece model, or a folder with one; `tiny_pieces` when
            None.
        overwrite: Replace an existing folder.

    Returns:
        The configuration.

    Raises:
        ModelError: `vocab` is no SentencePiece model of an XLNet, or the folder exists.
    """
    tokenizer = XlnetSentencePiece(chosen_model(vocab, SPECIAL, cased=True))
    config = XlnetConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        # Of so narrow a network, with 0.02 nothing of the words reaches <cls>.
        initializer_range=0.1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_id,
    )
    values = {row.name: initial_value(row, seed, config.initializer_range) for row in XLNET.table(config)}
    facts = {"name": Path(target).name, "type": "xlnet", "language": "en, zh", "licence": "Apache-2.0", "seed": seed}
    facts["origin"] = {"kind": "made", "how": "random weights of zoo make-tiny"}
    formats.write_folder(target, "hf", config, values, tokenizer=tokenizer, facts=facts, overwrite=overwrite)
    return config
