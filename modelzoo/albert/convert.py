"""The one table of ALBERT weight names. Imports no TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from modelzoo.albert.config import AlbertConfig
from modelzoo.encoder_weights import EncoderFamily, Weight, embedding_table, weight_pair

_GOOGLE_LAYER = "bert/encoder/transformer/group_0/inner_group_0"
_HF_LAYER = "encoder.albert_layer_groups.0.albert_layers.0"
# Of the layer: Google's name, Hugging Face's name, ours; then (input, output) sizes, or one size for a LayerNorm.
_LAYER = (
    ("attention_1/self/query", "attention.query", "query", ("hidden", "hidden")),
    ("attention_1/self/key", "attention.key", "key", ("hidden", "hidden")),
    ("attention_1/self/value", "attention.value", "value", ("hidden", "hidden")),
    ("attention_1/output/dense", "attention.dense", "attention_output", ("hidden", "hidden")),
    ("LayerNorm", "attention.LayerNorm", "attention_norm", ("hidden",)),
    ("ffn_1/intermediate/dense", "ffn", "inner", ("hidden", "inner")),
    ("ffn_1/intermediate/output/dense", "ffn_output", "output", ("inner", "hidden")),
    ("LayerNorm_1", "full_layer_layer_norm", "output_norm", ("hidden",)),
)


def _weights(config: AlbertConfig) -> list[Weight]:
    """Returns every weight, from the embeddings upwards, heads last."""
    hidden, width = config.hidden_size, config.embedding_size
    sizes = {"hidden": hidden, "inner": config.intermediate_size}
    mapping = ("bert/encoder/embedding_hidden_mapping_in", "encoder.embedding_hidden_mapping_in", "projection")
    rows = [
        embedding_table("word_embeddings", "words", config.vocab_size, width),
        embedding_table("position_embeddings", "positions", config.max_position_embeddings, width),
        embedding_table("token_type_embeddings", "segments", config.type_vocab_size, width),
        *weight_pair("bert/embeddings/LayerNorm", "embeddings.LayerNorm", "norm", (width,), "encoder"),
        *weight_pair(*mapping, (width, hidden), "encoder"),
    ]
    for google, hf, path, shape in _LAYER:
        names = (f"{_GOOGLE_LAYER}/{google}", f"{_HF_LAYER}.{hf}", f"layers.0.{path}")
        rows += weight_pair(*names, tuple(sizes[size] for size in shape), "encoder")
    rows += weight_pair("bert/pooler/dense", "pooler", "pooler", (hidden, hidden), "pooler")
    head = "cls/predictions/transform/"
    rows += weight_pair(head + "dense", "predictions.dense", "transform", (hidden, width), "mlm")
    rows += weight_pair(head + "LayerNorm", "predictions.LayerNorm", "layer_norm", (width,), "mlm")
    sentence, order = "cls/seq_relationship/output_", "sop_classifier.classifier."
    return [
        *rows,
        Weight("cls/predictions/output_bias", "predictions.bias", "output_bias", (config.vocab_size,), False, "mlm"),
        # Both foreign forms store this one as [classes, hidden].
        Weight(f"{sentence}weights", f"{order}weight", "pair_kernel", (2, hidden), False, "sop"),
        Weight(f"{sentence}bias", f"{order}bias", "pair_bias", (2,), False, "sop"),
    ]


def _check_files(folder: Any, names: Iterable[str] = ()) -> None:
    """Finds nothing: the configuration says what a folder holds, and no other family has weights of these names."""


ALBERT = EncoderFamily(
    name="albert",
    config_class=AlbertConfig,
    table=_weights,
    heads=("mlm", "sop"),
    architectures={(): "AlbertModel", ("mlm",): "AlbertForMaskedLM", ("mlm", "sop"): "AlbertForPreTraining"},
    hf_prefix="albert.",
    hf_ignored=re.compile(r"^(embeddings\.(position|token_type)_ids|predictions\.decoder\.(weight|bias))$"),
    hf_decoder="predictions.decoder.weight",
    scope="albert_pre_trained_model/",
    checkpoints={"google": "model.ckpt-best", "ez": "model.ckpt"},
    encoder=re.compile(r"(bert/)?(embeddings|encoder|pooler)[./]"),
    tokenizers=("SentencePiece", "WordPiece"),
    check_files=_check_files,
)


def parameters_in(folder: str | Path) -> int:
    """Returns the number of encoder parameters of a model folder, from its configuration."""
    return ALBERT.parameter_count(AlbertConfig.from_folder(folder))
