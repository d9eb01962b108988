"""The one table of LXMERT weight names. Imports no TensorFlow."""

from __future__ import annotations

import re
from pathlib import Path

from modelzoo.encoder_weights import EncoderFamily, Weight, encoder_table, layer_table, weight_pair
from modelzoo.lxmert.config import LxmertConfig
from modelzoo.vision_language.weights import HEADS, any_files, label_heads, label_table, text_heads

# Of a layer of both: Hugging Face's name of a part, and the encoder layer of ours that it belongs to, with its part.
# Attention to oneself and the feed-forward part of a stream are together what BERT calls a layer.
_STREAMS = (
    ("{}_self_att.self.query", "query", "square"),
    ("{}_self_att.self.key", "key", "square"),
    ("{}_self_att.self.value", "value", "square"),
    ("{}_self_att.output.dense", "attention_output", "square"),
    ("{}_self_att.output.LayerNorm", "attention_norm", "norm"),
    ("{}_inter.dense", "inner", "wide"),
    ("{}_output.dense", "output", "narrow"),
    ("{}_output.LayerNorm", "output_norm", "norm"),
)
_CROSS = (
    ("visual_attention.att.query", "query", "square"),
    ("visual_attention.att.key", "key", "square"),
    ("visual_attention.att.value", "value", "square"),
    ("visual_attention.output.dense", "output", "square"),
    ("visual_attention.output.LayerNorm", "norm", "norm"),
)
_REGIONS = {
    "visn_fc": "projector",
    "visn_layer_norm": "projector_norm",
    "box_fc": "boxes",
    "box_layer_norm": "boxes_norm",
}


def _weights(config: LxmertConfig) -> list[Weight]:
    """Returns every weight, from the embeddings upwards, heads last.

    Google has no such network: names in its form are those of Hugging Face with slashes.
    """
    rows = encoder_table(config)
    regions = [row for hf, path in _REGIONS.items() for row in _region_inputs(config, hf, path)]
    for i in range(config.r_layers):
        names = f"bert/encoder/r_layers_{i}", f"encoder.r_layers.{i}", f"region_layers.{i}"
        regions += layer_table(config, *names)
    crossed = [row for i in range(config.x_layers) for row in _cross_layer(config, i)]
    # The pooler reads what the upper layers give.
    return [*rows[:5], *label_table(config), *rows[5:-2], *regions, *crossed, *rows[-2:], *_heads(config)]


def _region_inputs(config: LxmertConfig, hf: str, path: str) -> list[Weight]:
    width, hidden = {"projector": config.feature_size, "boxes": config.box_size}.get(path), config.hidden_size
    shape = (hidden,) if width is None else (width, hidden)
    return weight_pair(f"bert/encoder/visn_fc/{hf}", f"encoder.visn_fc.{hf}", f"regions.{path}", shape, "encoder")


def _cross_layer(config: LxmertConfig, number: int) -> list[Weight]:
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes = {"square": (hidden, hidden), "wide": (hidden, inner), "narrow": (inner, hidden), "norm": (hidden,)}
    parts = [(hf, f"attention.{path}", shape) for hf, path, shape in _CROSS]
    for short, stream in (("lang", "language"), ("visn", "vision")):
        parts += [(hf.format(short), f"{stream}.{path}", shape) for hf, path, shape in _STREAMS]
    rows = []
    for hf, path, shape in parts:
        google = f"bert/encoder/x_layers_{number}/{hf.replace('.', '/')}"
        names = google, f"encoder.x_layers.{number}.{hf}", f"cross_layers.{number}.{path}"
        rows += weight_pair(*names, shapes[shape], "encoder")
    return rows


def _heads(config: LxmertConfig) -> list[Weight]:
    hidden, scope = config.hidden_size, "obj_predict_head"
    dense, norm = f"{scope}.transform.dense", f"{scope}.transform.LayerNorm"
    rows = [
        *text_heads(config),
        *weight_pair(dense.replace(".", "/"), dense, "region_transform", (hidden, hidden), "region_transform"),
        *weight_pair(norm.replace(".", "/"), norm, "region_norm", (hidden,), "region_transform"),
    ]
    for name, part, size in (
        ("feat", "features", config.feature_size),
        ("obj", "objects", config.num_object_labels),
        ("attr", "attributes", config.num_attr_labels),
    ):
        hf = f"{scope}.decoder_dict.{name}"
        rows += weight_pair(hf.replace(".", "/"), hf, part, (hidden, size), part)
    return [*rows, *label_heads(config)]


LXMERT = EncoderFamily(
    name="lxmert",
    config_class=LxmertConfig,
    table=_weights,
    heads=(*HEADS, "region_transform"),
    architectures={
        (): "LxmertModel",
        ("mlm", "matching", "features", "objects", "attributes", "region_transform"): "LxmertForPreTraining",
    },
    hf_prefix="lxmert.",
    hf_ignored=re.compile(r"^(embeddings\.(position|token_type)_ids|cls\.predictions\.decoder\.(weight|bias))$"),
    hf_decoder="cls.predictions.decoder.weight",
    scope="",
    checkpoints={},
    encoder=re.compile(r"(bert/)?(embeddings|label_embeddings|encoder|pooler)[./]"),
    tokenizers=("WordPiece",),
    check_files=any_files,
)


def parameters_in(folder: str | Path) -> int:
    """Returns the number of parameters of a model folder without heads, from its configuration."""
    return LXMERT.parameter_count(LxmertConfig.from_folder(folder))
