"""AIFL: outfits of the bank, what simulated and unlabelled images have a part in, stages, generators of other runs."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file
from training import without_export

from appzoo import jobs
from appzoo.cli.reader import JobReader
from appzoo.person_reid.aifl.app import Aifl
from appzoo.person_reid.aifl.bank import OutfitBank
from appzoo.person_reid.aifl.figures import apparel_figures
from appzoo.person_reid.aifl.target import ApparelTarget
from appzoo.person_reid.config import AiflConfig
from appzoo.person_reid.synthetic import crop
from appzoo.person_reid.target import GALLERY, QUERY
from easytransfer.config.job import RuntimeConfig
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import open_table
from easytransfer.errors import ModelError
from easytransfer.image.files import data_text
from easytransfer.image.maps import encode_png
from easytransfer.layers.draws import RowDraws
from easytransfer.train.engine import Engine

SIZE = (16, 16)
SMOKE = "appzoo/person_reid/configs/smoke_aifl.yaml"


def table() -> EncodedTable:
    """Four persons with two images each, and two unlabelled images."""
    made = [crop(5, pid, 0, 0, image, SIZE) for pid in range(1, 6) for image in range(2)]
    columns = {"image": np.stack([image for image, _ in made]), "mask": np.stack([mask for _, mask in made])}
    columns |= {"pid": np.int32([1, 1, 2, 2, 3, 3, 4, 4, -1, -1]), "order": np.arange(10) * 3}
    columns |= {name: np.zeros(10, np.int32) for name in ("camera", "clothes", "role")}
    return EncodedTable(columns)


def app_of(rows: EncodedTable | None = None, **aifl) -> Aifl:
    config = AiflConfig(
        model={"network": "tiny", "image_size": list(SIZE), "images_per_identity": 2, "unlabelled_per_batch": 2},
        gan={"size": "tiny"},
        aifl=aifl,
        train={"batch_size": 10},
    )
    app = Aifl(config)
    app.load_assets(None)
    app.on_train_table(rows or table())
    app.build_model()
    return app


def test_every_outfit_but_the_own_one_is_drawn():
    bank, orders = OutfitBank(5, 1), np.array([2, 4, 6, 8, 11])
    bank.codes.assign(np.arange(5, dtype=np.float32)[:, None])
    rows = 4000
    own = np.random.default_rng(0).integers(0, 5, rows)
    draws = RowDraws(tf.constant([1, 2]), tf.constant(rows))
    found = bank.drawn(tf.constant(orders[own]), orders, draws).numpy()[:, 0].astype(int)
    assert not (found == own).any()
    for outfit in range(5):
        counts = np.bincount(found[own == outfit], minlength=5)
        others = np.delete(counts, outfit)
        assert counts[outfit] == 0 and others.min() > 0.8 * others.mean() and others.max() < 1.2 * others.mean()


def test_the_bank_has_the_codes_of_all_training_images_and_of_no_test_image_in_the_same_table():
    rows = table()
    rows.columns["role"][[3, 6]] = QUERY, GALLERY
    app = app_of(rows)
    app.fill_bank()
    trained = [0, 1, 2, 4, 5, 7, 8, 9]
    expected = app.model.gan({name: rows.columns[name][trained] for name in ("image", "mask")})["cloth_embedding"]
    np.testing.assert_allclose(app.model.bank.codes, expected, atol=1e-6)
    assert app.outfit_orders().tolist() == [3 * row for row in trained]


def step_of(app: Aifl, stage: int, batches: int = 1) -> tuple[Engine, dict[str, np.ndarray]]:
    train = app.config.train.model_copy(update={"num_accumulated_batches": batches})
    engine = Engine(app, train, RuntimeConfig(), 20, stage=app.stages()[stage])
    return engine, engine.facts([engine.run_step([table().batch(np.arange(10))] * batches)])


@pytest.mark.slow
@pytest.mark.parametrize(("share", "batches"), [(1.0, 2), (0.0, 1)])
def test_unlabelled_images_have_a_part_in_the_invariance_alone(share, batches):
    app = app_of(simulated_share=share)
    app.fill_bank()
    _, facts = step_of(app, 1, batches)
    twins = 2 if share else 1
    weights = {name: batches * value for name, value in weights_with(twins).items()}
    assert {name: facts[name][0] for name in weights} == weights


def weights_with(twins: int) -> dict[str, int]:
    """Weights of the losses of `table` where each image comes so many times."""
    return {"weight/identity": 8 * twins, "weight/triplet": 8 * twins, "weight/invariance": 10 * (twins - 1)}


def test_each_stage_leaves_the_networks_of_the_other_alone():
    app = app_of()
    before = {v.name: v.numpy() for v in app.model.weights}
    engine, facts = step_of(app, 0)
    assert set(engine.optimizers) == {"default", "generator", "critic"} and "loss/critic" in facts
    moved = {v.name for v in app.model.weights if not np.array_equal(before[v.name], v.numpy())}
    assert moved and all("reid/" not in name and "codes" not in name for name in moved)
    app.fill_bank()
    before = {v.name: v.numpy() for v in app.model.weights}
    _, facts = step_of(app, 1)
    moved = {v.name for v in app.model.weights if not np.array_equal(before[v.name], v.numpy())}
    assert moved and all("reid/" in name for name in moved)
    assert {name: facts[name][0] for name in weights_with(2)} == weights_with(2)


def test_twins_are_persons_in_other_outfits():
    app = app_of()
    app.fill_bank()
    batch = {name: tf.constant(value) for name, value in table().batch(np.arange(10)).items()}
    batch["image"] = tf.cast(batch["image"], tf.float32) / 255
    twins, taken = app.simulate(batch, RowDraws(tf.constant([1, 2]), tf.constant(10)))
    outside = batch["mask"].numpy() == 0
    assert float(taken) == 1 and twins.numpy()[outside].tobytes() == batch["image"].numpy()[outside].tobytes()
    assert (twins.numpy()[~outside] != batch["image"].numpy()[~outside]).mean() > 0.9


class Pictures:
    """A network whose vector is the mean colour of the image, and a generator that changes nothing, or all."""

    def __init__(self, keep: bool) -> None:
        self.keep = keep

    def embed(self, images):
        return tf.math.l2_normalize(tf.reduce_mean(images, axis=[1, 2]), -1)

    def masks(self, batch):
        return tf.zeros([*batch["image"].shape[:3], 2])

    def encoder(self, images, masks):
        return images

    def simulated(self, images, masks, codes):
        return images if self.keep else codes


def test_figures_of_a_generator_that_keeps_all_and_of_one_that_keeps_nothing():
    colours = np.eye(3, dtype=np.uint8)[[0, 0, 1, 1, 2, 2]] * 200
    encoded = EncodedTable(
        {"image": np.broadcast_to(colours[:, None, None], (6, 4, 4, 3)), "pid": np.int32([1, 1, 2, 2, 3, 3])}
    )
    assert apparel_figures(Pictures(True), Pictures(True), encoded) == {"invariance_ratio": 0, "identity_retention": 1}
    # Every second image becomes that of another person.
    found = apparel_figures(Pictures(False), Pictures(False), encoded)
    assert found["invariance_ratio"] == pytest.approx(0.5) and found["identity_retention"] == 0.5


def test_an_empty_cell_is_a_map_without_garments(tmp_path):
    image, mask = crop(5, 1, 0, 0, 0, SIZE)
    rows = [{"pid": 1, "camera": 0, "clothes": 0, "split": "train", "mask": cell}
            for cell in (data_text(encode_png(mask)), "", "no.png")]  # fmt: skip
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bad = BadRows("skip")
    schema = parse_schema("pid:int:1,camera:int:1,clothes:int:1,split:str:1,mask:str:1")
    (chunk,) = open_table(str(tmp_path / "t.jsonl"), schema=schema, bad_rows=bad).chunks()
    target = ApparelTarget(AiflConfig(model={"network": "tiny", "image_size": list(SIZE)}))
    found = target.encode(chunk, ()).columns["mask"]
    np.testing.assert_array_equal(found[0], mask)
    assert not found[1].any() and chunk.accepted.tolist() == [True, True, False]
    assert image.shape == (*SIZE, 3) and bad.reasons == {"cannot read the image file": 1}


# Runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_repository(repository, monkeypatch):
    monkeypatch.chdir(repository)


def config_of(run: Path, **values) -> AiflConfig:
    short = {"checkpoint_dir": run, "runtime.deterministic": "true", "train.log_step_count_steps": 1,
             "train.num_epochs": 1, "aifl.gan_epochs": 1}  # fmt: skip
    words = [f"--set={name}={value}" for name, value in {**short, **values}.items()]
    return JobReader("train", [f"--config={SMOKE}", *words], []).read().config


def weights_of(run: Path) -> dict[str, np.ndarray]:
    last = json.loads((run / "checkpoint.json").read_text())["last"]
    return load_file(run / last / "weights.safetensors")


# Kills itself at the step that is its last argument, as the system would: nothing is saved then.
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
from test_person_reid_aifl import config_of
from training import without_export
from appzoo import jobs
from easytransfer.run.report import RunReporter
plain, last = RunReporter.step, int(sys.argv[3])
def step(self, number, metrics):
    plain(self, number, metrics)
    if number == last:
        os.kill(os.getpid(), signal.SIGKILL)
RunReporter.step = step
with without_export():
    jobs.train(config_of(Path(sys.argv[2]), **{"train.save_checkpoint_steps": 2}))
"""


@pytest.mark.slow
def test_a_run_killed_ten_times_in_both_stages_ends_with_the_weights_of_an_unbroken_one(in_repository, tmp_path):
    stops = sorted(np.random.default_rng(0).choice(np.arange(1, 16), 10, replace=False).tolist())
    killed = tmp_path / "killed"
    with without_export():
        jobs.train(config_of(tmp_path / "unbroken"))
        for stop in stops:
            words = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(killed), str(stop)]
            result = subprocess.run(words, capture_output=True, text=True)
            assert result.returncode == -signal.SIGKILL, result.stderr
        result = jobs.train(config_of(killed, **{"train.save_checkpoint_steps": 2}))
    assert result["steps"] == 16
    one, other = weights_of(tmp_path / "unbroken"), weights_of(killed)
    assert one.keys() == other.keys() and [name for name in one if not np.array_equal(one[name], other[name])] == []


@pytest.mark.slow
def test_a_generator_of_another_run_is_used_and_not_changed(in_repository, tmp_path, needed_runs):
    path = Path("appzoo/person_reid/configs/smoke_as_gan.yaml")
    gan, run = tmp_path / "gan", tmp_path / "run"
    with without_export():
        words = [f"--config={path}", f"--set=checkpoint_dir={gan}", "--set=train.num_epochs=1"]
        jobs.train(JobReader("train", words, []).read().config)
        before = weights_of(gan)
        jobs.train(config_of(run, **{"aifl.generator": gan}))
        with pytest.raises(
            ModelError, match=r"takes images of .*32, 16.* set model.image_size and gan.masks as it has"
        ):
            jobs.train(config_of(tmp_path / "other", **{"aifl.generator": gan, "model.image_size": "64,32"}))
        with pytest.raises(ModelError, match="is no run of AS-GAN"):
            jobs.train(config_of(tmp_path / "other", **{"aifl.generator": run}))
    found = weights_of(run)
    assert "codes" in found and not any("critic" in name for name in found)
    after = weights_of(gan)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert json.loads((run / "run.json").read_text())["frozen"]["generator"]["model_name"] == "person_reid_as_gan"
    found = json.loads((run / "report.json").read_text())
    assert {"invariance_ratio", "identity_retention"} == found["apparel"].keys()
    assert found["pages"] == ["rankings.png", "outfits.png"]
