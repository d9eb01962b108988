"""Signatures on arrays, beside those on files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from appzoo.stereo_matching.inputs import StereoInput
from appzoo.stereo_matching.target import depth_of
from easytransfer.app.inputs.base import Tensors
from easytransfer.savedmodel.signature import Signature

_IMAGE = tf.TensorSpec([None, None, None, 3], tf.uint8)
_NUMBER = tf.TensorSpec([None], tf.float32)


def further_signatures(
    pair: StereoInput, predict: Callable[[Tensors], Tensors], arrays: Signature
) -> dict[str, Signature]:
    """Returns `serving_arrays` and `serving_depth`: pairs of one size in, maps of that size out.

    Args:
        pair: The input of the application.
        predict: Takes `left`, `right` and `size` as the input makes them.
        arrays: Signature on these, for sample pairs.
    """

    def serve(left: tf.Tensor, right: tf.Tensor) -> Tensors:
        rows = tf.shape(left)[0]
        whole_left, whole_right, size = pair.filled(left, right)
        # Convolutions refuse a batch without rows: it gets one, whose answer is left out again.
        one = tf.maximum(1 - rows, 0)
        images = [tf.pad(image, [[0, one], [0, 0], [0, 0], [0, 0]]) for image in (whole_left, whole_right)]
        sizes = tf.tile(size[None, :], [rows + one, 1])
        found = predict({"left": images[0], "right": images[1], "size": sizes})
        names = ("disparity", "disparity_raw", "occlusion")
        return {name: found[name][:rows, pair.size[0] - size[0] :, : size[1]] for name in names}

    def serve_depth(left: tf.Tensor, right: tf.Tensor, focal_px: tf.Tensor, baseline_m: tf.Tensor) -> Tensors:
        found = serve(left, right)
        scales = (x[:, None, None] for x in (focal_px, baseline_m))
        return {"depth": depth_of(found["disparity"], *scales), "disparity": found["disparity"]}

    images = {side: np.asarray(arrays.samples[side]) for side in ("left", "right")}
    rows = len(images["left"])
    cameras = {"focal_px": np.full(rows, 721.5, np.float32), "baseline_m": np.full(rows, 0.54, np.float32)}
    specs = {"left": _IMAGE, "right": _IMAGE}
    doc = "pairs of one size as arrays"
    return {
        "serving_arrays": Signature(serve, specs, images, doc, arrays.module),
        "serving_depth": Signature(
            serve_depth,
            {**specs, "focal_px": _NUMBER, "baseline_m": _NUMBER},
            {**images, **cameras},
            f"{doc}, with focal length in pixels and baseline in metres",
            arrays.module,
        ),
    }
