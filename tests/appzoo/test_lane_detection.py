"""Lane detection as an application: augmentation, rows of tables and requests, losses, pictures, stored shapes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from appzoo.lane_detection.app import NETWORK_FILE, LaneDetection
from appzoo.lane_detection.config import LaneSettings, ResaConfig
from appzoo.lane_detection.inputs import CameraImage
from appzoo.lane_detection.metrics import lane_evaluator
from appzoo.lane_detection.pictures import WORST_FILE, overlay
from easytransfer.app.contract import Assets
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.table import open_table
from easytransfer.layers.draws import RowDraws
from easytransfer.train.step import EVALUATION
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.names import named

RANDOM = np.random.default_rng(5)
SIZES = {"image_size": [32, 64], "original_size": [80, 128], "cut_height": 16, "slots": 4, "line_width": 4}
ROWS = {"row_step": 4, "row_count": 12, "benchmark": "culane", "f1_width": 6}
TINY = {**SIZES, **ROWS, "network": "tiny", "channels": 32, "exist_units": 8, "iterations": 2, "kernel_width": 3}


def app_of(**model) -> LaneDetection:
    app = LaneDetection(ResaConfig(model_name="lane_detection_resa", model={**TINY, **model}))
    app.load_assets(None)
    return app


def row(folder, name: str, size=(80, 128), lanes=((20, 70, 60, 20), (110, 70, 70, 20))) -> dict:
    pixels = RANDOM.integers(0, 256, (size[0] // 8, size[1] // 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize(size[::-1]).save(folder / f"{name}.png")
    return {"image": f"{name}.png", "lanes": [list(lane) for lane in lanes]}


def encoded(app: LaneDetection, folder, rows: list[dict], bad: BadRows | None = None):
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = open_table(str(path), schema=None, bad_rows=bad or BadRows("fail"), texts=app.text_columns())
    (chunk,) = table.chunks()
    return app.encode(chunk, with_labels=True)


# Augmentation ------------------------------------------------------------------------------------------------


def batch_of(rows=8, size=(32, 64)):
    mask = np.zeros([rows, *size], np.uint8)
    for slot in range(1, 5):
        mask[:, 4 + 5 * slot :, 12 * slot : 12 * slot + 5] = slot
    mask[:, :2, :9] = 255
    exist = np.tile(np.float32([1, 0, 1, 1]), [rows, 1])
    # The image says which slot a pixel is of, so that both can be compared after any move.
    image = np.repeat(mask[..., None] % 255 * np.uint8(40), 3, axis=-1)
    found = {"image": image, "mask": mask, "exist": exist, "example_weight": np.ones(rows, np.float32)}
    return {name: tf.constant(value) for name, value in found.items()}


def mirrored_slots(mask: np.ndarray, slots: int) -> np.ndarray:
    """Slot c of a mirror image is slot n + 1 - c; background and pixels without weight stay."""
    return np.where((mask >= 1) & (mask <= slots), slots + 1 - mask, mask)


def draws(seed: int, rows=8) -> RowDraws:
    return RowDraws(tf.constant([seed, 1]), tf.constant(rows))


def test_mirror_images_have_their_slots_reversed():
    app, batch = app_of(rotation_degrees=0.0), batch_of()
    found = {name: np.asarray(value) for name, value in app.training_batch(batch, draws(1)).items()}
    mirrored = np.asarray(app.augmentation(draws(1)).mirrored)
    assert 0 < mirrored.sum() < 8
    for i in range(8):
        image, mask, exist = (batch[name][i].numpy() for name in ("image", "mask", "exist"))
        if mirrored[i]:
            image, exist = image[:, ::-1], exist[::-1]
            mask = np.where(mask == 255, 255, mirrored_slots(mask, 4))[:, ::-1]
        np.testing.assert_allclose(found["image"][i], image, atol=1e-3)
        np.testing.assert_array_equal(found["mask"][i], mask)
        np.testing.assert_array_equal(found["exist"][i], exist)
    np.testing.assert_array_equal(found["example_weight"], batch["example_weight"])


def test_twice_mirrored_is_the_same():
    app, batch = app_of(rotation_degrees=0.0), batch_of()
    once = app.training_batch(batch, draws(1))
    twice = app.training_batch(once, draws(1))
    for name in ("image", "mask", "exist"):
        np.testing.assert_allclose(twice[name], batch[name], atol=1e-3)


def test_masks_move_with_images_and_rotations_are_those_of_the_camera():
    app, batch = app_of(rotation_degrees=30.0), batch_of()
    found = app.training_batch(batch, draws(3))
    image, mask = np.asarray(found["image"])[..., 0], np.asarray(found["mask"])
    mirrored = np.asarray(app.augmentation(draws(3)).mirrored)
    mask = np.where(mirrored[:, None, None], mirrored_slots(mask, 4), mask)
    inside = (mask > 0) & (mask != 255)
    # Where all around a pixel the image is of one lane, the mask says which.
    flat = np.abs(image - 40 * np.rint(image / 40)) < 1e-3
    assert inside.any() and (mask[flat & inside] * 40.0 == image[flat & inside]).mean() > 0.97
    # A shape keeps its angles in pixels of the camera, which are twice as wide as high after the resizing.
    a, b, _, d, e, _ = np.asarray(app.augmentation(draws(3)).matrices).T
    scale_x, scale_y = 128 / 64, 64 / 32
    turned = np.stack([[a, b * scale_x / scale_y], [d * scale_y / scale_x, e]]).transpose(2, 0, 1)
    np.testing.assert_allclose(turned @ turned.transpose(0, 2, 1), np.tile(np.eye(2), [8, 1, 1]), atol=1e-9)
    assert (np.abs(b) > 0.01).any() and (np.abs(b) < 1e-9).any()


def test_a_mirrored_oracle_is_as_good(tmp_path):
    """True lanes of mirror images, predicted as the mirrored lanes of the images: the metric is 1 before and after."""
    app = app_of()
    table = encoded(app, tmp_path, [row(tmp_path, "a"), row(tmp_path, "b", lanes=[(20, 70, 60, 20)])])
    rows = np.array(app.config.model.rows)
    for mirror in (False, True):
        true, exist = table.columns["true_lanes"].copy(), table.columns["exist"]
        if mirror:
            true[..., 0], exist = 127 - true[..., 0], exist[:, ::-1]
        lane_x = np.full([2, 4, len(rows)], -2, np.float32)
        for image, lanes in enumerate(true):
            for slot, lane in enumerate(lane for lane in lanes if not np.isnan(lane[0, 1])):
                points = lane[~np.isnan(lane[:, 1])]
                inside = (rows >= points[:, 1].min()) & (rows <= points[:, 1].max())
                lane_x[image, slot, inside] = np.interp(rows, points[:, 1], points[:, 0])[inside]
        evaluator = lane_evaluator(app.config.model)
        counts = np.ones([2, 4, 2], np.int32)
        batch = {"true_lanes": true, "exist": exist, "category": table.columns["category"]}
        evaluator.update(batch, {"lane_x": lane_x, "exist": exist, "pixel_counts": counts})
        result = evaluator.result()
        assert (result["f1"], result["exist_accuracy"], result["pixel_iou"]) == (1, 1, 1)


# Rows of tables and requests ---------------------------------------------------------------------------------


def test_pictures_of_tables_and_requests_are_the_same(tmp_path):
    app = app_of()
    rows = [row(tmp_path, "camera"), row(tmp_path, "small", (40, 64)), row(tmp_path, "large", (171, 300))]
    table = encoded(app, tmp_path, rows)
    files = [(tmp_path / each["image"]).read_bytes() for each in rows]
    (camera,) = app.inputs
    served = camera.from_request({"image_bytes": tf.constant(files)})["image"]
    np.testing.assert_array_equal(served, table.columns["image"])
    arrays = [np.asarray(Image.open(tmp_path / each["image"])) for each in rows]
    for number, pixels in enumerate(arrays):
        one = camera.each(tf.constant(pixels[None]), lambda picture: picture)
        np.testing.assert_array_equal(one[0], table.columns["image"][number])


def test_a_camera_image_is_cut_and_resized_as_pillow_does(tmp_path):
    app = app_of()
    table = encoded(app, tmp_path, [row(tmp_path, "a")])
    picture = Image.open(tmp_path / "a.png").convert("RGB").crop((0, 16, 128, 80))
    expected = np.asarray(picture.resize((64, 32), Image.Resampling.BILINEAR), float)
    assert np.abs(table.columns["image"][0] - expected).max() <= 1


def test_bad_rows_name_file_and_reason(tmp_path):
    app, bad = app_of(), BadRows("skip")
    rows = [
        row(tmp_path, "good"),
        {**row(tmp_path, "x"), "image": "nowhere.png"},
        {**row(tmp_path, "y"), "lanes": [[1]]},
    ]
    rows += [{**row(tmp_path, "z"), "lanes": "mask.png"}]
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    rows += [{**row(tmp_path, "v"), "image": "broken.png"}]
    table = encoded(app, tmp_path, rows, bad)
    assert len(table) == 1 and bad.count == 4
    assert bad.reasons == {"cannot read the image file": 2, "bad lane": 1, "broken image": 1}


def test_lanes_without_a_slot_are_counted_and_told(tmp_path, capfd):
    from easytransfer.run.log import setup_logging

    setup_logging()
    app = app_of()
    lanes = [(10 * n, 70, 60, 20) for n in range(4)]
    table = encoded(app, tmp_path, [row(tmp_path, "a", lanes=lanes)])
    app.on_train_table(table)
    assert "2 lanes lie beyond the 4 slots" in capfd.readouterr().err


# The application ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lanes")
    app = app_of()
    table = encoded(app, folder, [row(folder, name) for name in "abcd"])
    app.build_model()
    return app, table


def test_evaluation_has_the_losses_of_the_maps(built):
    """Evaluation keeps sums of rows in place of maps; the losses are the same, rows without weight left out."""
    app, table = built
    batch = {name: tf.constant(value) for name, value in table.batch([0, 1, 2], size=4).items()}
    reduced = app.evaluate_step(batch)
    assert "logits" not in reduced and all(value.shape.num_elements() < 4 * 4 * 64 for value in reduced.values())
    outputs = app.forward(batch)
    whole, parts = app.losses(batch, outputs, EVALUATION), app.losses(batch, reduced, EVALUATION)
    logits, mask = np.asarray(outputs["logits"], float)[:3], batch["mask"].numpy()[:3]
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    weight = np.where(mask == 0, 0.4, 1.0)
    expected = -(weight * np.take_along_axis(log, mask[..., None].astype(int), -1)[..., 0]).sum() / weight.sum()
    for found in (whole, parts):
        assert float(found["maps"].sum / found["maps"].weight) == pytest.approx(expected, rel=1e-5)
        assert float(found["existence"].weight) == 3
    assert float(whole["existence"].sum) == pytest.approx(float(parts["existence"].sum))


def test_worst_frames_are_drawn(built, tmp_path):
    app, table = built
    batch = {name: tf.constant(value) for name, value in table.batch([0, 1, 2, 3]).items()}
    outputs = {name: value.numpy() for name, value in app.evaluate_step(batch).items()}
    assert app.write_pages(tmp_path, table, outputs) == [WORST_FILE]
    assert Image.open(tmp_path / WORST_FILE).size[0] > 3 * 320


def test_an_overlay_has_predicted_and_true_lanes():
    settings = LaneSettings(**SIZES, **ROWS)
    lane = np.array([[60.0, 20], [20, 70]])
    picture = np.asarray(overlay(np.zeros([32, 64, 3], np.uint8), [lane, None, None, None], [lane], settings))
    assert picture.shape == (160, 320, 3)
    # Five times the size of the network's: x 20 of 128 is 51 of 320, y 70 of 16 to 80 is 136 of 160.
    assert (picture[133:139, 48:55] == 255).all(-1).any() and (picture == (230, 70, 60)).all(-1).any()
    assert not picture[:, 200:].any()


def test_a_stored_shape_is_built_again(tmp_path):
    CnnBackbone(named("resnet18_imagenet").scaled(1 / 8), 5).save_to_preset(tmp_path / "net")
    app = app_of(backbone_path=str(tmp_path / "net"))
    app.save_assets(tmp_path)
    stored = json.loads((tmp_path / NETWORK_FILE).read_text())
    assert stored["output_stride"] == 8 and stored["stem_widths"] == [8]
    first, second = app.build_network(Assets(None)), app.build_network(Assets(tmp_path))
    assert [v.shape for v in first.variables] == [v.shape for v in second.variables]
    app_of().save_assets(tmp_path)
    assert json.loads((tmp_path / NETWORK_FILE).read_text()) is None


def test_all_weights_are_decayed(built):
    app, _ = built
    (part,) = app.optimizers().values()
    assert part.no_decay == () and len(list(part.variables)) == len(app.model.trainable_variables)


def test_signatures_take_files_and_pixels(built, tmp_path):
    app, _ = built
    app.save_assets(tmp_path)
    found = app.signatures(tmp_path)
    assert list(found) == ["serving_default", "predict_ids", "serving_image", "serving_mask"]
    picture = RANDOM.integers(0, 256, (80, 128, 3)).astype(np.uint8)
    files = tf.constant([tf.io.encode_png(picture).numpy()])
    by_file = found["serving_default"].function(image_bytes=files)
    by_pixels = found["serving_image"].function(image=tf.constant(picture[None]))
    assert list(by_file) == ["lane_x", "row_score", "exist", "rows", "image_size"]
    for name, value in by_file.items():
        np.testing.assert_allclose(by_pixels[name], value, rtol=1e-5, err_msg=name)
    assert by_file["rows"].numpy().tolist() == [app.config.model.rows]
    assert by_file["image_size"].numpy().tolist() == [[80, 128]]
    mask = found["serving_mask"].function(image_bytes=files)["mask"]
    logits = app.forward(CameraImage.from_request(app.inputs[0], {"image_bytes": files}))["logits"]
    np.testing.assert_array_equal(mask, np.argmax(logits, -1))
    assert mask.dtype == tf.uint8
