"""Checks of what networks on texts and regions read, and who sees whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import tensorflow as tf

from easytransfer.errors import ModelError
from modelzoo.vision_language.config import VisionLanguageConfig

Visibility = Literal["all", "regions_only"]
LABELS = ("label_ids", "label_slot", "label_inner", "label_mask")
# Beyond 1, for corners that were divided in float32.
_ROUNDING = 1e-5


def has_labels(inputs: Mapping[str, tf.Tensor]) -> bool:
    """Returns whether a batch has labels of regions."""
    return "label_ids" in inputs


def region_inputs(
    inputs: Mapping[str, tf.Tensor], config: VisionLanguageConfig
) -> tuple[dict[str, tf.Tensor], list[tf.Operation]]:
    """Returns the arrays of regions, and checks that can only be made when they are known; makes the others now.

    Args:
        inputs: A batch, see `VisionLanguageBackbone`.
        config: Sizes.

    Raises:
        ModelError: An array is missing or has another shape.
    """
    wanted = ["features", "region_mask", *(["boxes"] if config.box_size else [])]
    arrays = _arrays(inputs, wanted, "regions")
    _check_shape("features", arrays["features"], 3, config.feature_size, "feature_size")
    _check_shape("region_mask", arrays["region_mask"], 2)
    checks = [_assert_bits("region_mask", arrays["region_mask"])]
    most = config.most_regions
    if most is not None:
        count = arrays["features"].shape[1]
        if count is not None and count > most:
            raise ModelError("more regions than max_regions", received=count, accepted=f"up to {most}")
        if count is None:
            message = f"an image must have at most max_regions = {most} regions"
            checks.append(tf.debugging.assert_less_equal(tf.shape(arrays["features"])[1], most, message))
    if "boxes" in arrays:
        boxes = arrays["boxes"]
        _check_shape("boxes", boxes, 3, 4, "x1, y1, x2, y2")
        inside = tf.reduce_all((boxes >= 0) & (boxes <= 1 + _ROUNDING))
        checks.append(tf.debugging.Assert(inside, ["boxes must be divided by width and height of the image: 0 to 1"]))
    return arrays, [check for check in checks if check is not None]


def label_inputs(
    inputs: Mapping[str, tf.Tensor], config: VisionLanguageConfig
) -> tuple[dict[str, tf.Tensor], list[tf.Operation]]:
    """Returns the arrays of labels, and checks that can only be made when they are known; makes the others now.

    Args:
        inputs: A batch, see `VisionLanguageBackbone`.
        config: Sizes.

    Raises:
        ModelError: The network reads no labels, or an array is missing or has another shape.
    """
    if not config.label_slots:
        raise ModelError(
            "the network was built without labels, and the batch has label_ids",
            fix="build it with label_slots, or leave the labels out",
        )
    arrays = _arrays(inputs, [*LABELS, *(["label_region"] if config.links_labels else [])], "labels")
    for name, array in arrays.items():
        _check_shape(name, array, 2)
    ids, slots, inner = (arrays[name] for name in LABELS[:3])
    ranges = (
        (ids, 0, config.vocab_size, "label_ids must lie in [0, vocab_size = {})"),
        (slots, -1, config.label_slots, "label_slot must lie in [-1, label_slots = {})"),
        (tf.where(slots < 0, 0, inner), 0, config.label_pieces, "label_inner must lie in [0, label_pieces = {})"),
    )
    checks = [
        tf.debugging.Assert(tf.reduce_all((array >= least) & (array < end)), [message.format(end)])
        for array, least, end, message in ranges
    ]
    if config.links_labels:
        region, count = arrays["label_region"], tf.shape(inputs["region_mask"])[1]
        inside = tf.reduce_all((region >= -1) & (region < count)) & tf.reduce_all(slots < tf.shape(region)[1])
        message = "label_region must name a region of the image, or -1, for every label_slot"
        checks.append(tf.debugging.Assert(inside, [message]))
    checks.append(_assert_bits("label_mask", arrays["label_mask"]))
    return arrays, [check for check in checks if check is not None]


def visible(
    words: tf.Tensor, labels: tf.Tensor | None, regions: tf.Tensor | None, visibility: Visibility, dtype: tf.DType
) -> tf.Tensor:
    """Returns who looks at whom, 1 or 0 [batch, from, to], in the order words, labels, regions.

    Nobody looks at padding. `regions_only` keeps words and labels from looking at each other: else a masked word is
    copied from the label that says the same.

    Args:
        words: `input_mask` [batch, words].
        labels: `label_mask` [batch, pieces] or None.
        regions: `region_mask` [batch, regions] or None.
        visibility: `all` or `regions_only`.
        dtype: Of the result.

    Raises:
        ModelError: The visibility is unknown.
    """
    if visibility not in ("all", "regions_only"):
        raise ModelError("unknown label_visibility", received=visibility, accepted=("all", "regions_only"))
    kinds = [(mask, kind) for kind, mask in enumerate((words, labels, regions)) if mask is not None]
    seen = tf.concat([tf.cast(mask, dtype) for mask, _ in kinds], axis=1)
    size = tf.shape(seen)[1]
    pairs = tf.ones([size, size], dtype)
    if labels is not None and visibility == "regions_only":
        kind = tf.concat([tf.fill([tf.shape(mask)[1]], number) for mask, number in kinds], axis=0)
        # Words are 0, labels 1, regions 2.
        apart = (kind[:, None] != kind[None, :]) & (kind[:, None] + kind[None, :] == 1)
        pairs = tf.cast(tf.logical_not(apart), dtype)
    return seen[:, None, :] * pairs[None]


def _arrays(inputs: Mapping[str, tf.Tensor], names: list[str], what: str) -> dict[str, tf.Tensor]:
    if missing := [name for name in names if name not in inputs]:
        raise ModelError(f"the batch lacks {', '.join(missing)}", accepted=f"for {what}: {', '.join(names)}")
    return {name: tf.convert_to_tensor(inputs[name]) for name in names}


def _check_shape(name: str, array: tf.Tensor, rank: int, last: int | None = None, why: str = "") -> None:
    shape = array.shape
    if shape.rank != rank or (last is not None and shape[-1] not in (None, last)):
        axes = ["batch", "count", *([f"{last} ({why})"] if last is not None else [])]
        raise ModelError(f"{name} has another shape", received=str(shape), accepted=f"[{', '.join(axes)}]")


def _assert_bits(name: str, mask: tf.Tensor) -> tf.Operation | None:
    return tf.debugging.Assert(tf.reduce_all((mask == 0) | (mask == 1)), [f"{name} must be 0 or 1"])
