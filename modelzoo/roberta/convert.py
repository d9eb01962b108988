"""RoBERTa's weight names: those of BERT with another head. Imports no TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from modelzoo.encoder_weights import EncoderFamily, Weight, encoder_table, weight_pair
from modelzoo.roberta.config import RobertaConfig


def _weights(config: RobertaConfig) -> list[Weight]:
    """Returns every weight, from the embeddings upwards, the head last."""
    hidden, head = config.hidden_size, "cls/predictions/transform"
    return [
        *encoder_table(config),
        *weight_pair(f"{head}/dense", "lm_head.dense", "transform", (hidden, hidden), "mlm"),
        *weight_pair(f"{head}/LayerNorm", "lm_head.layer_norm", "layer_norm", (hidden,), "mlm"),
        Weight("cls/predictions/output_bias", "lm_head.bias", "output_bias", (config.vocab_size,), False, "mlm"),
    ]


def _check_files(folder: Any, names: Iterable[str] = ()) -> None:
    """Finds nothing: a folder is a RoBERTa only where its configuration says so."""


ROBERTA = EncoderFamily(
    name="roberta",
    config_class=RobertaConfig,
    table=_weights,
    heads=("mlm",),
    architectures={(): "RobertaModel", ("mlm",): "RobertaForMaskedLM"},
    hf_prefix="roberta.",
    hf_ignored=re.compile(r"^(embeddings\.(position|token_type)_ids|lm_head\.decoder\.(weight|bias))$"),
    hf_decoder="lm_head.decoder.weight",
    scope="",
    checkpoints={},
    encoder=re.compile(r"(embeddings|encoder|pooler)\."),
    tokenizers=("XlmRobertaSentencePiece", "ByteLevelBpe"),
    check_files=_check_files,
    # It was pre-trained without a task for the pooler, and its published files are without one.
    optional="^bert/pooler/",
)


def parameters_in(folder: str | Path) -> int:
    """Returns the number of encoder parameters of a model folder, from its configuration."""
    return ROBERTA.parameter_count(RobertaConfig.from_folder(folder))
