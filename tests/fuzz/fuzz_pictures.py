"""Targets that send encoded pictures to a served model and compare its answers with those of `predict`.

A decoder that is deceived may end the process, so these run in a process of their own also among the tests.
"""

from __future__ import annotations

import functools
import io
import struct
import tempfile
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from fuzz_case import Folder, Target
from fuzz_inputs import files
from hypothesis import strategies as st
from PIL import Image

MOST_PIXELS = 10_000
# Rounding of float32 in a network of two layers.
CLOSE = 1e-5
_PNG_HEAD = 8


@functools.cache
def model() -> SimpleNamespace:
    """A small network on images, in memory and as the server loads it."""
    import tensorflow as tf

    from appzoo.image_classify.app import ImageClassify
    from appzoo.image_classify.config import ImageClassifyConfig
    from easytransfer.serving.saved_model import SavedModelServable

    settings = {"network": "mlp16x1_digits", "image_size": 8, "max_pixels": MOST_PIXELS}
    statistics = {"channel_mean": [0.5] * 3, "channel_std": [0.25] * 3}
    data = {"label_enumerate_values": "a,b,c"}
    app = ImageClassify(ImageClassifyConfig(model_name="image_classify", data=data, model={**settings, **statistics}))
    app.load_assets(None)
    app.build_model()
    random = np.random.default_rng(0)
    app.model.set_weights([random.normal(0, 0.3, w.shape).astype(np.float32) for w in app.model.get_weights()])
    module, signature = tf.Module(), app.signatures(Path())["serving_default"]
    module.network = app.model
    specs = {key: tf.TensorSpec(spec.shape, spec.dtype, name=key) for key, spec in signature.inputs.items()}
    served = tf.function(signature.function, autograph=False).get_concrete_function(**specs)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"serving_default": served})
        servable = SavedModelServable("pictures", 1, Path(folder))
    arrays = tf.function(app.signatures(Path())["predict_ids"].function, autograph=False)
    return SimpleNamespace(app=app, arrays=arrays, served=servable.signature(""))


def predicted(content: bytes) -> np.ndarray | str:
    """Returns the probabilities that `predict` gives, or why it has none."""
    from easytransfer.image.decode import load_images

    (image,) = load_images([content], "", channels=3, max_pixels=MOST_PIXELS)
    if isinstance(image, str):
        return image
    logits = model().arrays(image=model().app.inputs[0].resizer(image)[None])["logits"]
    return model().app.target.answer({"logits": logits})["probabilities"].numpy()[0]


def answered(content: bytes) -> np.ndarray | str:
    """Returns the probabilities that the server gives, or why it has none."""
    import tensorflow as tf

    from easytransfer.serving.failures import ServingFailure

    inputs = {"image_bytes": np.array([content, None], object)[:-1]}
    try:
        model().served.check(inputs)
        return model().served.call(inputs)["probabilities"][0]
    except (ServingFailure, tf.errors.InvalidArgumentError) as error:
        return str(error)


def picture(content: bytes, folder: Folder) -> None:
    """An encoded picture: one answer on both sides, or none on both; a PNG file also with its checksums made right."""
    for data in dict.fromkeys([content, repaired(content)]):
        ours, theirs = predicted(data), answered(data)
        if isinstance(ours, str) or isinstance(theirs, str):
            assert isinstance(ours, str) and isinstance(theirs, str), f"predict: {ours}; server: {theirs}"
            assert len(ours) < 1000, ours
        else:
            np.testing.assert_allclose(theirs, ours, rtol=CLOSE, atol=CLOSE)


def repaired(data: bytes) -> bytes:
    """Returns a PNG file whose checksums are right as far as its chunks can be followed; other files as they are."""
    if data[:4] != b"\x89PNG":
        return data
    found, at = bytearray(data), _PNG_HEAD
    while at + 12 <= len(found):
        end = at + 8 + int.from_bytes(found[at : at + 4], "big")
        if end + 4 > len(found):
            break
        found[end : end + 4] = struct.pack(">I", zlib.crc32(found[at + 4 : end]))
        at = end + 4
    return bytes(found)


def value_map(content: bytes, folder: Folder) -> None:
    """A map of one value a pixel: its values, which are the same when written and read again, or why there are none."""
    from easytransfer.image.maps import decode_map, encode_pfm, encode_png, load_maps

    for data in dict.fromkeys([content, repaired(content)]):
        (found,) = load_maps([data], "", max_pixels=MOST_PIXELS)
        if isinstance(found, str):
            assert len(found) < 1000, found
            continue
        assert 0 < found.size <= MOST_PIXELS and found.ndim == 2
        again = decode_map((encode_pfm if found.dtype == np.float32 else encode_png)(found), MOST_PIXELS)
        assert again.dtype == found.dtype
        np.testing.assert_array_equal(again, found)


# Seeds ------------------------------------------------------------------------------------------------------

RANDOM = np.random.default_rng(1)
COLOUR = Image.fromarray(RANDOM.integers(0, 256, (4, 3, 4)).astype(np.uint8), "RGBA").resize((19, 14))
EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
FRAMES = [COLOUR.convert("RGB").rotate(angle) for angle in (90, 180)]
# Large enough that a decoder that writes too much of them does not go unnoticed.
FLAT = [Image.new("RGB", (96, 80), colour) for colour in ("red", "green", "blue")]


def drawn(form: str, mode: str, image: Image.Image = COLOUR, **settings: Any) -> bytes:
    image = image.convert("L").point(lambda v: v * 257, "I").convert("I;16") if mode == "I;16" else image.convert(mode)
    stream = io.BytesIO()
    image.save(stream, form, **settings)
    return stream.getvalue()


ANIMATION = {"save_all": True, "append_images": FRAMES}
SEEDS = {
    "webp": [
        *(drawn("WEBP", mode, lossless=exact) for mode in ("RGB", "RGBA") for exact in (False, True)),
        *(drawn("WEBP", mode, exif=EXIF, xmp=XMP) for mode in ("RGB", "RGBA")),
        *(drawn("WEBP", mode, lossless=exact, **ANIMATION) for mode in ("RGB", "RGBA") for exact in (False, True)),
        *(
            drawn("WEBP", "RGB", FLAT[0], lossless=exact, save_all=True, append_images=FLAT[1:])
            for exact in (False, True)
        ),
    ],
    "gif": [drawn("GIF", "L"), drawn("GIF", "P"), drawn("GIF", "RGB", **ANIMATION), drawn("GIF", "P", transparency=3)],
    "png": [
        *(drawn("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        drawn("PNG", "P", transparency=3, bits=4),
        drawn("PNG", "RGB", exif=EXIF, transparency=(1, 2, 3)),
        drawn("PNG", "RGB", **ANIMATION),
    ],
    "jpeg": [
        *(drawn("JPEG", mode, quality=60) for mode in ("L", "RGB", "CMYK")),
        drawn("JPEG", "RGB", progressive=True, restart_marker_blocks=1),
        drawn("JPEG", "RGB", exif=EXIF, subsampling=0),
        drawn("JPEG", "RGB", xmp=XMP, optimize=True),
        drawn("MPO", "RGB", exif=EXIF, **ANIMATION),
    ],
    "bmp": [drawn("BMP", mode) for mode in ("1", "L", "P", "RGB", "RGBA")],
}
MAPS = [
    drawn("PNG", "I;16"),
    *(drawn("PNG", "P", bits=bits) for bits in (1, 2, 4, 8)),
    *(drawn("PNG", mode) for mode in ("1", "L", "LA", "RGB")),
    drawn("PNG", "L", exif=EXIF),
    drawn("PNG", "L", **ANIMATION),
    b"Pf\n3 2\n-1.0\n" + bytes(range(24)),
    b"Pf 2 2 1e3\r\n" + bytes(16),
    b"PF\n2 1\n1\n" + bytes(24),
]
PICTURE_TARGETS = (
    Target("map", files(*MAPS), value_map, True),
    *(Target(f"served_{form}", files(*seeds), picture, True, model, apart=True) for form, seeds in SEEDS.items()),
    Target("served_picture", st.one_of(*(files(*seeds) for seeds in SEEDS.values())), picture, True, model, apart=True),
)
