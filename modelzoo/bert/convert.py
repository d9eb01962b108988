"""The one table of BERT weight names. Imports no TensorFlow."""

from __future__ import annotations

import re
from pathlib import Path

from modelzoo.bert.config import BertConfig
from modelzoo.bert.family import check_files
from modelzoo.encoder_config import EncoderConfig
from modelzoo.encoder_weights import EncoderFamily, Weight, embedding_table, weight_pair

# Per layer: Google's name, Hugging Face's name, ours; then (input, output) sizes, or one size for a LayerNorm.
_LAYER = (
    ("attention/self/query", "attention.self.query", "query", ("hidden", "hidden")),
    ("attention/self/key", "attention.self.key", "key", ("hidden", "hidden")),
    ("attention/self/value", "attention.self.value", "value", ("hidden", "hidden")),
    ("attention/output/dense", "attention.output.dense", "attention_output", ("hidden", "hidden")),
    ("attention/output/LayerNorm", "attention.output.LayerNorm", "attention_norm", ("hidden",)),
    ("intermediate/dense", "intermediate.dense", "inner", ("hidden", "inner")),
    ("output/dense", "output.dense", "output", ("inner", "hidden")),
    ("output/LayerNorm", "output.LayerNorm", "output_norm", ("hidden",)),
)


def encoder_table(config: EncoderConfig) -> list[Weight]:
    """Returns the weights of encoder and pooler, from the embeddings upwards; RoBERTa has the same."""
    hidden = config.hidden_size
    sizes = {"hidden": hidden, "inner": config.intermediate_size}
    rows = [
        embedding_table("word_embeddings", "words", config.vocab_size, hidden),
        embedding_table("position_embeddings", "positions", config.max_position_embeddings, hidden),
        embedding_table("token_type_embeddings", "segments", config.type_vocab_size, hidden),
        *weight_pair("bert/embeddings/LayerNorm", "embeddings.LayerNorm", "norm", (hidden,), "encoder"),
    ]
    for i in range(config.num_hidden_layers):
        for google, hf, path, shape in _LAYER:
            rows += weight_pair(
                f"bert/encoder/layer_{i}/{google}",
                f"encoder.layer.{i}.{hf}",
                f"layers.{i}.{path}",
                tuple(sizes[s] for s in shape),
                "encoder",
            )
    return rows + weight_pair("bert/pooler/dense", "pooler.dense", "pooler", (hidden, hidden), "pooler")


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
