"""Stereo matching as a whole: stages with a frozen teacher, what is refused, results, signatures."""

import json
import os
import signal
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from training import without_export

from appzoo import jobs
from appzoo.stereo_matching import writers
from appzoo.stereo_matching.app import StereoMatching
from appzoo.stereo_matching.config import StereoMatchingConfig
from appzoo.stereo_matching.inputs import inside
from appzoo.stereo_matching.synthetic import scene
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable, HostColumn
from easytransfer.errors import EasyTransferError, Interrupted
from easytransfer.image.maps import decode_map
from easytransfer.run.report import NullReporter
from easytransfer.train.checkpoint import load, resolve
from easytransfer.train.trainer import Trainer

SIZE, DISPARITIES = (32, 64), 16
MODEL = {"network": "tiny", "max_disparity": DISPARITIES, "image_size": SIZE}


def config_of(**sections):
    train = {"batch_size": 4, "num_epochs": 1, "learning_rate": 2e-3, "log_step_count_steps": 1}
    given = {"model": MODEL, "train": train, "occlusion": {"iterations": 2, "jump": 1.0, "stop_change": 0.0}}
    for name, values in sections.items():
        given[name] = {**given.get(name, {}), **values}
    return StereoMatchingConfig(model_name="stereo_matching", runtime={"deterministic": True}, **given)


def table_of(rows=12, seed=3):
    scenes = [scene(np.random.default_rng([seed, i]), *SIZE, DISPARITIES) for i in range(rows)]
    columns = {name: np.stack([getattr(s, name) for s in scenes]) for name in ("left", "right")}
    columns["truth"] = np.stack([s.disparity for s in scenes])
    columns["truth_visible"] = np.stack([s.visible for s in scenes]).astype(np.uint8)
    columns["size"] = np.tile(np.int32(SIZE), (rows, 1))
    columns["name"] = HostColumn.of([f"{i:06d}_10" for i in range(rows)])
    return EncodedTable(columns)


TABLE = table_of()


class Recorder(NullReporter):
    """Sends a signal to this process after a step."""

    stop_after = None

    def step(self, step, metrics):
        if step == self.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)


class Watched(StereoMatching):
    """Keeps the weights that every iteration begins with."""

    def _begin(self, number):
        found = super()._begin(number)
        self.seen = [*getattr(self, "seen", []), {v.name: v.numpy() for v in self.model.weights}]
        return found


def app_of(**sections):
    app = Watched(config_of(**sections))
    app.load_assets(None)
    app.on_train_table(TABLE)
    return app


def trainer_of(folder=None, **sections):
    app = app_of(**sections)
    return Trainer(app, app.config.train, app.config.runtime, folder, Recorder())


def fit(trainer):
    return trainer.fit(Batches(TABLE, 4, shuffle=True, seed=1), Batches(table_of(4, 9), 4, shuffle=False))


def of(part, values):
    return {name.partition(f"/{part}/")[2]: value for name, value in values.items() if f"/{part}/" in name}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An unbroken run of three stages of 3, 2 and 2 steps."""
    folder = tmp_path_factory.mktemp("whole")
    trainer = trainer_of(folder)
    return folder, trainer, fit(trainer)


# Stages ----------------------------------------------------------------------------------------------------------


def test_a_run_has_a_warm_start_and_iterations(whole):
    _, trainer, result = whole
    found = [(span.name, span.start, span.end) for span in result.stages]
    assert found == [("warm_start", 0, 3), ("iteration_1", 3, 5), ("iteration_2", 5, 7)]
    masks = trainer.task.state()["masks"]
    assert list(masks) == ["iteration_1", "iteration_2"]
    assert 0 < masks["iteration_1"]["hidden_share"] < 0.4 and 0 <= masks["iteration_2"]["changed_share"] < 1
    assert trainer.task.further_report(TABLE) == {"masks": masks}


def test_the_teacher_is_the_network_as_it_was_when_the_stage_began(whole):
    """Copied with its statistics when an iteration begins, and left alone in it."""
    _, trainer, _ = whole
    seen, end = trainer.task.seen, {v.name: v.numpy() for v in trainer.task.model.weights}
    assert len(seen) == 2
    for begun in seen:
        student, teacher = of("network", begun), of("teacher", begun)
        assert student.keys() == teacher.keys() and len(student) == 54
        for name, value in student.items():
            np.testing.assert_array_equal(teacher[name], value, err_msg=name)
    # The teacher of the last iteration is still that of its beginning, and the network went on.
    for name, value in of("teacher", end).items():
        np.testing.assert_array_equal(value, of("teacher", seen[1])[name], err_msg=name)
    assert any((value != of("network", end)[name]).any() for name, value in of("teacher", end).items())


@pytest.mark.slow
@pytest.mark.parametrize("at", [2, 3, 4, 5, 6])
def test_a_run_that_was_stopped_in_any_stage_ends_the_same(whole, tmp_path, at):
    """In the warm start, between two stages, or in an iteration."""
    folder, trainer, _ = whole
    broken = trainer_of(tmp_path)
    broken.reporter.stop_after = at
    with pytest.raises(Interrupted):
        fit(broken)
    resumed = trainer_of(tmp_path)
    fit(resumed)
    one, other = (load(resolve(path / "model.ckpt-last")) for path in (folder, tmp_path))
    assert one.weights.keys() == other.weights.keys() and len(one.weights) == 108
    for name, value in one.weights.items():
        np.testing.assert_array_equal(other.weights[name], value, err_msg=name)
    assert resumed.task.state() == trainer.task.state()


def test_a_mask_of_too_many_pixels_is_refused_with_one_line():
    app = app_of(occlusion={"most_hidden": 0.001})
    app.build_model()
    with pytest.raises(
        EasyTransferError, match=r"iteration_1 cannot begin: the network hides \d+% of the pix"
    ) as caught:
        app._begin(1)
    assert "\n" not in str(caught.value) and "train the warm start for longer" in str(caught.value)


def test_iterations_end_when_the_mask_stays():
    app = app_of(occlusion={"stop_change": 0.02, "most_hidden": 1.0})
    app.build_model()
    assert app._begin(1) is True
    # The network is still what the teacher is.
    assert app._begin(2) is False and app.state()["masks"]["iteration_2"]["changed_share"] == 0
    cost = app.model.network.matching.cost
    cost.kernel.assign(cost.kernel * 9)
    assert app._begin(2) is True and app.state()["masks"]["iteration_2"]["changed_share"] > 0.02


def test_variants_without_masks_in_training_have_one_stage():
    for use in ("none", "post"):
        assert [stage.name for stage in app_of(occlusion={"mask_use": use}).stages()] == ["warm_start"]


def test_micro_batches_have_the_losses_of_one_batch():
    """Every loss has its own weight, the teacher's masks included; normalisation by batch excepted."""
    app = app_of()
    app.build_model()
    app.model.copy_to_teacher()
    batch = {name: tf.constant(x) for name, x in TABLE.batch(np.arange(8)).items() if x.dtype != object}

    class Iteration:
        stage, stage_number, stage_total, training = "iteration_1", tf.constant(0), 10, True

    def losses(part):
        return app.losses(part, app.model(part, training=False), Iteration())

    whole = losses(batch)
    parts = [losses({name: x[at : at + 3] for name, x in batch.items()}) for at in (0, 3, 6)]
    assert list(whole) == ["photo", "photo_2", "photo_4", "photo_8", "smooth_x", "smooth_y", "fill"]
    for name, loss in whole.items():
        assert float(loss.weight) > 0
        for i in (0, 1):
            np.testing.assert_allclose(sum(float(part[name][i]) for part in parts), loss[i], rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_accumulated_batches_train_through_all_stages():
    result = fit(trainer_of(train={"num_accumulated_batches": 2}))
    assert result.steps == 2 + 1 + 1 and result.skipped_steps == 0


# Results ---------------------------------------------------------------------------------------------------------


def test_predictions_keep_names_and_sizes_and_fill_hidden_pixels(whole, tmp_path):
    app = whole[1].task
    size = np.int32([[30, 50], [32, 64]])
    batch = {name: x for name, x in TABLE.batch(np.arange(2)).items() if name in ("left", "right")}
    outputs = {
        n: x.numpy()
        for n, x in app.predict_step({**{n: tf.constant(x) for n, x in batch.items()}, "size": size}).items()
    }
    pixels, hidden = inside(size, SIZE).numpy(), outputs["occlusion"] > 0
    assert not outputs["disparity"][~pixels].any() and not hidden[~pixels].any() and hidden.any()
    np.testing.assert_array_equal(outputs["disparity"][~hidden], outputs["disparity_raw"][~hidden])
    assert (outputs["disparity"] != outputs["disparity_raw"])[hidden].any()
    encoded = EncodedTable({"size": size, "name": HostColumn.of(["000007_10", "x"])})
    rows = app.postprocess(outputs, encoded)
    assert list(rows) == list(app.output_columns())
    writers.write_archive(
        tmp_path / "x.zip", (dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True))
    )
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert sorted(archive.namelist()) == sorted(
            f"{folder}/{name}.png" for folder in ("disp_0", "colour", "occlusion") for name in ("000007_10", "x")
        )
        stored = decode_map(archive.read("disp_0/000007_10.png"), 10**6)
        assert stored.shape == (30, 50) and stored.min() >= 1
        assert (np.abs(stored / 256 - outputs["disparity"][0, 2:, :50]) <= 1 / 256).all()
        marks = decode_map(archive.read("occlusion/000007_10.png"), 10**6)
        np.testing.assert_array_equal(marks == 255, hidden[0, 2:, :50])


def test_signatures_on_arrays_answer_like_the_model(whole, tmp_path):
    app = whole[1].task
    app.save_assets(tmp_path)
    signatures = app.signatures(tmp_path)
    assert list(signatures) == ["serving_default", "predict_ids", "serving_arrays", "serving_depth"]
    left, right = (tf.constant(TABLE.columns[side][:2, 2:, :50]) for side in ("left", "right"))
    found = signatures["serving_arrays"].function(left=left, right=right)
    images = {side: np.zeros((2, *SIZE, 3), np.uint8) for side in ("left", "right")}
    for side, given in (("left", left), ("right", right)):
        images[side][:, 2:, :50] = given
    wanted = app.predict_step({**{n: tf.constant(x) for n, x in images.items()}, "size": tf.constant([[30, 50]] * 2)})
    for name in ("disparity", "disparity_raw", "occlusion"):
        np.testing.assert_allclose(found[name], wanted[name][:, 2:, :50], atol=1e-5, err_msg=name)
    focal, baseline = tf.constant([700.0, 350.0]), tf.constant([0.5, 0.5])
    depth = signatures["serving_depth"].function(left=left, right=right, focal_px=focal, baseline_m=baseline)["depth"]
    for row in range(2):
        far = float(focal[row]) * 0.5 / np.maximum(found["disparity"][row], 1 / 256)
        np.testing.assert_allclose(depth[row], far, rtol=1e-5)
    assert signatures["serving_arrays"].function(left=left[:0], right=right[:0])["disparity"].shape == (0, 30, 50)
    raw = signatures["serving_default"]
    files = raw.function(**{name: tf.constant(value) for name, value in raw.samples.items()})
    assert sorted(files) == ["colour_bytes", "disparity_bytes", "occlusion_bytes"]
    sizes = [decode_map(data, 10**6).shape for data in files["disparity_bytes"].numpy()]
    assert sizes == [(32, 64), (29, 59), (16, 64), (32, 32)]


def test_the_report_draws_the_worst_pairs_first(whole, tmp_path):
    app = whole[1].task
    app.target._columns = {"truth": "disparity"}
    outputs = {
        n: x.numpy()
        for n, x in app.predict_step(
            {n: tf.constant(x) for n, x in TABLE.batch(np.arange(12)).items() if n in app.specs()}
        ).items()
    }
    error = app.target._errors(TABLE, outputs)
    by_hand = np.abs(outputs["disparity"] - TABLE.columns["truth"]).mean(axis=(1, 2))
    np.testing.assert_allclose(error, by_hand, rtol=1e-5)
    assert app.write_pages(tmp_path, TABLE, outputs) == ["disparities.png"] and (tmp_path / "disparities.png").is_file()


@pytest.mark.slow
def test_pairs_without_true_disparities_train_and_are_measured_by_their_images(tmp_path):
    (tmp_path / "x.scenes").write_text(
        json.dumps({"pairs": 4, "seed": 1, "height": 32, "width": 64, "max_disparity": 16})
    )
    path = str(tmp_path / "x.scenes")
    config = config_of(data={"train_table": path, "eval_table": path}, occlusion={"mask_use": "post"})
    config = config.model_copy(update={"checkpoint_dir": str(tmp_path / "run")})
    with without_export():
        result = jobs.train(config)
    assert list(result["metrics"]) == ["photometric_error"] and 0 < result["metrics"]["photometric_error"] < 1
