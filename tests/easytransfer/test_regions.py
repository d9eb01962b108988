"""Regions of images: every form that is read, what is refused, and the arrays of batches and requests."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import tensorflow as tf

from easytransfer.app.inputs.regions import NpzRegions, RecordRegions, Regions, TableRegions
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.region_files import RegionFiles, records_of_tsv
from easytransfer.data.regions import ImageRegions, checked, regions_of_npz, regions_of_tsv, write_region_records
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.errors import ConfigError, DataError

WIDTH = 3
FEATURES = np.arange(6, dtype=np.float32).reshape(2, WIDTH) / 4
PIXELS = np.float32([[0, 0, 40, 10], [10, 5, 20, 20]])
SIZE = (20, 40)
SHARES = np.float32([[0, 0, 1, 0.5], [0.25, 0.25, 0.5, 1]])


def text_of(values, kind: str) -> str:
    return base64.b64encode(np.asarray(values, kind).tobytes()).decode()


def plain_row(image: str = "a", features=FEATURES, boxes=PIXELS, count: int = 2) -> str:
    height, width = SIZE
    cells = [image, width, height, count, text_of(boxes, "<f4"), text_of(features, "<f4")]
    return "\t".join(map(str, cells))


def row_with_classes(image: str = "b") -> str:
    classes = [text_of([7, 2], "<i8"), text_of([0.9, 0.5], "<f4"), text_of([1, 0], "<i8"), text_of([0.4, 0.2], "<f4")]
    cells = [image, *SIZE, *classes, 2, text_of(PIXELS, "<f4"), text_of(FEATURES, "<f4")]
    return "\t".join(map(str, cells))


def npz(**arrays) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def encoded(part: Regions, rows: str, schema: str, folder) -> tuple[dict, BadRows]:
    """Arrays of the accepted rows of a TSV table, and the account of the others."""
    path = folder / "rows.tsv"
    path.write_text(rows, encoding="utf-8")
    bad = BadRows("skip")
    columns = parse_schema(schema)
    table = open_table(str(path), schema=columns, bad_rows=bad, needed=part.table_columns(), texts=part.text_columns())
    found = []
    for chunk in table.chunks(size=part.chunk_rows):
        made = part.encode(chunk)
        kept = np.flatnonzero(chunk.accepted)
        found.append(EncodedTable(made.columns).take(kept))
    whole = EncodedTable.concat(found)
    assert table.count.read == len(whole) + table.count.rejected
    return whole.batch(np.arange(len(whole))), bad


def reasons(bad: BadRows) -> list[str]:
    return sorted(bad.reasons)


# One image -----------------------------------------------------------------------------------------------------


def test_rows_of_both_tsv_forms_whose_width_and_height_change_places():
    for line in (plain_row(), row_with_classes()):
        found = checked(regions_of_tsv(line.encode()), WIDTH, 4)
        np.testing.assert_array_equal(found.features, FEATURES)
        np.testing.assert_allclose(found.boxes, SHARES)
        assert found.size == SIZE
    assert found.object_id.tolist() == [7, 2] and found.attribute_id.tolist() == [1, 0]
    np.testing.assert_allclose(found.attribute_conf, [0.4, 0.2])
    assert regions_of_tsv(plain_row().encode()).object_id is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (plain_row()[:-3], "features are no base64"),
        (plain_row()[:-4], "features has 21 bytes"),
        (plain_row(count=5), "features has 24 bytes"),
        (plain_row(count=0), "num_boxes is 0"),
        (plain_row() + "\tmore", "7 columns"),
        (plain_row(features=FEATURES[:, :2]), "a region has 2 numbers, not model.feature_size=3"),
        (plain_row(features=FEATURES * np.nan), "infinite"),
        (plain_row(boxes=SHARES), "pixels are needed"),
        (plain_row(boxes=PIXELS * 2), "does not lie in the image"),
        (plain_row(boxes=PIXELS[:, [0, 1, 0, 3]]), "has no area"),
    ],
)
def test_damaged_rows_are_refused(line, reason):
    with pytest.raises(ValueError, match=reason):
        checked(regions_of_tsv(line.encode()), WIDTH, 4)


def test_arrays_of_an_npz_file():
    soft = np.float32([[0.9, 0.02, 0.08], [0.1, 0.5, 0.4]])
    data = npz(
        features=FEATURES.astype(np.float16), norm_bb=np.c_[SHARES, SHARES[:, 2:]], conf=[0.25, 1], soft_labels=soft
    )
    found = checked(regions_of_npz(data), WIDTH, 2)
    np.testing.assert_array_equal(found.features, FEATURES)
    np.testing.assert_allclose(found.boxes, SHARES)
    # The best class but the background, which is the first.
    assert found.object_id.tolist() == [1, 0] and found.object_conf.tolist() == [0.25, 1]
    found = regions_of_npz(npz(features=FEATURES, boxes=PIXELS, image_h=20, image_w=40, object_id=[3, -1]))
    np.testing.assert_allclose(found.boxes, SHARES)
    assert found.object_id.tolist() == [3, -1] and found.size == SIZE


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"vectors": FEATURES}, "no array `features` among vectors"),
        ({"features": FEATURES, "boxes": PIXELS}, "image_h and image_w"),
        ({"features": FEATURES, "norm_bb": PIXELS}, "does not lie in the image"),
        ({"features": FEATURES, "norm_bb": SHARES[:1]}, r"\[2, 4\] is needed"),
        ({"features": FEATURES, "norm_bb": SHARES, "conf": [2.0, 0]}, "object_conf must lie between 0 and 1"),
        ({"features": FEATURES, "object_id": [-2, 0]}, "object_id must be integers from 0"),
        ({"features": np.array(["a", None], object)}, "no arrays of an .npz file"),
        ({"features": np.zeros([0, 3], np.float32)}, "no regions"),
        ({"features": np.zeros([5, 3], np.float32)}, "more than model.max_regions=4"),
    ],
)
def test_other_arrays_are_refused(arrays, reason):
    with pytest.raises(ValueError, match=reason):
        checked(regions_of_npz(npz(**arrays)), WIDTH, 4)
    with pytest.raises(ValueError, match="no arrays of an .npz file"):
        regions_of_npz(npz(**arrays)[:40])


# Files of many images ------------------------------------------------------------------------------------------


def test_images_are_found_in_files_and_the_places_are_kept_until_a_file_changes(tmp_path, capfd):
    path = tmp_path / "a.tsv"
    path.write_text("\n".join([plain_row("a"), "", row_with_classes("b"), plain_row("ü")]), encoding="utf-8")
    files = RegionFiles(str(path))
    assert len(files) == 3 and files.find("b").object_id.tolist() == [7, 2]
    np.testing.assert_array_equal(files.find("ü").features, FEATURES)
    with pytest.raises(ValueError, match="unknown image: 'c'"):
        files.find("c")
    assert "once" in capfd.readouterr().err
    RegionFiles(str(path))
    assert "once" not in capfd.readouterr().err
    (tmp_path / ".a.tsv.index.npz").write_bytes(b"damaged")
    assert len(RegionFiles(str(path))) == 3
    path.write_text(plain_row("c") + "\n", encoding="utf-8")
    assert RegionFiles(str(path)).find("c").size == SIZE


def test_a_tsv_file_becomes_records_with_the_same_regions(tmp_path):
    path, records = tmp_path / "a.tsv", tmp_path / "a.tfrecord"
    path.write_text(f"{plain_row('a')}\n{row_with_classes('b')}\n", encoding="utf-8")
    assert write_region_records(records, records_of_tsv([str(path)])) == 2
    for image in "ab":
        first, second = (checked(RegionFiles(str(file)).find(image), WIDTH, 4) for file in (path, records))
        np.testing.assert_array_equal(first.features, second.features)
        np.testing.assert_allclose(first.boxes, second.boxes, atol=1e-6)
        assert first.size == second.size and (first.object_id is None) == (second.object_id is None)
    np.testing.assert_array_equal(first.attribute_id, second.attribute_id)
    with pytest.raises(DataError, match="both have regions of image 'a'"):
        RegionFiles(f"{path},{records}")
    with pytest.raises(DataError, match="16 bits"):
        write_region_records(tmp_path / "b.tfrecord", [("a", ImageRegions(FEATURES * 1e6))])
    assert not (tmp_path / "b.tfrecord").exists()


def test_files_that_are_none_of_regions_are_refused(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text(f"{plain_row('a')}\n{plain_row('b')}\n{plain_row('a')}\n", encoding="utf-8")
    with pytest.raises(DataError, match="two records of image 'a'"):
        RegionFiles(str(path))
    path.write_text("no tab\n", encoding="utf-8")
    with pytest.raises(DataError, match="no tab"):
        RegionFiles(str(path))
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="no record"):
        RegionFiles(str(path))
    other = tmp_path / "a.json"
    other.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown ending"):
        RegionFiles(str(other))
    records = tmp_path / "a.tfrecord"
    write_region_records(records, [("a", ImageRegions(FEATURES))])
    records.write_bytes(records.read_bytes()[:-7])
    with pytest.raises(DataError, match="damaged"):
        RegionFiles(str(records))


# Rows of a table -----------------------------------------------------------------------------------------------


def test_numbers_of_the_table(tmp_path):
    part = TableRegions("image_feature", 4, WIDTH, box_column="boxes")
    features, boxes = (",".join(f"{x:g}" for x in values.reshape(-1)) for values in (FEATURES, SHARES))
    rows = [
        f"{features}\t{boxes}",
        f"1,2,3\t{boxes}",
        f"1,2\t{boxes}",
        f"{features}\t0,0,40,10,10,5,20,20",
        f"{features}\t{boxes}",
    ]
    batch, bad = encoded(part, "\n".join(rows) + "\n", "image_feature:float:*,boxes:float:*", tmp_path)
    assert batch["region_mask"].tolist() == [[1, 1, 0, 0]] * 2
    np.testing.assert_array_equal(batch["features"][0, :2], FEATURES)
    assert not batch["features"][:, 2:].any() and not batch["boxes"][:, 2:].any()
    np.testing.assert_allclose(batch["boxes"][1, :2], SHARES)
    assert reasons(bad) == ["wrong box", "wrong regions"]
    assert batch["image_id"][0] == batch["image_id"][1] and len(batch["image_id"][0]) == 16
    assert {name: (spec.shape[1:].as_list(), spec.dtype.name) for name, spec in part.specs().items()} == {
        "features": ([4, WIDTH], "float32"),
        "boxes": ([4, 4], "float32"),
        "region_mask": ([4], "int32"),
    }


def test_an_image_without_boxes_has_zeros_in_their_place(tmp_path):
    batch, _ = encoded(TableRegions("x", 2, WIDTH), "0,1,2,3,4,5\n", "x:float:6", tmp_path)
    assert batch["boxes"].shape == (1, 2, 4) and not batch["boxes"].any()
    np.testing.assert_array_equal(batch["features"][0], FEATURES * 4)


def test_npz_files_beside_the_table_and_classes(tmp_path):
    (tmp_path / "a.npz").write_bytes(npz(features=FEATURES, norm_bb=SHARES, object_id=[3, -1], attribute_id=[0, 1]))
    (tmp_path / "b.npz").write_bytes(npz(features=FEATURES))
    part = NpzRegions("image", 3, WIDTH, has_boxes=True, classes=True)
    batch, bad = encoded(part, "a.npz\nb.npz\nc.npz\na.npz\n", "image:str:1", tmp_path)
    assert batch["image_id"].tolist() == ["a.npz", "a.npz"]
    assert batch["object_id"].tolist() == [[3, -1, -1]] * 2 and batch["attribute_id"][0].tolist() == [0, 1, -1]
    # Nobody said how sure the classes are.
    assert batch["object_conf"][0].tolist() == [1, 0, 0] and batch["attribute_conf"][0].tolist() == [1, 1, 0]
    assert reasons(bad) == ["cannot read the image file", "wrong box"]


def test_records_are_found_by_the_id_of_the_image(tmp_path):
    path = tmp_path / "regions.tsv"
    path.write_text(f"{plain_row('7')}\n{row_with_classes('8')}\n", encoding="utf-8")
    part = RecordRegions("image_id", str(path), 3, WIDTH, has_boxes=True, classes=True, suffix="_b", raw_prefix="b_")
    batch, bad = encoded(part, "a\t8\nb\t9\nc\t9\nd\t8\ne\t7\n", "text:str:1,image_id:int:1", tmp_path)
    assert batch["image_id_b"].tolist() == ["8", "8", "7"] and batch["image_size_b"].tolist() == [[20, 40]] * 3
    assert batch["object_id_b"].tolist() == [[7, 2, -1]] * 2 + [[-1, -1, -1]]
    assert dict(bad.reasons) == {"unknown image": 2}
    assert part.serving_specs().keys() == {"b_features", "b_num_regions", "b_boxes", "b_image_size"}
    with pytest.raises(ConfigError, match=r"data\.region_file"):
        assert RecordRegions("image_id", None, 3, WIDTH, has_boxes=True).files


# Requests ------------------------------------------------------------------------------------------------------


def test_a_request_has_the_arrays_of_the_table():
    part = NpzRegions("image", 3, WIDTH, has_boxes=True, classes=True)
    raw = {
        "features": tf.constant([np.r_[FEATURES, [[9, 9, 9]]]], tf.float32),
        "boxes": tf.constant([np.r_[PIXELS, [[99, 99, 99, 99]]]], tf.float32),
        "num_regions": tf.constant([2]),
        "image_size": tf.constant([SIZE]),
    }
    found = tf.function(part.from_request)(raw)
    assert found["region_mask"].numpy().tolist() == [[1, 1, 0]]
    np.testing.assert_array_equal(found["features"][0, :2], FEATURES)
    np.testing.assert_allclose(found["boxes"][0, :2], SHARES)
    assert not found["features"][0, 2].numpy().any() and not found["boxes"][0, 2].numpy().any()
    assert found["object_id"].numpy().tolist() == [[-1, -1, -1]]
    for name, value, told in (
        ("num_regions", [0], "num_regions must lie"),
        ("num_regions", [4], "num_regions must lie"),
        ("num_regions", [3], "boxes must be"),
        ("image_size", [SIZE[::-1]], "boxes must be"),
        ("features", raw["features"] / 0, "finite"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=told):
            tf.function(part.from_request)({**raw, name: tf.constant(value)})


@pytest.mark.parametrize("has_boxes", [True, False])
def test_samples_are_requests(has_boxes):
    part = NpzRegions("image", 4, WIDTH, has_boxes=has_boxes, raw_prefix="left_")
    samples = part.samples()
    assert samples.keys() == part.serving_specs().keys()
    found = part.from_request({name: tf.constant(value) for name, value in samples.items()})
    assert found["region_mask"].numpy().sum(axis=1).tolist() == [1, 2, 2, 3, 4]
    for name, spec in part.specs().items():
        assert spec.is_compatible_with(found[name]), name
