"""Crops, flips, patches, mixup and views against NumPy, and their determinism over steps, workers and batches."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from easytransfer.image import geometry, mixing, patches, policies
from easytransfer.image.augment import Augmentation
from easytransfer.image.settings import AugmentSettings
from easytransfer.layers.draws import RowDraws

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (6, 7, 9, 3)).astype(np.uint8)
SEED = tf.constant([11, 12])
ALL = AugmentSettings(
    crop_padding=2, policy="rand_augment", cutout_size=4, erase_probability=0.5, erase_area=[0.1, 0.2], mixup_alpha=0.2
)


class Given(RowDraws):
    """Numbers of the test's own."""

    def __init__(self, *numbers):
        super().__init__(SEED, tf.constant(len(numbers[0])))
        self.numbers = list(numbers)

    def uniform(self, columns):
        found = tf.constant(np.array(self.numbers.pop(0), np.float32))
        assert found.shape[1] == columns
        return found


def draws(rows: int = len(IMAGES), seed=SEED) -> RowDraws:
    return RowDraws(seed, tf.constant(rows))


def test_crops_and_flips_equal_numpy():
    padding = 2
    numbers = RANDOM.random((6, 3))
    numbers[:2] = [[0, 0.999, 0.2], [0.5, 0.5, 0.9]]
    found = geometry.crop_and_flip(IMAGES, Given(numbers), padding, True).numpy()
    for image, (down, right, flip), result in zip(IMAGES, numbers, found, strict=True):
        padded = np.pad(image, [[padding] * 2, [padding] * 2, [0, 0]])
        top, left = int(down * 5), int(right * 5)
        crop = padded[top : top + 7, left : left + 9]
        np.testing.assert_array_equal(result, crop[:, ::-1] if flip < 0.5 else crop)


def test_every_crop_is_equally_likely():
    image = np.zeros((4000, 3, 3, 1), np.uint8)
    image[:, 1, 1] = 1
    found = geometry.crop_and_flip(image, draws(4000), 1, False).numpy()[..., 0]
    np.testing.assert_allclose(found.mean(axis=0), 1 / 9, atol=5 * np.sqrt(8 / 81 / 4000))


def test_cutout_equals_numpy():
    numbers = np.array([[0.0, 0.0], [0.99, 0.99], [0.5, 0.3]], np.float32)
    images = IMAGES[:3].astype(np.float32)
    found = patches.cutout(images, Given(numbers), 4, [1.0, 2.0, 3.0]).numpy()
    for image, (v, u), result in zip(images, numbers, found, strict=True):
        y, x = int(v * 7), int(u * 9)
        image[max(y - 2, 0) : y + 2, max(x - 2, 0) : x + 2] = [1, 2, 3]
        np.testing.assert_array_equal(result, image)


def test_random_erasing_equals_numpy_and_keeps_its_share():
    numbers = RANDOM.random((6, 5)).astype(np.float32)
    numbers[:, 0] = [0.1, 0.6, 0.2, 0.3, 0.4, 0.49]
    images = IMAGES.astype(np.float32)
    found = patches.random_erase(images, Given(numbers), 0.5, [0.1, 0.4], [0.5, 2.0], [0.0, 0.5, 1.0]).numpy()
    for image, (chance, a, r, v, u), result in zip(images, numbers, found, strict=True):
        area, ratio = (0.1 + a * 0.3) * 63, np.exp(np.log(0.5) + r * np.log(4))
        tall, wide = min(round(np.sqrt(area * ratio)), 7), min(round(np.sqrt(area / ratio)), 9)
        top, left = int(v * (7 - tall + 1)), int(u * (9 - wide + 1))
        if chance < 0.5:
            image[top : top + tall, left : left + wide] = [0, 0.5, 1]
        np.testing.assert_array_equal(result, image)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_mixup_shares_are_quantiles_of_the_beta_distribution(alpha):
    probability = np.concatenate([np.linspace(0.001, 0.999, 41)]).astype(np.float32)
    found = mixing.symmetric_beta_quantile(alpha, tf.constant(probability)).numpy()
    np.testing.assert_allclose(found, scipy.stats.beta.ppf(probability.astype(np.float64), alpha, alpha), atol=2e-6)


def test_mix_pairs_each_row_with_one_partner():
    partners = mixing.draw_partners(draws()).numpy()
    assert sorted(partners) == list(range(6))
    values = RANDOM.random((6, 2)).astype(np.float32)
    found = mixing.mix(tf.constant(values), partners, tf.constant(0.3)).numpy()
    np.testing.assert_allclose(found, 0.3 * values + 0.7 * values[partners], rtol=1e-6)


def test_without_augmentation_images_are_only_scaled():
    nothing = Augmentation(AugmentSettings(crop_padding=0, horizontal_flip=False), fill=[0.5] * 3)
    np.testing.assert_allclose(nothing(IMAGES, draws()).numpy(), IMAGES / 255, rtol=1e-6)


def test_the_same_seed_repeats_and_another_step_does_not():
    change = Augmentation(ALL, fill=[0.5] * 3)
    compiled = tf.function(lambda images, seed: change(images, RowDraws(seed, tf.shape(images)[0])))
    first = change(IMAGES, draws()).numpy()
    np.testing.assert_array_equal(first, compiled(IMAGES, SEED).numpy())
    assert np.abs(first - change(IMAGES, draws(seed=tf.constant([11, 13]))).numpy()).max() > 0.1


@pytest.mark.parametrize("workers", [2, 3])
def test_several_workers_see_what_one_would(workers):
    change = Augmentation(ALL, fill=[0.5] * 3)
    alone = change(IMAGES, draws()).numpy()
    for rank in range(workers):
        share = IMAGES[rank::workers]
        found = change(share, RowDraws(SEED, tf.constant(len(share)), tf.constant(rank), workers))
        np.testing.assert_array_equal(found.numpy(), alone[rank::workers])


@pytest.mark.parametrize("compiled", [False, True])
def test_numbers_of_a_row_do_not_depend_on_how_many_rows_there_are(compiled):
    """The last batch of an epoch is filled up where several workers share it, and not where one has it alone."""

    def numbers(rows, columns):
        return RowDraws(SEED, rows).uniform(columns)

    drawn = [tf.function(lambda r=rows: numbers(r, 5), jit_compile=compiled)().numpy() for rows in (5, 6, 64)]
    np.testing.assert_array_equal(drawn[0], drawn[1][:5])
    np.testing.assert_array_equal(drawn[0], drawn[2][:5])


@pytest.mark.parametrize("seed", [[11, 12], [0, 0], [-1, 3], [5, -7], [2**31 - 1, -(2**31)]])
def test_numbers_are_the_same_with_and_without_xla(seed):
    """TensorFlow and XLA make other fractions of the same random bits."""

    def numbers(seed, rows):
        source = RowDraws(seed, tf.shape(rows)[0])
        return tf.concat([tf.reshape(source.uniform(3), [-1]), [source.shared()], source.uniform(1)[:, 0]], axis=0)

    plain, compiled = (
        tf.function(numbers, jit_compile=xla)(tf.constant(seed), tf.zeros([50])).numpy() for xla in (None, True)
    )
    np.testing.assert_array_equal(plain, compiled)


def test_numbers_are_uniform():
    found = draws(50_000).uniform(2).numpy()
    assert found.min() >= 0 and found.max() < 1
    for column in found.T:
        assert scipy.stats.kstest(column, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(found.T)[0, 1]) < 0.02


FLOATS = (IMAGES / 255).astype(np.float32)
PARTS = {
    "crop and flip": (IMAGES, lambda images, source: geometry.crop_and_flip(images, source, 2, True)),
    "cutout": (FLOATS, lambda images, source: patches.cutout(images, source, 4, [0.1, 0.2, 0.3])),
    "erase": (FLOATS, lambda i, source: patches.random_erase(i, source, 0.5, [0.1, 0.2], [0.5, 2.0], [0.1, 0.2, 0.3])),
    "auto_augment": (IMAGES, policies.auto_augment),
    "rand_augment": (IMAGES, lambda images, source: policies.rand_augment(images, source, 1, 5.0)),
    "partners": (IMAGES, lambda images, source: mixing.draw_partners(source)),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_compiled_with_xla_gives_the_same(part):
    images, change = PARTS[part]

    def run(images, seed):
        return tf.cast(change(images, RowDraws(seed, tf.shape(images)[0])), tf.float32)

    plain, compiled = (tf.function(run, jit_compile=xla)(images, SEED).numpy() for xla in (None, True))
    # A fused multiplication may cut a value of 255 one level lower (`auto_contrast`).
    np.testing.assert_allclose(plain, compiled, atol=1 if "augment" in part else 0)
    assert not np.array_equal(plain, images)


def test_views_differ_and_repeat():
    change = Augmentation(ALL, fill=[0.5] * 3)
    found = change.views(tf.constant(IMAGES), draws(), 3).numpy()
    assert found.shape == (6, 3, 7, 9, 3) and found.min() >= 0 and found.max() <= 1
    np.testing.assert_array_equal(found[:, 0], change(IMAGES, draws()).numpy())
    assert all(np.abs(found[:, i] - found[:, j]).mean() > 0.01 for i, j in [(0, 1), (0, 2), (1, 2)])
    np.testing.assert_array_equal(found, change.views(tf.constant(IMAGES), draws(), 3).numpy())


@pytest.mark.slow  # minutes of compiling
def test_all_of_it_compiles_with_xla():
    change = Augmentation(ALL.model_copy(update={"policy": "auto_augment"}), fill=[0.5] * 3)

    def run(images, seed):
        source = RowDraws(seed, tf.shape(images)[0])
        changed = change(images, source)
        return mixing.mix(changed, mixing.draw_partners(source), mixing.draw_share(source, 0.2))

    plain, compiled = (tf.function(run, jit_compile=xla)(IMAGES, SEED).numpy() for xla in (None, True))
    # A fused multiplication may cut a value one level lower.
    assert np.abs(plain - compiled).max() <= 1.5 / 255


@pytest.mark.parametrize("bad", [{"erase_area": [0.5, 0.1]}, {"erase_aspect": [0.0, 1.0]}, {"rand_magnitude": 11}])
def test_settings_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        AugmentSettings(**bad)
