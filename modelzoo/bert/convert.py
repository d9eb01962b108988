"""The one table of BERT weight names. Imports no TensorFlow."""

from __future__ import annotations

import re
from pathlib import Path

from modelzoo.bert.config import BertConfig
from modelzoo.bert.family import check_files
from modelzoo.encoder_weights import EncoderFamily, Weight, encoder_table, weight_pair


def _weights(config: BertConfig) -> list[Weight]:
    """Returns every weight, from the embeddings upwards, heads last."""
    hidden, rows = config.hidden_size, encoder_table(config)
    head = "cls/predictions/transform/"
    rows += weight_pair(head + "dense", "cls.predictions.transform.dense", "transform", (hidden, hidden), "mlm")
    rows += weight_pair(head + "LayerNorm", "cls.predictions.transform.LayerNorm", "layer_norm", (hidden,), "mlm")
    rows += [
        Weight(
            "cls/predictions/output_bias", "cls.predictions.bias", "output_bias", (config.vocab_size,), False, "mlm"
        ),
        # Both foreign forms store this one as [classes, hidden].
        Weight(
            "cls/seq_relationship/output_weights",
            "cls.seq_relationship.weight",
            "pair_kernel",
            (2, hidden),
            False,
            "nsp",
        ),
        Weight("cls/seq_relationship/output_bias", "cls.seq_relationship.bias", "pair_bias", (2,), False, "nsp"),
    ]
    return rows


BERT = EncoderFamily(
    name="bert",
    config_class=BertConfig,
    table=_weights,
    heads=("mlm", "nsp"),
    architectures={
        (): "BertModel",
        ("mlm",): "BertForMaskedLM",
        ("nsp",): "BertForNextSentencePrediction",
        ("mlm", "nsp"): "BertForPreTraining",
    },
    hf_prefix="bert.",
    hf_ignored=re.compile(r"^(embeddings\.(position|token_type)_ids|cls\.predictions\.decoder\.(weight|bias))$"),
    hf_decoder="cls.predictions.decoder.weight",
    scope="bert_pre_trained_model/",
    checkpoints={"google": "bert_model.ckpt", "ez": "model.ckpt"},
    encoder=re.compile(r"(bert/)?(embeddings|encoder|pooler)[./]"),
    tokenizers=("WordPiece",),
    check_files=check_files,
)


def parameters_in(folder: str | Path) -> int:
    """Returns the number of encoder parameters of a model folder, from its configuration."""
    return BERT.parameter_count(BertConfig.from_folder(folder))
