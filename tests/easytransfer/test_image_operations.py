"""Operations of AutoAugment and RandAugment against Pillow, to the last bit, and the policies against their tables."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from easytransfer.image import policies
from easytransfer.image.policies import CIFAR10_POLICY, OPERATIONS, RAND_OPERATIONS
from easytransfer.layers.draws import RowDraws

SIZE = (15, 20)


def pictures(channels: int) -> np.ndarray:
    """Noise, a gradient, few values, one value, and a dark picture with one bright pixel."""
    random = np.random.default_rng(3)
    noise = random.integers(0, 256, (*SIZE, channels))
    slope = np.broadcast_to(np.linspace(30, 200, SIZE[1])[None, :, None], (*SIZE, channels))
    few = random.choice([10, 90, 91], (*SIZE, channels), p=[0.7, 0.2, 0.1])
    spot = np.full((*SIZE, channels), 7)
    spot[4, 5] = 250
    return np.stack([noise, slope, few, np.full((*SIZE, channels), 77), spot]).astype(np.uint8)


def shifted(picture: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    fill = 128 if picture.mode == "L" else (128,) * 3
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, fillcolor=fill)


# What Pillow calls each operation.
PILLOW = {
    "identity": lambda p, a: p,
    "auto_contrast": lambda p, a: ImageOps.autocontrast(p),
    "equalize": lambda p, a: ImageOps.equalize(p),
    "invert": lambda p, a: ImageOps.invert(p),
    "posterize": lambda p, a: ImageOps.posterize(p, int(a)),
    "solarize": lambda p, a: ImageOps.solarize(p, a),
    "brightness": lambda p, a: ImageEnhance.Brightness(p).enhance(a),
    "contrast": lambda p, a: ImageEnhance.Contrast(p).enhance(a),
    "color": lambda p, a: ImageEnhance.Color(p).enhance(a),
    "sharpness": lambda p, a: ImageEnhance.Sharpness(p).enhance(a),
    "rotate": lambda p, a: p.rotate(a, fillcolor=128 if p.mode == "L" else (128,) * 3),
    "shear_x": lambda p, a: shifted(p, (1, a, 0, 0, 1, 0)),
    "shear_y": lambda p, a: shifted(p, (1, 0, 0, a, 1, 0)),
    "translate_x": lambda p, a: shifted(p, (1, 0, a, 0, 1, 0)),
    "translate_y": lambda p, a: shifted(p, (1, 0, 0, 0, 1, a)),
}
FACTORS = [0.1, 0.4, 0.73, 1.0, 1.25, 1.9]
AMOUNTS = {
    **dict.fromkeys(("identity", "auto_contrast", "equalize", "invert"), [0.0]),
    "posterize": [4, 5, 6, 7, 8],
    "solarize": [0.0, 28.4, 128.0, 256.0],
    **dict.fromkeys(("brightness", "contrast", "color", "sharpness"), FACTORS),
    "rotate": [-30.0, -7.5, 3.25, 20.0, 30.0],
    **dict.fromkeys(("shear_x", "shear_y"), [-0.3, -0.1, 0.05, 0.3]),
    **dict.fromkeys(("translate_x", "translate_y"), [-9, -1, 4, 7]),
}


@tf.function(autograph=False)
def operate(images, operation, amount):
    return policies.operate(images, operation, amount)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_equals_pillow(name, channels):
    images = pictures(channels)
    for amount in AMOUNTS[name]:
        # Pillow takes factors as 32-bit floats.
        amount = float(np.float32(amount))
        expected = []
        for image in images:
            picture = Image.fromarray(image[..., 0] if channels == 1 else image)
            expected.append(np.asarray(PILLOW[name](picture, amount)).reshape(image.shape))
        count = len(images)
        found = operate(images, tf.fill([count], OPERATIONS.index(name)), tf.fill([count], tf.constant(amount))).numpy()
        np.testing.assert_array_equal(found, np.stack(expected), err_msg=f"{name} {amount}")


def test_every_image_of_a_batch_has_its_own_operation():
    image = pictures(3)[0]
    images, numbers = np.repeat(image[None], len(OPERATIONS), axis=0), np.arange(len(OPERATIONS))
    amounts = np.array([AMOUNTS[name][-1] for name in OPERATIONS], np.float32)
    found = operate(images, tf.constant(numbers, tf.int32), amounts).numpy()
    for number, name in enumerate(OPERATIONS):
        expected = np.asarray(PILLOW[name](Image.fromarray(image), float(amounts[number])))
        np.testing.assert_array_equal(found[number], expected, err_msg=name)


def test_strengths_are_those_of_the_papers_table():
    cases = [
        ("posterize", 1.0, False, 4),
        ("posterize", 0.0, False, 8),
        ("solarize", 1.0, False, 0),
        ("solarize", 0.25, True, 192),
        ("brightness", 1.0, True, 0.1),
        ("color", 0.5, False, 1.45),
        ("rotate", 1.0, True, -30),
        ("shear_y", 0.5, True, -0.15),
        ("translate_x", 1.0, False, round(150 / 331 * 20)),
        ("translate_y", 1.0, True, -round(150 / 331 * 15)),
        ("equalize", 0.7, True, 0),
    ]
    operation = tf.constant([OPERATIONS.index(name) for name, *_ in cases])
    level = tf.constant([level for _, level, _, _ in cases])
    negative = tf.constant([negative for _, _, negative, _ in cases])
    found = policies.strength(operation, level, negative, SIZE).numpy()
    np.testing.assert_allclose(found, [expected for *_, expected in cases], rtol=1e-6)


def recorded(monkeypatch, run) -> list[tuple[np.ndarray, np.ndarray]]:
    """The operations and amounts that a policy gives the rows of its batch, layer by layer."""
    calls = []

    def note(images, operation, amount):
        calls.append((operation.numpy(), amount.numpy()))
        return images

    monkeypatch.setattr(policies, "operate", note)
    run()
    return calls


def test_auto_augment_takes_each_pair_and_chance_as_the_policy_says(monkeypatch):
    rows = 20000
    images = tf.zeros([rows, 2, 2, 1], tf.uint8)
    calls = recorded(
        monkeypatch, lambda: policies.auto_augment(images, RowDraws(tf.constant([5, 6]), tf.constant(rows)))
    )
    assert len(calls) == 2
    for position, (operation, _) in enumerate(calls):
        expected = np.zeros(len(OPERATIONS))
        for pair in CIFAR10_POLICY:
            name, chance, _ = pair[position]
            expected[OPERATIONS.index(name)] += chance / len(CIFAR10_POLICY)
        expected[OPERATIONS.index("identity")] = 1 - expected.sum()
        share = np.bincount(operation, minlength=len(OPERATIONS)) / rows
        # Five deviations of a share of 1/2; a wrong probability of one pair would move it by 0.004 at least.
        assert np.abs(share - expected).max() < 5 * 0.5 / np.sqrt(rows)
    assert len(CIFAR10_POLICY) == 25


def test_rand_augment_chooses_evenly_with_one_magnitude(monkeypatch):
    rows = 14000
    images = tf.zeros([rows, 100, 100, 1], tf.uint8)
    draws = RowDraws(tf.constant([5, 6]), tf.constant(rows))
    calls = recorded(monkeypatch, lambda: policies.rand_augment(images, draws, 3, 4.0))
    assert len(calls) == 3 and len(RAND_OPERATIONS) == 14
    for operation, amount in calls:
        share = np.bincount(operation, minlength=len(OPERATIONS)) / rows
        assert share[OPERATIONS.index("invert")] == 0 and np.abs(share[share > 0] - 1 / 14).max() < 5 * 0.26 / np.sqrt(
            rows
        )
        turned = np.abs(amount[operation == OPERATIONS.index("rotate")])
        np.testing.assert_allclose(turned, 12.0, rtol=1e-6)
    assert not np.array_equal(calls[0][0], calls[1][0])
