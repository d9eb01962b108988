"""The players of AS-GAN, its losses and figures against NumPy formulas; what compositing leaves alone, bit by bit."""

import numpy as np
import pytest
import tensorflow as tf

from appzoo.person_reid.config import AsGanConfig, GanSettings
from appzoo.person_reid.gan.app import AsGan
from appzoo.person_reid.gan.masks import MaskHead, band, of_labels
from appzoo.person_reid.gan.model import ApparelGan, region_colours
from appzoo.person_reid.gan.networks import SIZES, ClothEncoder, Film, PatchCritic, mean_scores
from appzoo.person_reid.gan.training import GanEvaluator, gan_losses
from appzoo.person_reid.synthetic import crop
from easytransfer.config.job import RuntimeConfig
from easytransfer.train.engine import Engine

SIZE = (32, 16)
TINY = SIZES["tiny"]


def persons(rows: int) -> dict[str, np.ndarray]:
    made = [crop(3, pid, 0, 0, 0, SIZE) for pid in range(1, rows + 1)]
    return {"image": np.stack([image for image, _ in made]), "mask": np.stack([mask for _, mask in made])}


def unit_batch(rows: int) -> dict[str, tf.Tensor]:
    found = persons(rows)
    return {"image": tf.constant(found["image"] / np.float32(255)), "mask": tf.constant(found["mask"]),
            "example_weight": tf.ones([rows])}  # fmt: skip


@pytest.fixture(scope="module")
def gan() -> ApparelGan:
    return ApparelGan(GanSettings(size="tiny"), SIZE, seed=0)


def test_pixels_outside_of_the_garments_are_bit_identical(gan):
    batch = unit_batch(4)
    masks = of_labels(batch["mask"])
    codes = tf.random.normal([4, TINY.code])
    drawn, images = gan.simulated(batch["image"], masks, codes).numpy(), batch["image"].numpy()
    outside = batch["mask"].numpy() == 0
    assert drawn[outside].tobytes() == images[outside].tobytes()
    assert (drawn[~outside] != images[~outside]).mean() > 0.99
    # Where a mask is soft it is a mixture.
    soft = 0.5 * masks
    inside = ~outside
    whole = gan.generator._draw(
        gan.generator._seen(batch["image"], soft, tf.reduce_sum(soft, -1, keepdims=True)), codes
    )
    mixed = 0.5 * whole.numpy()[inside] + 0.5 * images[inside]
    np.testing.assert_allclose(gan.simulated(batch["image"], soft, codes).numpy()[inside], mixed, atol=1e-6)


def test_no_colour_of_a_garment_enters_the_generator(gan):
    batch = unit_batch(2)
    masks = of_labels(batch["mask"])
    cloth = tf.reduce_sum(masks, -1, keepdims=True)
    seen = gan.generator._seen(batch["image"], masks, cloth).numpy()
    image, inside = batch["image"].numpy(), cloth.numpy()
    light = (image * [0.299, 0.587, 0.114]).sum(-1)
    expected = np.zeros((2, *SIZE))
    for row in range(2):
        for y, x in zip(*np.nonzero(inside[row, ..., 0]), strict=True):
            part = np.s_[row, max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5]
            garment = inside[..., 0][part]
            mean = (light[part] * garment).sum() / garment.sum()
            expected[row, y, x] = 0.3 * (light[row, y, x] - mean)
    np.testing.assert_allclose(seen[..., 3], expected, atol=1e-4)
    np.testing.assert_array_equal(seen[..., :3], image * (1 - inside))
    np.testing.assert_array_equal(seen[..., 4:6], masks)
    np.testing.assert_array_equal(seen[..., 6], 1 - inside[..., 0])
    assert not seen[..., 7].any() and seen.shape[-1] == 8
    # One colour in place of another, all over the garments, is not to be seen.
    painted = [image * (1 - inside) + inside * np.float32(colour) for colour in ([0.2, 0.7, 0.1], [0.9, 0.1, 0.4])]
    codes = tf.random.normal([2, TINY.code])
    drawn = [gan.simulated(tf.constant(each), masks, codes).numpy() for each in painted]
    np.testing.assert_allclose(*drawn, atol=1e-3)


def test_film_is_the_formula():
    layer = Film(5, "film", seed=1)
    values, codes = np.random.default_rng(0).normal(size=(2, 3, 4, 5)), np.random.default_rng(1).normal(size=(2, 7))
    found = layer(tf.constant(values, tf.float32), tf.constant(codes, tf.float32)).numpy()
    both = codes @ layer.dense.kernel.numpy() + layer.dense.bias.numpy()
    expected = values * (1 + both[:, None, None, :5]) + both[:, None, None, 5:]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_encoder_sees_garments_only():
    encoder, batch = ClothEncoder(TINY, 0), unit_batch(2)
    masks = of_labels(batch["mask"])
    other = tf.where(batch["mask"][..., None] == 0, 1 - batch["image"], batch["image"])
    np.testing.assert_array_equal(encoder(batch["image"], masks), encoder(other, masks))
    assert encoder(batch["image"], masks).shape == (2, 16)
    # Upper and lower are told apart.
    exchanged = encoder(batch["image"], masks[..., ::-1])
    assert np.abs(exchanged - encoder(batch["image"], masks)).max() > 1e-3


def test_the_critic_looks_at_several_resolutions():
    critic = PatchCritic(SIZES["full"], 0)
    scores = critic(tf.random.uniform([2, 64, 32, 3]))
    assert [tuple(each.shape) for each in scores] == [(2, 4, 2), (2, 2, 1), (2, 1, 1)]
    expected = np.mean([each.numpy().mean(axis=(1, 2)) for each in scores], axis=0)
    np.testing.assert_allclose(mean_scores(scores), expected, atol=1e-6)


@pytest.mark.parametrize("masks", ["column", "band"])
def test_losses_are_those_of_the_sheet(masks):
    settings = GanSettings(size="tiny", masks=masks)
    gan, batch = ApparelGan(settings, SIZE, seed=2), unit_batch(4)
    batch["mask"] = tf.where(tf.range(4)[:, None, None] == 1, tf.zeros_like(batch["mask"]), batch["mask"])
    weights = np.float32([1, 1, 0, 1])
    batch["example_weight"] = tf.constant(weights)
    found = gan_losses(gan, batch, gan.training_terms(batch))
    x, m = batch["image"].numpy(), gan.masks(batch).numpy()
    e = gan.encoder(batch["image"], m).numpy()
    target, target_mask, e_t = x[[2, 3, 0, 1]], m[[2, 3, 0, 1]], e[[2, 3, 0, 1]]
    x_r, x_s = gan.simulated(x, m, e).numpy(), gan.simulated(x, m, e_t).numpy()
    back = gan.simulated(x_s, m, e).numpy()
    area = (m.sum(-1).mean((1, 2)) * weights).sum() / 3
    rows = lambda values: (values.reshape(4, -1).mean(1) * weights).sum() / 3  # noqa: E731
    expected = {
        "reconstruction": 5 * rows(abs(x_r - x)) / area,
        "cycle": 2 * rows(abs(back - x)) / area,
        "embedding": rows(abs(gan.encoder(x_s, m).numpy() - e_t)),
        "adversarial": -0.1 * rows(gan.critic(x_s)[0].numpy()),
        "critic": rows(np.maximum(1 - gan.critic(x)[0], 0)) + rows(np.maximum(1 + gan.critic(x_s)[0], 0)),
    }
    for part, name in enumerate(("style_upper", "style_lower")):
        errors = []
        for row in range(4):
            here, there = m[row, ..., part], target_mask[row, ..., part]
            if weights[row] and here.any() and there.any():
                means = [(image * mask[..., None]).sum((0, 1)) / mask.sum()
                         for image, mask in ((x_s[row], here), (target[row], there))]  # fmt: skip
                errors.append(abs(means[0] - means[1]).mean())
        # The person without garments has no pair, nor has the one who is paired with them.
        assert len(errors) == (1 if masks == "column" else 3)
        expected[name] = 2 * np.mean(errors)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name].sum / found[name].weight) == pytest.approx(value, abs=1e-5), name


def test_the_band_is_where_garments_usually_are():
    found = band((100, 50))
    rows, columns = found[..., 0].any(1).nonzero()[0], found[..., 0].any(0).nonzero()[0]
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (18, 54, 10, 39)
    assert (found[..., 1].any(1).nonzero()[0][[0, -1]] == [55, 89]).all() and found.sum(-1).max() == 1


def test_the_mask_head_is_penalised_by_colours_area_and_outlines():
    head, batch = MaskHead(SIZE, 0), unit_batch(3)
    masks = head(batch["image"]).numpy()
    assert masks.min() >= 0 and masks.sum(-1).max() <= 1 + 1e-6
    found = head.penalty(batch["image"], tf.constant(masks), 0.25, 0.1, 0.5).numpy()
    image = batch["image"].numpy()
    for row in range(3):
        parts = np.concatenate([masks[row], 1 - masks[row].sum(-1, keepdims=True)], -1)
        spread = 0.0
        for part in range(3):
            share = parts[..., part : part + 1]
            mean = (image[row] * share).sum((0, 1)) / share.sum()
            spread += (share[..., 0] * ((image[row] - mean) ** 2).sum(-1)).mean()
        off = max(abs(masks[row].sum(-1).mean() - 0.25) - 0.1, 0)
        outline = abs(np.diff(masks[row], axis=0)).mean() + abs(np.diff(masks[row], axis=1)).mean()
        assert found[row] == pytest.approx(spread + off + 0.5 * outline, abs=1e-5)


def test_with_masks_that_are_learned_the_generator_sees_nothing_of_the_own_clothes():
    batch = unit_batch(3)
    gan = ApparelGan(GanSettings(size="tiny", masks="learned", shading=0.0), SIZE, 0)
    likely = gan.mask_head(batch["image"]).numpy()
    masks, parts = gan.masks(batch).numpy(), np.concatenate([1 - likely.sum(-1, keepdims=True), likely], -1)
    np.testing.assert_array_equal(masks, np.eye(3)[parts.argmax(-1)][..., 1:])
    inside = masks.sum(-1) == 1
    assert 0.3 < inside.mean() < 0.6
    seen = gan.generator._seen(batch["image"], masks, masks.sum(-1, keepdims=True)).numpy()
    assert (seen[..., :3][inside] == 0).all()
    np.testing.assert_array_equal(seen[..., :3][~inside], batch["image"].numpy()[~inside])


def test_region_colours_are_means_over_garments():
    batch = unit_batch(2)
    colours, present = region_colours(batch["image"], of_labels(batch["mask"]))
    for row in range(2):
        for part in (1, 2):
            inside = batch["mask"].numpy()[row] == part
            np.testing.assert_allclose(colours[row, part - 1], batch["image"].numpy()[row][inside].mean(0), atol=1e-5)
    assert present.numpy().min() == 1


def app_of(masks: str = "column", rows: int = 4) -> AsGan:
    config = AsGanConfig(
        model={"image_size": list(SIZE), "crop_padding": 1},
        gan={"size": "tiny", "masks": masks, "learning_rate": 2e-3, "critic_learning_rate": 4e-4},
        train={"batch_size": rows},
    )
    app = AsGan(config)
    app.load_parts(None)
    app.build_model()
    return app


def batches(rows: int) -> dict[str, np.ndarray]:
    return {**persons(rows), "example_weight": np.ones(rows, np.float32)}


@pytest.mark.parametrize("masks", ["column", pytest.param("learned", marks=pytest.mark.slow)])
def test_steps_train_both_players_and_read_no_label(masks):
    app = app_of(masks)
    engine = Engine(app, app.config.train, RuntimeConfig(), 20)
    assert set(engine.optimizers) == {"generator", "critic"}
    variables = [v.ref() for each in engine.optimizers.values() for v in each.variables_updated]
    assert set(variables) == {v.ref() for v in app.model.trainable_variables} and len(variables) == len(set(variables))
    assert [float(engine.schedules[name](0)) for name in ("generator", "critic")] == pytest.approx([2e-3, 4e-4])
    before = {v.name: v.numpy() for v in app.model.trainable_variables}
    batch = batches(4) if masks == "column" else {k: v for k, v in batches(4).items() if k != "mask"}
    facts = [engine.facts([engine.run_step([batch])]) for _ in range(2)]
    assert "loss/critic" in facts[0] and ("loss/mask" in facts[0]) == (masks == "learned")
    unmoved = [v.name for v in app.model.trainable_variables if np.array_equal(before[v.name], v.numpy())]
    # While no hinge is closed, real and drawn images pull at the last bias of the critic alike.
    assert set(unmoved) <= {"critic/scale0_score/bias:0"}


def test_figures_do_not_depend_on_the_batch_and_add_up_over_workers():
    app = app_of(rows=6)
    whole = batches(6)
    outputs = {name: value.numpy() for name, value in app.forward(whole).items()}
    one, parts = GanEvaluator(), [GanEvaluator(), GanEvaluator()]
    one.update(whole, outputs)
    for part, rows in zip(parts, ([0, 1], [2, 3, 4, 5]), strict=True):
        some = {name: value[rows] for name, value in whole.items()}
        part.update(some, {name: value.numpy() for name, value in app.forward(some).items()})
    parts[0].merge(parts[1].state())
    found = one.result()
    assert parts[0].result() == pytest.approx(found, abs=1e-5)
    assert found["outside_change"] == 0 and 0 <= found["followed"] <= 1
    assert outputs["regions"].max() <= 2
    x, m = whole["image"] / np.float32(255), of_labels(tf.constant(whole["mask"]))
    again = app.model.simulated(x, m, app.model.encoder(x, m)).numpy()
    expected = abs(again - x).mean() / m.numpy().sum(-1).mean()
    assert found["reconstruction_error"] == pytest.approx(expected, rel=1e-4)


def test_images_that_cannot_be_halved_twice_and_masks_from_nowhere_are_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        AsGanConfig(model={"image_size": [30, 16]})
    with pytest.raises(ValueError, match="needs the column data.mask_name"):
        AsGanConfig(data={"mask_name": None})
    assert AsGanConfig(data={"mask_name": None}, gan={"masks": "band"}).data.label_name is None
