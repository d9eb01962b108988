"""Seeded networks on texts and regions with a small vocabulary, for tests and first steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelzoo.encoder_files import EncoderFiles
from modelzoo.encoder_weights import EncoderFamily, initial_value
from modelzoo.tiny_words import chosen_tokens
from modelzoo.vision_language.config import VisionLanguageConfig

# Of all families: three layers of 48 numbers, regions of 24, as in the synthetic scenes of LAMP's tests.
SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
    "feature_size": 24,
    "max_regions": 16,
    "num_object_labels": 32,
    "num_attr_labels": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    # Of so narrow a network, with 0.02 nothing of words and regions reaches [CLS].
    "initializer_range": 0.1,
    "do_lower_case": True,
}


def write_tiny(
    family: EncoderFamily,
    target: str | Path,
    seed: int,
    vocab: Sequence[str] | str | Path | None,
    overwrite: bool,
    **sizes: Any,
) -> VisionLanguageConfig:
    """Writes a model with its pre-training heads as a preset folder.

    Args:
        family: Its family.
        target: New folder.
        seed: Seed of the weights; equal seeds give equal files.
        vocab: Tokens, or a file with one per line; `tiny_vocabulary()` when None.
        overwrite: Replace an existing folder.
        **sizes: Sizes other than `SIZES`.

    Returns:
        The configuration.

    Raises:
        ModelError: A special token is missing from `vocab`, or the folder exists.
    """
    tokens = chosen_tokens(vocab)
    own = {"model_type": family.name, "vocab_size": len(tokens), "pad_token_id": tokens.index("[PAD]")}
    config = family.config_class.from_dict({**SIZES, **own, **sizes})
    values = {row.name: initial_value(row, seed, config.initializer_range) for row in family.table(config)}
    facts = {"name": Path(target).name, "type": family.name, "language": "en, zh", "licence": "Apache-2.0"}
    facts |= {"seed": seed, "origin": {"kind": "made", "how": "random weights of zoo make-tiny"}}
    EncoderFiles(family).write_folder(target, "hf", config, values, vocabulary=tokens, facts=facts, overwrite=overwrite)
    return config
