"""Tables of pairs: lists, KITTI's folders, scenes; what is refused and why; parts, mirror images and colours."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pydantic import ValidationError

from appzoo.stereo_matching import readers
from appzoo.stereo_matching.app import StereoMatching
from appzoo.stereo_matching.augment import StereoAugmentation
from appzoo.stereo_matching.config import StereoAugmentConfig, StereoMatchingConfig
from appzoo.stereo_matching.inputs import StereoInput, filled_up, inside
from easytransfer.config.job import DataConfig
from easytransfer.data.app_forms import register
from easytransfer.data.table import BadRows, open_table
from easytransfer.errors import DataError
from easytransfer.image.maps import encode_png, write_map
from easytransfer.layers.draws import RowDraws

SIZE = (32, 64)
TRUTH = {"label_name": "disparity", "visible_name": "disparity_noc", "object_name": "objects"}


def app_of(**data):
    config = StereoMatchingConfig(
        model_name="stereo_matching", data=data, model={"network": "tiny", "max_disparity": 16, "image_size": SIZE}
    )
    app = StereoMatching(config)
    app.load_assets(None)
    return app


def picture(path: Path, height: int, width: int, value: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (height, width, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path.name


def encoded(app, path, policy="skip"):
    """The encoded rows of a table, and the reasons for which others were rejected."""
    register(readers.READERS, {})
    bad = BadRows(policy, 0, None)
    needed = app.input_columns() + app.label_inputs()
    table = open_table(str(path), schema=None, data=DataConfig(), bad_rows=bad, needed=needed, texts=app.text_columns())
    parts = [app.encode(chunk, True) for chunk in table.chunks(size=8)]
    return type(parts[0]).concat(parts), dict(bad.reasons), table.count


def names_in(table):
    return table.columns["name"].objects(np.arange(len(table))).tolist()


# Readers -------------------------------------------------------------------------------------------------------


def test_a_list_of_pairs_is_read_with_and_without_true_disparities(tmp_path):
    for name in ("a", "b", "c", "d"):
        picture(tmp_path / f"{name}.png", 30, 60, ord(name))
    write_map(tmp_path / "a.pfm", np.full((30, 60), 5, np.float32))
    (tmp_path / "some.pairs").write_text("# left right disparity\na.png b.png a.pfm\n\nc.png d.png  # unlabelled\n")
    rows = list(readers.read_pairs(str(tmp_path / "some.pairs")))
    assert rows[0] == {"left": "a.png", "right": "b.png", "disparity": "a.pfm", "disparity_noc": "", "objects": ""}
    table, reasons, count = encoded(app_of(label_name="disparity"), tmp_path / "some.pairs")
    assert reasons == {} and count.accepted == len(table) == 2 and names_in(table) == ["a", "c"]
    truth = table.columns["truth"]
    assert (truth[0, 2:, :60] == 5).all() and truth[0].sum() == 30 * 60 * 5 and not truth[1].any()


@pytest.mark.parametrize("text", ["a.png\n", "a b c d e f\n"])
def test_a_list_with_a_wrong_line_says_which(text, tmp_path):
    (tmp_path / "x.pairs").write_text("a b\n" + text)
    with pytest.raises(DataError, match=r"x.pairs:2: wrong column count: expected 2 to 5, got [16]"):
        list(readers.read_pairs(str(tmp_path / "x.pairs")))


@pytest.mark.parametrize("year", [2012, 2015])
def test_kitti_folders_are_read_by_a_list_of_scenes(year, tmp_path):
    folders = {2015: readers.KITTI_2015, 2012: readers.KITTI_2012}[year]
    for number in (0, 1, 2, 7):
        name = f"{number:06d}_10.png"
        for side in folders[:2]:
            picture(tmp_path / side / name, 30, 62, number)
        disparity = np.full((30, 62), 2048, np.uint16)
        for place, folder in enumerate(folders[2:4]):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_map(tmp_path / folder / name, np.where(np.arange(62) < 8 * place, 0, disparity).astype(np.uint16))
        if folders[4]:
            (tmp_path / folders[4]).mkdir(exist_ok=True)
            write_map(tmp_path / folders[4] / name, np.full((30, 62), number, np.uint8))
    path = tmp_path / f"some.kitti{year}"
    path.write_text("0-2 # a range\n7\n")
    columns = TRUTH if folders[4] else {**TRUTH, "object_name": None}
    table, reasons, _ = encoded(app_of(**columns), path)
    assert reasons == {} and names_in(table) == [f"{n:06d}_10" for n in (0, 1, 2, 7)]
    assert (table.columns["truth"][:, 2:, :62] == 8).all() and table.columns["size"].tolist() == [[30, 62]] * 4
    visible = table.columns["truth_visible"]
    assert not visible[:, 2:, :8].any() and (visible[:, 2:, 8:62] == 1).all()
    if folders[4]:
        assert table.columns["truth_object"][:, 10, 10].tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"), [("x\n", "'x' is no scene"), ("5-2\n", "is no scene"), ("0-99999999\n", "is no scene")]
)
def test_lists_of_scenes_that_mean_nothing_are_refused(text, message, tmp_path):
    (tmp_path / "image_2").mkdir()
    (tmp_path / "x.kitti2015").write_text(text)
    with pytest.raises(DataError, match="there is no folder image_3 beside it"):
        list(readers.READERS[".kitti2015"](str(tmp_path / "x.kitti2015")))
    (tmp_path / "image_3").mkdir()
    with pytest.raises(DataError, match=message):
        list(readers.READERS[".kitti2015"](str(tmp_path / "x.kitti2015")))


SCENES = {"pairs": 3, "seed": 1, "height": 32, "width": 64, "max_disparity": 16}


def test_scenes_are_the_same_wherever_reading_begins(tmp_path):
    path = tmp_path / "x.scenes"
    path.write_text(json.dumps(SCENES) + "\n" + json.dumps({**SCENES, "seed": 2}) + "\n")
    first, again = (list(readers.read_scenes(str(path))) for _ in range(2))
    assert first == again and [row["scene"] for row in first] == ["1-0", "1-1", "1-2", "2-0", "2-1", "2-2"]
    assert len({row["left"] for row in first}) == 6
    path.write_text(json.dumps({**SCENES, "pairs": 2}))
    assert list(readers.read_scenes(str(path))) == first[:2]
    table, reasons, _ = encoded(app_of(label_name="disparity", visible_name="disparity_noc"), path)
    assert reasons == {} and table.columns["truth"].max() < 16 and table.columns["truth"].min() >= 1
    assert names_in(table) == ["000000", "000001"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": 0}, "x.scenes:1: pairs is 0; accepted: a whole number from 1"),
        ({"pairs": 10**9}, "accepted: a whole number from 1 to 100000"),
        ({"seed": True}, "seed is True"),
        ({"height": 4096, "width": 4096}, "at most 4194304 pixels"),
        ({"max_disparity": 40}, "twice as many columns"),
        ({"more": 1}, "is no description of scenes"),
    ],
)
def test_descriptions_of_scenes_are_checked(change, message, tmp_path):
    (tmp_path / "x.scenes").write_text(json.dumps({**SCENES, **change}))
    with pytest.raises(DataError, match=message):
        list(readers.read_scenes(str(tmp_path / "x.scenes")))


# Bad rows ------------------------------------------------------------------------------------------------------


def test_every_bad_pair_is_left_out_with_its_reason(tmp_path):
    picture(tmp_path / "good.png", 32, 64)
    picture(tmp_path / "low.png", 31, 64)
    picture(tmp_path / "large.png", 33, 64)
    picture(tmp_path / "narrow.png", 32, 31)
    (tmp_path / "text.png").write_text("no picture")
    write_map(tmp_path / "small.png", np.ones((31, 64), np.uint16))
    write_map(tmp_path / "eight.png", np.ones((32, 64), np.uint8))
    write_map(tmp_path / "negative.pfm", np.full((32, 64), -1, np.float32))
    write_map(tmp_path / "true.png", np.full((32, 64), 256, np.uint16))
    lines = {
        "good.png good.png true.png true.png": None,
        "good.png low.png": "images of unequal sizes: left 32 x 64, right 31 x 64",
        "large.png large.png": "pair too large",
        "narrow.png narrow.png": "pair too narrow: 32 x 31",
        "good.png text.png": "not an image",
        "good.png absent.png": "cannot read the image file",
        "good.png good.png small.png small.png": "map of another size than its pair",
        "good.png good.png eight.png eight.png": "map of 8 bits a value",
        "good.png good.png negative.pfm true.png": "negative disparity",
        "good.png good.png true.png": "map without a disparity",
    }
    (tmp_path / "x.pairs").write_text("\n".join(lines))
    app = app_of(label_name="disparity", visible_name="disparity_noc")
    table, reasons, count = encoded(app, tmp_path / "x.pairs")
    assert (count.read, count.accepted, count.rejected) == (10, 1, 9) and len(table) == 1
    for line, reason in lines.items():
        assert reason is None or any(key.startswith(reason.partition(":")[0]) for key in reasons), (line, reasons)
    for line, reason in lines.items():
        if reason is not None:
            (tmp_path / "one.pairs").write_text(line)
            with pytest.raises(DataError, match=f"one.pairs:1: column '.*': .*{reason.split(':')[0]}"):
                encoded(app, tmp_path / "one.pairs", "fail")


def test_eight_bits_are_read_with_a_scale(tmp_path):
    picture(tmp_path / "good.png", 32, 64)
    write_map(tmp_path / "eight.png", np.full((32, 64), 21, np.uint8))
    (tmp_path / "x.pairs").write_text("good.png good.png eight.png")
    table, _, _ = encoded(app_of(label_name="disparity", disparity_scale=2), tmp_path / "x.pairs")
    assert (table.columns["truth"] == 10.5).all()


def test_a_graph_decodes_and_refuses_pairs_as_tables_do(tmp_path):
    pair = StereoInput("left", "right", SIZE, 16)
    data = [(tmp_path / picture(tmp_path / f"{i}.png", 20 + i, 50, i)).read_bytes() for i in range(2)]
    found = pair.from_request({"left_bytes": tf.constant(data[:1]), "right_bytes": tf.constant(data[:1])})
    wanted = np.zeros((*SIZE, 3), np.uint8)
    filled_up(wanted, np.asarray(Image.open(tmp_path / "0.png")))
    np.testing.assert_array_equal(found["left"][0], wanted)
    assert found["size"].numpy().tolist() == found["request_size"].numpy().tolist() == [[20, 50]]
    assert inside(found["size"], SIZE)[0].numpy().sum() == 20 * 50 and inside(found["size"], SIZE)[0, 12, 49]
    with pytest.raises(tf.errors.InvalidArgumentError, match="images of unequal sizes: left 20 x 50, right 21 x 50"):
        pair.from_request({"left_bytes": tf.constant(data[:1]), "right_bytes": tf.constant(data[1:])})
    with pytest.raises(tf.errors.InvalidArgumentError, match="pair too large: 33 x 64"):
        pair.filled(*[tf.zeros([1, 33, 64, 3], tf.uint8)] * 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="pair too narrow: 32 x 31, 32 columns needed"):
        pair.filled(*[tf.zeros([32, 31, 3], tf.uint8)] * 2)


# Augmentation --------------------------------------------------------------------------------------------------


def a_batch(rows=8):
    random = np.random.default_rng(0)
    size = np.stack([random.integers(20, 33, rows), random.integers(48, 65, rows)], axis=1).astype(np.int32)
    images = np.zeros((2, rows, *SIZE, 3), np.uint8)
    for side, row in np.ndindex(2, rows):
        filled_up(images[side, row], random.integers(1, 256, (*size[row], 3)).astype(np.uint8))
    batch = {"left": images[0], "right": images[1], "size": size, "example_weight": np.ones(rows, np.float32)}
    return {name: tf.constant(value) for name, value in batch.items()}


def augmented(batch, part=SIZE, **settings):
    change = StereoAugmentation(StereoAugmentConfig(**settings), SIZE, part)
    return change(batch, RowDraws(tf.constant([1, 2]), tf.constant(len(batch["size"]))))


def test_without_settings_pairs_stay_as_they_are():
    batch = a_batch()
    found = augmented(batch)
    np.testing.assert_allclose(found["left"] * 255, batch["left"], atol=1e-4)
    np.testing.assert_array_equal(found["left_view"], found["left"])
    np.testing.assert_array_equal(found["inside"], inside(batch["size"], SIZE))


def test_parts_are_cut_from_both_images_alike_and_out_of_the_pair():
    batch, part = a_batch(), (16, 48)
    found = augmented(batch, part)
    assert found["inside"].numpy().all() and found["left"].shape == (8, *part, 3)
    places = set()
    for row in range(8):
        sides = [np.rint(found[side][row].numpy() * 255).astype(np.uint8) for side in ("left", "right")]
        fitting = [
            (top, left)
            for top in range(SIZE[0] - part[0] + 1)
            for left in range(SIZE[1] - part[1] + 1)
            if all(
                np.array_equal(batch[side][row, top : top + 16, left : left + 48], image)
                for side, image in zip(("left", "right"), sides, strict=True)
            )
        ]
        assert len(fitting) == 1
        places.add(fitting[0])
    assert len(places) > 3


def test_mirrored_pairs_exchange_their_images():
    batch = a_batch(16)
    found = augmented(batch, swap_flip=True)
    plain = {side: batch[side].numpy() for side in ("left", "right")}
    mirrored = 0
    for row in range(16):
        left, right = (np.rint(found[side][row].numpy() * 255) for side in ("left", "right"))
        if np.array_equal(left, plain["left"][row]):
            np.testing.assert_array_equal(right, plain["right"][row])
            continue
        mirrored += 1
        np.testing.assert_array_equal(left, plain["right"][row, :, ::-1])
        np.testing.assert_array_equal(right, plain["left"][row, :, ::-1])
        np.testing.assert_array_equal(found["inside"][row], inside(batch["size"], SIZE)[row, :, ::-1])
    assert 0 < mirrored < 16


def test_colours_change_for_the_network_alone_and_alike_for_both_images():
    batch = a_batch()
    batch["right"] = batch["left"]
    found = augmented(batch, brightness=0.4, contrast=0.4)
    np.testing.assert_allclose(found["left"] * 255, batch["left"], atol=1e-4)
    assert np.abs(found["left_view"] - found["left"]).max() > 0.1
    np.testing.assert_array_equal(found["left_view"], found["right_view"])
    other = augmented(batch, image_jitter=0.05)
    difference = np.abs(other["left_view"] - other["right_view"])
    assert 0 < difference.max() < 0.25


# Configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("model", {"image_size": [100, 640]}, "multiples of 16"),
        ("model", {"crop_size": [128, 512]}, "psmnet needs 256 or more"),
        ("model", {"crop_size": [256, 320]}, "max_disparity=192 needs twice as many columns"),
        ("model", {"crop_size": [512, 512]}, "larger than model.image_size"),
        ("model", {"max_disparity": 100}, "multiple of 16"),
        ("model", {"focal_px": 700}, "must be given together"),
        ("data", {"visible_name": "noc"}, "means nothing without data.label_name"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(section, values, message):
    with pytest.raises(ValidationError, match=message):
        StereoMatchingConfig(model_name="stereo_matching", **{section: values})


def test_maps_are_read_whole(tmp_path):
    """Disparities above 255 pixels need the upper byte, and 16 bits hold no more than 255.996."""
    picture(tmp_path / "good.png", 32, 64)
    (tmp_path / "true.png").write_bytes(encode_png(np.full((32, 64), 65535, np.uint16)))
    (tmp_path / "x.pairs").write_text("good.png good.png true.png")
    table, _, _ = encoded(app_of(label_name="disparity"), tmp_path / "x.pairs")
    np.testing.assert_allclose(table.columns["truth"], 65535 / 256)
