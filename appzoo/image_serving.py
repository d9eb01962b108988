"""Serving signatures of applications on images."""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
from PIL import ExifTags, Image

from appzoo.target_app import TargetApp
from easytransfer.export.servable import Signature
from easytransfer.image.decode import decode
from easytransfer.image.graph import decode_batch


def image_signatures(app: TargetApp) -> dict[str, Signature]:
    """Returns `serving_default` on encoded images, `predict_ids` on arrays, and `classify` or `regress`.

    Args:
        app: Application with a built model.
    """
    model = app.config.model

    def outputs(images: tf.Tensor) -> dict[str, tf.Tensor]:
        # Convolutions refuse a batch without rows: it gets one, whose answer is left out again.
        rows = tf.shape(images)[0]
        some = tf.pad(images, [[0, tf.maximum(1 - rows, 0)], [0, 0], [0, 0], [0, 0]])
        return {name: value[:rows] for name, value in app.served_model({"image": some}, training=False).items()}

    def serve_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = decode_batch(image_bytes, model.image_size, model.channels, model.resize_mode, model.max_pixels)
        return app.answer(outputs(images)["logits"])

    def predict_ids(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return outputs(image)

    encoded = np.array(sample_images(model.image_size), object)
    raw = Signature(
        serve_bytes,
        {"image_bytes": tf.TensorSpec([None], tf.string)},
        {"image_bytes": encoded},
        "files of JPEG, PNG, WebP or BMP images of one frame",
    )
    pixels = [decode(data, channels=model.channels, max_pixels=model.max_pixels) for data in encoded]
    arrays = Signature(
        predict_ids,
        {"image": tf.TensorSpec([None, model.image_size, model.image_size, model.channels], tf.uint8)},
        {"image": np.stack([app.resizer(image) for image in pixels])},
        "images as `encode` makes them",
    )
    signatures = {"serving_default": raw, "predict_ids": arrays}
    return {**signatures, **app.target.signatures(raw)}


def sample_images(size: int) -> list[bytes]:
    """Returns encoded images on which every export is checked: of all forms, grey, colour, alpha, turned, resized."""
    random = np.random.default_rng(0)
    found = []
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    for mode, form, shape, settings in (
        ("L", "PNG", (size, size), {}),
        ("RGB", "PNG", (size + 5, 2 * size), {}),
        ("RGBA", "PNG", (7, 9), {}),
        ("RGB", "JPEG", (3 * size, 2 * size), {"exif": turned}),
        ("L", "JPEG", (size, size + 1), {}),
        ("RGB", "WEBP", (size, size), {}),
        ("L", "BMP", (size + 2, size), {}),
    ):
        bands = len(Image.new(mode, (1, 1)).getbands())
        small = random.integers(0, 256, (4, 4, bands)).astype(np.uint8)
        picture = Image.fromarray(small[..., 0] if bands == 1 else small).resize(shape[::-1], Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        picture.save(stream, form, **settings)
        found.append(stream.getvalue())
    return found
