"""Every form of image table is read to the same rows, and what cannot be used is refused with its reason."""

import base64
import gzip
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from easytransfer.compat.datasets import MemoryReader
from easytransfer.config.job import DataConfig
from easytransfer.data.files import expand
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.errors import ConfigError, DataError
from easytransfer.image.decode import load_images

PIXELS = np.random.default_rng(1).integers(0, 256, (6, 5, 4)).astype(np.uint8)
NAMES = ["cat", "dog", "cat", "owl", "dog", "cat"]
SCHEMA = "image:image:1,label:str:1"


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def read(spec: str, schema: str | None = None, **data) -> list[tuple[str, str]]:
    """Label and decoded pixels of every row, in an order of their own."""
    table = open_table(spec, schema=parse_schema(schema) if schema else None, data=DataConfig(**data))
    rows = []
    for chunk in table.chunks(size=4):
        images = load_images(chunk.columns["image"], str(Path(chunk.file).parent), channels=1, max_pixels=1000)
        assert not [image for image in images if isinstance(image, str)]
        rows += zip(map(str, chunk.columns["label"]), (image.tobytes().hex() for image in images), strict=True)
    assert table.row_count() == len(rows)
    return sorted(rows)


EXPECTED = sorted((name, pixels.tobytes().hex()) for name, pixels in zip(NAMES, PIXELS, strict=True))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for number, (name, pixels) in enumerate(zip(NAMES, PIXELS, strict=True)):
        path = tmp_path / "classes" / name / "deep" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(pixels))
    return tmp_path


def paths(files: Path) -> list[str]:
    return [str(next(files.glob(f"classes/*/deep/{number}.png")).relative_to(files)) for number in range(len(NAMES))]


def test_directories_by_class(files):
    (files / "classes" / "cat" / ".hidden.png").write_bytes(b"no")
    assert read(str(files / "classes")) == EXPECTED
    assert read(str(files / "classes"), SCHEMA) == EXPECTED
    assert read(f"{files}/classes/cat/deep,{files}/classes/owl/deep") == sorted(
        ("deep", pixels) for name, pixels in EXPECTED if name != "dog"
    )
    assert read(f"{files}/classes/*/deep/3.png") == [("deep", PIXELS[3].tobytes().hex())]


def test_text_and_json_manifests_of_paths_relative_to_themselves(files):
    rows = list(zip(paths(files), NAMES, strict=True))
    (files / "t.tsv").write_text("".join(f"{path}\t{name}\n" for path, name in rows))
    (files / "t.csv").write_text("image,label\n" + "".join(f'"{path}",{name}\n' for path, name in rows))
    (files / "t.jsonl").write_text("".join(json.dumps({"image": p, "label": n}) + "\n" for p, n in rows))
    assert read(f"{files}/t.tsv", SCHEMA) == read(f"{files}/t.csv") == read(f"{files}/t.jsonl") == EXPECTED
    assert read(f"{files}/t.jsonl", SCHEMA) == EXPECTED


def test_data_texts_stand_in_the_cell(tmp_path):
    cells = ["data:image/png;base64," + base64.b64encode(png(pixels)).decode() for pixels in PIXELS]
    (tmp_path / "t.tsv").write_text("".join(f"{cell}\t{name}\n" for cell, name in zip(cells, NAMES, strict=True)))
    assert read(f"{tmp_path}/t.tsv", SCHEMA) == EXPECTED


def test_tfrecords_and_parquet_of_encoded_bytes(tmp_path):
    import pyarrow
    import tensorflow as tf
    from pyarrow import parquet

    encoded = [png(pixels) for pixels in PIXELS]
    with tf.io.TFRecordWriter(f"{tmp_path}/t.tfrecord") as writer:
        for data, name in zip(encoded, NAMES, strict=True):
            lists = {"image": tf.train.BytesList(value=[data]), "label": tf.train.BytesList(value=[name.encode()])}
            feature = {key: tf.train.Feature(bytes_list=value) for key, value in lists.items()}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    parquet.write_table(pyarrow.table({"image": encoded, "label": NAMES}), f"{tmp_path}/t.parquet")
    for name in ("t.tfrecord", "t.parquet"):
        assert read(f"{tmp_path}/{name}") == read(f"{tmp_path}/{name}", SCHEMA) == EXPECTED


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">2xBB{array.ndim}I", 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_with_labels_beside(tmp_path, suffix):
    classes = np.array([3, 1, 3, 0, 1, 3], np.uint8)
    for name, array in (("train-images-idx3-ubyte", PIXELS), ("train-labels-idx1-ubyte", classes)):
        data = idx(array)
        (tmp_path / (name + suffix)).write_bytes(gzip.compress(data) if suffix else data)
    spec = f"{tmp_path}/train-images-idx3-ubyte{suffix}"
    expected = sorted((str(label), pixels.tobytes().hex()) for label, pixels in zip(classes, PIXELS, strict=True))
    assert read(spec) == read(spec, "image:image:1,label:int:1") == expected


@pytest.mark.parametrize("part", ["", "train"])
def test_npz_arrays(tmp_path, part):
    classes = np.array([0, 1, 0, 2, 1, 0])
    arrays = {"x": PIXELS, "y": classes, "other": np.zeros(3)}
    named = {f"{name}_{part}" if part else name: value for name, value in arrays.items()}
    np.savez(tmp_path / "t.npz", **named, class_names=np.array(["cat", "dog", "owl"]))
    spec = f"{tmp_path}/t.npz" + (f"#{part}" if part else "")
    assert expand(spec) == [spec]
    assert read(spec) == EXPECTED
    np.savez(tmp_path / "t.npz", **named)
    assert [label for label, _ in read(spec)] == ["0", "0", "0", "1", "1", "2"]
    with pytest.raises(DataError, match="no array of pictures"):
        read(f"{tmp_path}/t.npz#validation")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"not idx at all", "not an idx file of bytes"),
        (idx(PIXELS)[:-1], "holds 119 bytes where its head says"),
        (struct.pack(">2xBBII", 8, 3, 6, 5), "cut off in its head"),
        (struct.pack(">2xBBI", 13, 1, 6), "not an idx file of bytes"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, content, expected):
    (tmp_path / "a-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=expected):
        list(open_table(f"{tmp_path}/a-images-idx3-ubyte", schema=None).chunks())


def test_idx_labels_must_be_as_many_as_pictures(tmp_path):
    (tmp_path / "a-images-idx3-ubyte").write_bytes(idx(PIXELS))
    (tmp_path / "a-labels-idx1-ubyte").write_bytes(idx(np.zeros(5, np.uint8)))
    with pytest.raises(DataError, match="6 pictures and .* 5 labels"):
        list(open_table(f"{tmp_path}/a-images-idx3-ubyte", schema=None).chunks())
    (tmp_path / "a-labels-idx1-ubyte").unlink()
    assert open_table(f"{tmp_path}/a-images-idx3-ubyte", schema=None).schema.names == ["image"]
    with pytest.raises(ConfigError, match="label"):
        open_table(f"{tmp_path}/a-images-idx3-ubyte", schema=parse_schema("image:image:1,label:int:1"))


def test_empty_cells_and_wrong_values_are_bad_rows(tmp_path):
    (tmp_path / "t.tsv").write_text("a.png\tcat\n \tdog\n")
    bad = BadRows("skip")
    chunks = list(open_table(f"{tmp_path}/t.tsv", schema=parse_schema(SCHEMA), bad_rows=bad).chunks())
    assert chunks[0].columns["image"] == ["a.png"] and bad.reasons == {"no image": 1}
    (tmp_path / "t.jsonl").write_text('{"image": 3, "label": "x"}\n')
    with pytest.raises(DataError, match="wrong type: expected a path"):
        list(open_table(f"{tmp_path}/t.jsonl", schema=parse_schema(SCHEMA)).chunks())


def test_an_image_column_holds_one_image():
    with pytest.raises(ConfigError, match="accepts 1 image|accepted: 1 image|1 image"):
        parse_schema("image:image:2")


def test_python_readers_keep_images_as_objects():
    rows = [{"image": pixels, "label": name} for pixels, name in zip(PIXELS, NAMES, strict=True)]
    (batch,) = MemoryReader(rows, SCHEMA, batch_size=6).batches()
    assert batch["image"].shape == (6,) and batch["image"].dtype == object
    np.testing.assert_array_equal(batch["image"][5], PIXELS[5])


def test_a_folder_without_anything_to_read_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no table file and no pictures"):
        expand(str(tmp_path))


def test_real_fashion_mnist(shared_data):
    table = open_table(str(shared_data / "fashion_mnist" / "t10k-images-idx3-ubyte.gz"), schema=None)
    (chunk,) = table.chunks(size=10000)
    assert np.bincount(chunk.columns["label"]).tolist() == [1000] * 10
    assert chunk.columns["image"][0].shape == (28, 28) and table.row_count() == 10000
