"""The one table of XLNet weight names. Imports no TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from easytransfer.errors import ModelError
from modelzoo.encoder_weights import EncoderFamily, Weight, weight_pair
from modelzoo.xlnet.config import XlnetConfig

_SCOPE = "model/transformer"
# Google has one array of these for all layers: [layers, ...], or without that axis where the layers share them.
_STACKED = ("r_w_bias", "r_r_bias", "r_s_bias", "seg_embed")
_OUTPUT = "model/lm_loss/weight"
_LAYER = re.compile(rf"{_SCOPE}/layer_(\d+)/")
_ARRAYS = re.compile(rf"{_SCOPE}/({'|'.join(_STACKED)})")


def _weights(config: XlnetConfig) -> list[Weight]:
    """Returns every weight, from the embeddings upwards, heads last; Google's stacked arrays by layer."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    size = hidden // heads
    rows = [
        Weight(f"{_SCOPE}/word_embedding/lookup_table", "word_embedding.weight", "words",
               (config.vocab_size, hidden), False, "encoder"),
        Weight(f"{_SCOPE}/mask_emb/mask_emb", "mask_emb", "mask_embedding", (1, 1, hidden), False, "encoder"),
    ]  # fmt: skip
    for number in range(config.num_hidden_layers):
        rows += _layer(number, hidden, config.intermediate_size, heads, size)
    # Google's spelling.
    summary = ("model/sequnece_summary/summary", "sequence_summary.summary", "pooler")
    return [
        *rows,
        *weight_pair(*summary, (hidden, hidden), "pooler"),
        Weight("model/lm_loss/bias", "lm_loss.bias", "output_bias", (config.vocab_size,), False, "lm"),
    ]


def _layer(number: int, hidden: int, inner: int, heads: int, size: int) -> list[Weight]:
    google, hf, path = f"{_SCOPE}/layer_{number}", f"layer.{number}", f"layers.{number}"
    attention = [(f"{name}/kernel", name, (hidden, heads, size)) for name in "qkvor"]
    attention += [(name, name, (heads, size)) for name in _STACKED[:3]] + [("seg_embed", "seg_embed", (2, heads, size))]
    return [
        *(
            Weight(f"{google}/rel_attn/{theirs}", f"{hf}.rel_attn.{name}", f"{path}.{name}", shape, False, "encoder")
            for theirs, name, shape in attention
        ),
        *_norm(f"{google}/rel_attn", f"{hf}.rel_attn", f"{path}.attention_norm", hidden),
        *weight_pair(f"{google}/ff/layer_1", f"{hf}.ff.layer_1", f"{path}.inner", (hidden, inner), "encoder"),
        *weight_pair(f"{google}/ff/layer_2", f"{hf}.ff.layer_2", f"{path}.outer", (inner, hidden), "encoder"),
        *_norm(f"{google}/ff", f"{hf}.ff", f"{path}.output_norm", hidden),
    ]


def _norm(google: str, hf: str, path: str, hidden: int) -> list[Weight]:
    return weight_pair(f"{google}/LayerNorm", f"{hf}.layer_norm", path, (hidden,), "encoder")


def by_layer(values: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """Returns the variables of a checkpoint with Google's stacked arrays taken apart.

    Args:
        values: Variables of the checkpoint.
        source: Its name, for messages.

    Raises:
        ModelError: Such an array is not stacked over the layers that the checkpoint has, or the output matrix of the
            language model is not the embedding table.
    """
    output, words = (values.get(name) for name in (_OUTPUT, f"{_SCOPE}/word_embedding/lookup_table"))
    if output is not None and not np.array_equal(output, words):
        raise ModelError(f"{source}: {_OUTPUT} differs from the word embeddings; both must be shared")
    layers = 1 + max((int(found[1]) for name in values if (found := _LAYER.match(name))), default=-1)
    found: dict[str, np.ndarray] = {}
    for name, value in values.items():
        if name == _OUTPUT:
            continue
        array = _ARRAYS.fullmatch(name)
        if array is None:
            found[name] = value
            continue
        one = 3 if array[1] == "seg_embed" else 2
        if value.ndim == one:  # shared by all layers
            value = np.broadcast_to(value, (layers, *value.shape))
        if value.ndim != one + 1 or len(value) != layers:
            raise ModelError(f"{source}: {name} does not fit {layers} layers", received=list(value.shape))
        found |= {f"{_SCOPE}/layer_{number}/rel_attn/{array[1]}": part for number, part in enumerate(value)}
    return found


def stacked(values: Mapping[str, np.ndarray], config: XlnetConfig) -> dict[str, np.ndarray]:
    """Returns values as Google's checkpoints have them, in stacked arrays.

    Raises:
        ModelError: Layers lack a part of such an array.
    """
    found = dict(values)
    for array in _STACKED:
        names = [f"{_SCOPE}/layer_{number}/rel_attn/{array}" for number in range(config.num_hidden_layers)]
        if lacking := [name for name in names if name not in found]:
            raise ModelError(f"{lacking[0]} is missing: Google's form has {array} of all layers in one array")
        found[f"{_SCOPE}/{array}"] = np.stack([found.pop(name) for name in names])
    return found


def _check_files(folder: Any, names: Iterable[str] = ()) -> None:
    """Finds nothing: the configuration says what a folder holds, and no other family has weights of these names."""


XLNET = EncoderFamily(
    name="xlnet",
    config_class=XlnetConfig,
    table=_weights,
    heads=("lm",),
    architectures={(): "XLNetModel", ("lm",): "XLNetLMHeadModel"},
    hf_prefix="transformer.",
    hf_ignored=re.compile(r"^lm_loss\.weight$"),
    hf_decoder="lm_loss.weight",
    scope="",
    checkpoints={"google": "xlnet_model.ckpt"},
    encoder=re.compile(rf"(transformer\.)?(word_embedding|mask_emb|layer)\b|{_SCOPE}/"),
    tokenizers=("XlnetSentencePiece",),
    check_files=_check_files,
    # Pre-training has no use for it.
    optional="^model/sequnece_summary/",
    hf_words="word_embedding.weight",
    prefixed=("encoder",),
    from_checkpoint=by_layer,
    to_checkpoint=stacked,
)


def parameters_in(folder: str | Path) -> int:
    """Returns the number of encoder parameters of a model folder, from its configuration."""
    return XLNET.parameter_count(XlnetConfig.from_folder(folder))
