"""The network of a pre-training without its heads, for servers."""

from __future__ import annotations

import tensorflow as tf

from appzoo.vl_pretraining.hiding import PairHider
from appzoo.vl_pretraining.network import PretrainNetwork
from easytransfer.savedmodel.signature import Signature

_WORDS = ("input_ids", "input_mask", "segment_ids")
_REGIONS = ("features", "boxes", "region_mask")
_LABELS = ("label_ids", "label_slot", "label_inner", "label_mask")


def tensors_signature(model: PretrainNetwork, hider: PairHider, arrays: Signature) -> Signature:
    """Returns the signature `tensors`: arrays of the network in, `tokens`, `regions` and `pooled` vectors out.

    Args:
        model: Network and heads.
        hider: Lays out the labels of the sample rows.
        arrays: The signature on the arrays of the inputs.
    """
    config = model.backbone.config
    names = [*_WORDS, *_REGIONS]
    if model.tasks.has_labels:
        names += [*_LABELS, *(["label_region"] if getattr(config, "label_link", "none") == "box" else [])]
    batch = hider.fixed({name: tf.constant(value) for name, value in arrays.samples.items()})
    samples = {name: batch[name].numpy() for name in names}

    def call(**tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        found = model.backbone(tensors, label_visibility=model.tasks.visibility)
        outputs = {"tokens": "sequence_output", "regions": "region_output", "pooled": "pooled_output"}
        return {name: tf.cast(found[output], tf.float32) for name, output in outputs.items()}

    specs = {name: tf.TensorSpec([None, *_open(name, value.shape)], value.dtype) for name, value in samples.items()}
    return Signature(call, specs, samples, "arrays of the network, without heads", arrays.module)


def _open(name: str, shape: tuple[int, ...]) -> list[int | None]:
    """Returns the shape of a row: texts may have any length."""
    return [None] if name in _WORDS else list(shape[1:])
