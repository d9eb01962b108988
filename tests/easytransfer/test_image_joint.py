"""Joint transforms of images, label maps, disparity maps, points and boxes: against Pillow, NumPy and by hand."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from easytransfer.image import joint
from easytransfer.image.joint import Geometry
from easytransfer.layers.draws import RowDraws

RANDOM = np.random.default_rng(8)
SIZE = HEIGHT, WIDTH = 15, 24
NOISE = RANDOM.uniform(0, 255, (HEIGHT, WIDTH)).astype(np.float32)
LABELS = RANDOM.integers(0, 7, (HEIGHT, WIDTH)).astype(np.uint8)
TRUE, FALSE = tf.constant([True]), tf.constant([False])


def draws(rows, **share) -> RowDraws:
    return RowDraws(tf.constant([3, 4]), tf.convert_to_tensor(rows), **share)


def image(change: Geometry, pixels: np.ndarray, **settings) -> np.ndarray:
    return change.image(tf.constant(pixels[None, ..., None]), **settings)[0, ..., 0].numpy()


def labels(change: Geometry, pixels: np.ndarray, fill: int = 0) -> np.ndarray:
    return change.labels(tf.constant(pixels[None]), fill)[0].numpy()


MATRICES = [(1.2, 0.3, -4.5, -0.2, 0.8, 3.25), (0.5, 0, 2, 0, 0.25, 1), (-1, 0.1, 24, 0, -1, 15), (2, 0, -7, 0, 3, -9)]


@pytest.mark.parametrize("matrix", MATRICES)
def test_an_affine_transform_equals_pillow(matrix):
    change = Geometry(tf.constant([matrix], tf.float64), SIZE, (11, 30))
    shape, kind = (30, 11), Image.Transform.AFFINE
    expected = Image.fromarray(NOISE).transform(shape, kind, matrix, Image.Resampling.BILINEAR, fillcolor=-7.0)
    np.testing.assert_allclose(image(change, NOISE, fill=-7.0), np.asarray(expected), atol=1e-3)
    whole = NOISE.astype(np.uint8)
    expected = np.asarray(Image.fromarray(whole).transform(shape, kind, matrix, Image.Resampling.BILINEAR))
    found = image(change, whole)
    # Pillow cuts the fraction off where ours is rounded.
    assert found.dtype == np.uint8 and 0 <= (found.astype(int) - expected).min() <= (found - expected).max() <= 1
    expected = np.asarray(Image.fromarray(LABELS).transform(shape, kind, matrix, fillcolor=9))
    np.testing.assert_array_equal(labels(change, LABELS, 9), expected)
    np.testing.assert_array_equal(image(change, LABELS, fill=9, method="nearest"), expected)


@pytest.mark.parametrize("degrees", [-33.0, -2.0, 0.0, 10.0, 90.0, 180.0])
def test_rotation_equals_pillow(degrees):
    change = joint.rotate(tf.constant([degrees]), SIZE)
    expected = np.asarray(Image.fromarray(NOISE).rotate(degrees, Image.Resampling.BILINEAR))
    found = image(change, NOISE)
    # A place on the very border may fall on either side of it.
    inner = (expected != 0) & (found != 0) if degrees % 90 == 0 else np.ones(SIZE, bool)
    assert inner.mean() > 0.5
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-3)
    if degrees % 90:
        expected = np.asarray(Image.fromarray(LABELS).rotate(degrees))
        np.testing.assert_array_equal(labels(change, LABELS), expected)


@pytest.mark.parametrize("to", [(15, 24), (30, 72), (22, 31)])
def test_enlarging_equals_pillow(to):
    change = joint.resize(tf.constant(1), SIZE, to)
    expected = Image.fromarray(NOISE).resize(to[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_allclose(image(change, NOISE), np.asarray(expected), atol=1e-3)
    # The pixel that the centre falls into, in whole numbers.
    y, x = ((2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(SIZE, to, strict=True))
    found = labels(change, LABELS)
    np.testing.assert_array_equal(found, LABELS[np.ix_(y, x)])
    # Pillow adds up fractions, so that centres on the border of two pixels fall to either side.
    clear = np.ix_(*((2 * np.arange(new) + 1) * old % (2 * new) > 0 for old, new in zip(SIZE, to, strict=True)))
    expected = np.asarray(Image.fromarray(LABELS).resize(to[::-1], Image.Resampling.NEAREST))
    np.testing.assert_array_equal(found[clear], expected[clear])


def test_mirroring_and_parts_are_exact():
    np.testing.assert_array_equal(image(joint.flip(TRUE, SIZE), NOISE), NOISE[:, ::-1])
    np.testing.assert_array_equal(image(joint.flip(FALSE, SIZE), NOISE), NOISE)
    twice = joint.flip(TRUE, SIZE).then(joint.flip(TRUE, SIZE))
    np.testing.assert_array_equal(image(twice, NOISE), NOISE)
    assert not twice.mirrored.numpy().any() and joint.flip(TRUE, SIZE).mirrored.numpy().all()
    part = joint.crop(tf.constant([3]), tf.constant([5]), SIZE, (8, 12))
    np.testing.assert_array_equal(image(part, NOISE), NOISE[3:11, 5:17])
    # A network that wants multiples of 16 has rows above and columns at the right added.
    padded = joint.crop(tf.constant([-1]), tf.constant([0]), SIZE, (16, 32))
    np.testing.assert_array_equal(image(padded, NOISE, fill=5.0), np.pad(NOISE, [(1, 0), (0, 8)], constant_values=5))
    np.testing.assert_array_equal(labels(padded, LABELS, 255), np.pad(LABELS, [(1, 0), (0, 8)], constant_values=255))


def test_channels_may_be_filled_each_with_its_own_value():
    colours = tf.constant(RANDOM.uniform(0, 1, (2, *SIZE, 3)).astype(np.float32))
    moved = joint.crop(tf.constant([0, 0]), tf.constant([-1, 0]), SIZE, SIZE).image(colours, [0.1, 0.2, 0.3]).numpy()
    np.testing.assert_array_equal(moved[0, :, 0], np.broadcast_to(np.float32([0.1, 0.2, 0.3]), (HEIGHT, 3)))
    np.testing.assert_array_equal(moved[0, :, 1:], colours[0, :, :-1])
    np.testing.assert_array_equal(moved[1], colours[1])


def everything(rows: int) -> Geometry:
    """All kinds of moves, one after the other, different in each image."""
    change = joint.random_rotation(draws(rows), SIZE, 20.0).then(joint.random_flip(draws(rows), SIZE))
    change = change.then(joint.random_crop(draws(rows), SIZE, (14, 20), padding=2))
    return change.then(joint.resize(tf.constant(rows), (14, 20), (33, 27)))


def test_points_go_where_pixels_go():
    """An image of its own coordinates says for every place of the result where it was; `points` must lead back."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32) + 0.5
    rows, change = 6, everything(6)
    where = change.image(tf.constant(np.tile(np.stack([x, y], -1), (rows, 1, 1, 1))), fill=-1.0).numpy()
    inside = ((where > 1) & (where < [WIDTH - 1, HEIGHT - 1])).all(-1)
    assert inside.mean() > 0.5 and 0 < change.mirrored.numpy().mean() < 1
    found = change.points(tf.constant(where.reshape(rows, -1, 2))).numpy().reshape(where.shape)
    centres = np.stack(np.meshgrid(np.arange(27), np.arange(33)), -1) + 0.5
    np.testing.assert_allclose(found[inside], np.broadcast_to(centres, where.shape)[inside], atol=1e-3)


def test_points_and_boxes_by_hand():
    points, boxes = tf.constant([[[2.5, 1.5], [24.0, 15.0]]]), tf.constant([[[2.0, 1.0, 6.0, 4.0]]])

    def moved(change):
        return change.points(points).numpy()[0].tolist(), change.boxes(boxes).numpy()[0, 0].tolist()

    assert moved(joint.flip(TRUE, SIZE)) == ([[21.5, 1.5], [0, 15]], [18, 1, 22, 4])
    assert moved(joint.resize(tf.constant(1), SIZE, (30, 12))) == ([[1.25, 3], [12, 30]], [1, 2, 3, 8])
    part = joint.crop(tf.constant([2]), tf.constant([3]), SIZE, (5, 8))
    assert moved(part) == ([[-0.5, -0.5], [21, 13]], [0, 0, 3, 2])
    # A box outside has no area left.
    far = joint.crop(tf.constant([9]), tf.constant([3]), SIZE, (5, 8)).boxes(boxes).numpy()[0, 0].tolist()
    assert far[1] == far[3] == 0
    # Counter-clockwise about (12, 7.5): what is up to the left comes down to the left.
    found, box = moved(joint.rotate(tf.constant([90.0]), SIZE))
    np.testing.assert_allclose(found, [[6.0, 17.0], [19.5, -4.5]], atol=1e-5)
    np.testing.assert_allclose(box, [5.5, 13.5, 8.5, 15.0], atol=1e-5)


def test_boxes_hold_the_corners_of_what_they_held():
    rows, change = 6, everything(6)
    boxes = RANDOM.uniform(4, 8, (rows, 3, 4)).astype(np.float32) + [0, 0, 8, 4]
    found = change.boxes(tf.constant(boxes, tf.float32)).numpy()
    for corner in ([0, 1], [2, 1], [0, 3], [2, 3]):
        places = change.points(tf.constant(boxes[..., corner], tf.float32)).numpy()
        places = np.clip(places, 0, [27, 33])
        assert (places >= found[..., :2] - 1e-4).all() and (places <= found[..., 2:] + 1e-4).all()


def pair() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two views of noise at disparity 4 above and 2 below, and the disparity maps of both; 0 where there is none."""
    right, left = RANDOM.integers(1, 255, SIZE).astype(np.float32), np.zeros(SIZE, np.float32)
    maps = np.zeros((2, *SIZE), np.float32)
    for rows, shift in ((slice(0, 8), 4), (slice(8, None), 2)):
        left[rows, shift:] = right[rows, :-shift]
        maps[0, rows, shift:], maps[1, rows, :-shift] = shift, shift
    return left, right, *maps


def matches(left: np.ndarray, right: np.ndarray, disparity: np.ndarray) -> float:
    """The share of known pixels of the left view that are those of the right one at x - disparity."""
    y, x = np.nonzero(disparity)
    there = x - disparity[y, x].astype(int)
    inside = (there >= 0) & (there < right.shape[1])
    assert inside.sum() > 50
    return float((left[y, x] == right[y, there.clip(0, right.shape[1] - 1)])[inside].mean())


def test_disparities_still_lead_to_the_other_view():
    left, right, of_left, of_right = pair()
    assert matches(left, right, of_left) == 1

    def moved(change, pixels):
        return change.disparity(tf.constant(pixels[None]))[0].numpy()

    part = joint.crop(tf.constant([2]), tf.constant([-3]), SIZE, (10, 30))
    assert matches(image(part, left), image(part, right), moved(part, of_left)) == 1
    wide = joint.resize(tf.constant(1), SIZE, (15, 48))
    near = [image(wide, view, method="nearest") for view in (left, right)]
    np.testing.assert_array_equal(moved(wide, of_left), 2 * np.repeat(of_left, 2, 1))
    assert matches(*near, moved(wide, of_left)) == 1
    # Height alone changes nothing of the values.
    np.testing.assert_array_equal(
        moved(joint.resize(tf.constant(1), SIZE, (30, 24)), of_left), np.repeat(of_left, 2, 0)
    )
    mirror = joint.flip(TRUE, SIZE)
    # Mirrored, the pixel of the other view lies on the other side.
    assert moved(mirror, of_left).min() == -4
    assert matches(image(mirror, left), image(mirror, right), moved(mirror, of_left)) == 1
    # Mirrored and exchanged it is a pair like any other.
    exchanged = mirror.disparity(tf.constant(of_right[None]), exchanged=True)[0].numpy()
    assert exchanged.min() == 0 and matches(image(mirror, right), image(mirror, left), exchanged) == 1


def test_what_would_be_wrong_is_refused():
    turned = joint.rotate(tf.constant([5.0]), SIZE)
    for change in (turned, joint.flip(FALSE, SIZE).then(turned), turned.then(joint.flip(FALSE, SIZE))):
        with pytest.raises(ValueError, match="no meaning in rotated pairs"):
            change.disparity(tf.zeros([1, *SIZE]))
    with pytest.raises(ValueError, match=r"\[15, 24\] cannot follow a result of \[8, 9\]"):
        joint.crop(tf.constant([0]), tf.constant([0]), SIZE, (8, 9)).then(turned)
    with pytest.raises(ValueError, match=r"transform of \[15, 24\] is given \(1, 24, 15\)"):
        turned.labels(tf.zeros([1, 24, 15], tf.uint8), 0)
    with pytest.raises(ValueError, match=r"part of \[18, 24\] does not fit into \[15, 24\] with 1 around it"):
        joint.random_crop(draws(1), SIZE, (18, 24), padding=1)


def test_draws_are_even_and_of_the_row():
    rows = 4000
    change = joint.random_crop(draws(rows), 4, 5, padding=1)
    offsets = change.matrices.numpy()[:, [5, 2]]
    # From -1 to 0 in both directions, and each of the four equally often, within five deviations.
    values, counts = np.unique(offsets, axis=0, return_counts=True)
    assert values.tolist() == [[-1, -1], [-1, 0], [0, -1], [0, 0]]
    assert np.abs(counts / rows - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / rows)
    share = joint.random_flip(draws(rows), 4, 0.3).mirrored.numpy().mean()
    assert abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / rows)
    sine = joint.random_rotation(draws(rows), 4, 10.0, 0.5).matrices.numpy()[:, 3]
    angles = np.degrees(np.arcsin(sine))
    assert abs((angles != 0).mean() - 0.5) < 0.05 and -10 <= angles.min() < -9.9 and 9.9 < angles.max() <= 10
    whole = everything(6).matrices.numpy()

    def of_worker(rank: int) -> np.ndarray:
        def mine() -> RowDraws:
            return draws(3, first=rank, stride=2)

        change = joint.random_rotation(mine(), SIZE, 20.0).then(joint.random_flip(mine(), SIZE))
        change = change.then(joint.random_crop(mine(), SIZE, (14, 20), padding=2))
        return change.then(joint.resize(tf.constant(3), (14, 20), (33, 27))).matrices.numpy()

    for rank in range(2):
        np.testing.assert_array_equal(of_worker(rank), whole[rank::2])


def test_it_is_the_same_in_a_graph_of_any_batch_and_compiled():
    pixels = tf.constant(RANDOM.integers(0, 256, (6, *SIZE, 3)).astype(np.uint8))
    spec = [tf.TensorSpec([None, *SIZE, 3], tf.uint8)]

    def moved(images):
        rows = tf.shape(images)[0]
        change = joint.random_rotation(draws(rows), SIZE, 20.0).then(joint.random_crop(draws(rows), SIZE, (14, 20)))
        return change.image(images), change.labels(images[..., 0], 255)

    expected = moved(pixels)
    for compiled in (False, True):
        found = tf.function(moved, input_signature=spec, autograph=False, jit_compile=compiled)(pixels)
        assert np.abs(found[0].numpy().astype(int) - expected[0].numpy()).max() <= 1
        np.testing.assert_array_equal(found[1], expected[1])


def test_images_have_gradients():
    change, pixels = everything(2), tf.constant(RANDOM.uniform(0, 1, (2, *SIZE, 1)).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        total = tf.reduce_sum(change.image(pixels))
    gradient = tape.gradient(total, pixels).numpy()
    # The transform is linear: the sum is the gradient times the pixels.
    np.testing.assert_allclose((gradient * pixels.numpy()).sum(), total, rtol=1e-4)
