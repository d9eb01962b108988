"""Warping, photometric loss, smoothness, hidden pixels and background of stereo matching, against plain NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from appzoo.stereo_matching import objective, occlusion, photometric
from appzoo.stereo_matching.config import LossConfig, OcclusionConfig
from appzoo.stereo_matching.synthetic import Layer, layered, scene

HEIGHT, WIDTH, DISPARITIES = 64, 128, 16
TESTS = ("geq", "collision", "zbuffer")


@pytest.fixture(scope="module")
def scenes():
    return [scene(np.random.default_rng([5, i]), HEIGHT, WIDTH, DISPARITIES) for i in range(20)]


def hidden_of(disparity, test, jump=1.0, median=False, disparities=DISPARITIES):
    disparity = np.asarray(disparity, np.float32)
    return occlusion.occluded(tf.constant(disparity), test, jump, disparities, median).numpy()


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def by_definition(disparity, test, jump, tolerance=0.5):
    """The tests of hidden pixels, pixel by pixel, in float64."""
    found = np.zeros(disparity.shape, bool)
    for index in np.ndindex(disparity.shape):
        row, p = disparity[index[:-1]].astype(float), index[-1]
        steps = [(k, row[p + k] - row[p]) for k in range(1, len(row) - p)]
        if test == "geq":
            hit = any(step >= max(k - tolerance, jump) for k, step in steps)
        elif test == "collision":
            hit = any(abs(step - k) <= tolerance and step >= jump for k, step in steps)
        else:
            cells = [{int(np.floor(q - d)), int(np.ceil(q - d))} for q, d in enumerate(row)]
            place = int(np.floor(p - row[p] + 0.5))
            hit = max((d for d, cell in zip(row, cells, strict=True) if place in cell), default=-1) > row[p] + jump
        found[index] = hit or p - row[p] < 0
    return found


# Warping and losses ------------------------------------------------------------------------------------------


def test_warping_by_whole_pixels_is_slicing_and_repeats_the_border():
    image = np.random.default_rng(0).random((2, 4, 9, 3)).astype(np.float32)
    found = photometric.warped(tf.constant(image), tf.fill([2, 4, 9], 3.0)).numpy()
    np.testing.assert_array_equal(found[:, :, 3:], image[:, :, :-3])
    np.testing.assert_array_equal(found[:, :, :3], np.repeat(image[:, :, :1], 3, axis=2))


def test_warping_interpolates_linearly():
    random = np.random.default_rng(1)
    image, disparity = random.random((1, 3, 8, 2)).astype(np.float32), random.random((1, 3, 8)).astype(np.float32) * 9
    found = photometric.warped(tf.constant(image), tf.constant(disparity)).numpy()
    for y in range(3):
        for c in range(2):
            wanted = np.interp(np.arange(8) - disparity[0, y], np.arange(8), image[0, y, :, c])
            np.testing.assert_allclose(found[0, y, :, c], wanted, atol=1e-5)


def similarity(one, other):
    """Structural similarity from the windows themselves."""
    one, other = (np.pad(x.astype(float), ((1, 1), (1, 1), (0, 0)), "reflect") for x in (one, other))
    found = np.zeros((one.shape[0] - 2, one.shape[1] - 2, one.shape[2]))
    for y, x, c in np.ndindex(found.shape):
        a, b = one[y : y + 3, x : x + 3, c], other[y : y + 3, x : x + 3, c]
        shared = ((a - a.mean()) * (b - b.mean())).mean()
        above = (2 * a.mean() * b.mean() + 0.01**2) * (2 * shared + 0.03**2)
        found[y, x, c] = above / ((a.mean() ** 2 + b.mean() ** 2 + 0.01**2) * (a.var() + b.var() + 0.03**2))
    return found


def test_photometric_loss_is_that_of_its_formula():
    random = np.random.default_rng(2)
    one, other = random.random((2, 5, 7, 3)).astype(np.float32)
    ssim = similarity(one, other)
    found = photometric.structural_similarity(one[None], other[None])[0]
    np.testing.assert_allclose(found, ssim, atol=1e-4)
    wanted = (0.85 * np.clip((1 - ssim) / 2, 0, 1) + 0.15 * np.abs(one - other)).mean(axis=-1)
    np.testing.assert_allclose(photometric.photometric(one[None], other[None])[0], wanted, atol=1e-4)
    np.testing.assert_allclose(photometric.photometric(one[None], one[None])[0], 0, atol=1e-5)


@pytest.mark.parametrize("axis", [1, 2])
def test_roughness_counts_less_at_edges_of_the_image(axis):
    random = np.random.default_rng(3)
    disparity, image = random.random((1, 4, 6)).astype(np.float32), random.random((1, 4, 6, 3)).astype(np.float32)
    edges = np.abs(np.diff(image, axis=axis)).mean(axis=-1)
    wanted = np.abs(np.diff(disparity, axis=axis)) * np.exp(-edges)
    np.testing.assert_allclose(photometric.roughness(disparity, image, axis), wanted, rtol=1e-5)


def test_loss_at_the_true_disparity_is_small_where_the_right_eye_sees(scenes):
    stacked = {name: np.stack([getattr(s, name) for s in scenes]) for name in ("left", "right", "disparity", "visible")}
    left, right = (tf.constant(stacked[name] / 255, tf.float32) for name in ("left", "right"))
    each = photometric.photometric(photometric.warped(right, stacked["disparity"]), left).numpy()
    # Windows of 3 x 3 pixels reach over the edges of what is hidden.
    inner = np.stack([_eroded(mask) for mask in stacked["visible"]])
    assert each[inner].mean() < 0.02 and each[~stacked["visible"]].mean() > 0.1


def _eroded(mask):
    around = np.pad(mask, 1)
    return np.all([around[y : y + HEIGHT, x : x + WIDTH] for y in range(3) for x in range(3)], axis=0)


# Hidden pixels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("jump", [1.0, 2.0])
def test_hidden_pixels_are_those_of_the_definition(test, jump):
    random = np.random.default_rng(4)
    whole = random.integers(0, 8, (2, 3, 40)).astype(np.float32)
    # Eighths are exact in float32 and make no ties with the tolerance.
    broken = whole + random.integers(0, 8, whole.shape).astype(np.float32) / 8 + np.float32(1 / 64)
    for disparity in (whole, broken):
        np.testing.assert_array_equal(hidden_of(disparity, test, jump), by_definition(disparity, test, jump))


def test_detection_is_exact_on_exact_maps(scenes):
    """Claim A: whole disparities of layered scenes."""
    hidden = np.stack([~s.visible for s in scenes])
    disparity = np.stack([s.disparity for s in scenes])
    assert 0.03 < hidden.mean() < 0.2
    found = {test: iou(hidden_of(disparity, test), hidden) for test in TESTS}
    assert found["collision"] == 1 and found["geq"] >= 0.99 and found["zbuffer"] >= 0.99, found


def test_detection_under_noise(scenes):
    """Claim A: a larger least jump is better on noisy maps, and so is the median of the mask."""
    random = np.random.default_rng(6)
    hidden = np.stack([~s.visible for s in scenes])
    disparity = np.stack([s.disparity for s in scenes]) + 0.3
    little, much = (np.maximum(disparity + random.normal(0, s, disparity.shape), 0) for s in (0.1, 0.6))
    assert iou(hidden_of(little, "geq"), hidden) > 0.85
    assert iou(hidden_of(much, "geq"), hidden) < 0.5 < 0.65 < iou(hidden_of(much, "geq", 2.0), hidden)
    assert iou(hidden_of(much, "geq", median=True), hidden) > 0.65


def test_a_thin_pole_hides_its_own_width():
    """Claim A: 3 columns of disparity 14 before a background of 2: 2 border columns and 3 hidden ones."""
    disparity = np.full((1, 4, 40), 2, np.float32)
    disparity[:, :, 20:23] = 14
    exact = np.zeros(40, bool)
    exact[[0, 1, 8, 9, 10]] = True
    for test in ("collision", "zbuffer"):
        np.testing.assert_array_equal(hidden_of(disparity, test)[0, 0], exact)
    # What lies between the pole and the pole's shadow counts as hidden where rows are taken to keep their order.
    assert np.flatnonzero(hidden_of(disparity, "geq")[0, 0]).tolist() == [0, 1, *range(8, 20)]


@pytest.mark.parametrize("test", TESTS)
def test_the_hidden_strip_is_left_of_the_occluder_and_as_wide_as_the_jump(test):
    """Claim B: a rectangle of disparity 9 before a background of 3."""
    disparity = np.full((1, 20, 60), 3, np.float32)
    disparity[:, 5:15, 30:50] = 9
    exact = np.zeros((1, 20, 60), bool)
    exact[:, :, :3] = True
    exact[:, 5:15, 24:30] = True
    np.testing.assert_array_equal(hidden_of(disparity, test), exact)


def test_scenes_know_what_they_hide():
    texture = np.random.default_rng(0).random((20, 70, 3)).astype(np.float32)
    layers = [Layer(texture, 0, 0, 3), Layer(texture[:10, :20], 5, 30, 9)]
    made = layered(layers, 20, 60, np.random.default_rng(0))
    hidden = np.zeros((20, 60), bool)
    hidden[:, :3] = hidden[5:15, 24:30] = True
    np.testing.assert_array_equal(~made.visible, hidden)
    assert set(np.unique(made.disparity)) == {3, 9}
    with pytest.raises(ValueError, match="from far to near"):
        layered(layers[::-1], 20, 60, np.random.default_rng(0))


def test_the_median_of_a_mask_is_that_of_its_surroundings():
    mask = np.random.default_rng(7).random((1, 9, 11)) < 0.5
    around = np.pad(mask[0], 1, "symmetric")
    wanted = [[np.median(around[y : y + 3, x : x + 3]) > 0 for x in range(11)] for y in range(9)]
    np.testing.assert_array_equal(occlusion._majority(tf.constant(mask))[0], wanted)


# Background --------------------------------------------------------------------------------------------------


def filled_by_hand(disparity, hidden):
    found = disparity.copy()
    for y, row in enumerate(disparity):
        seen = np.flatnonzero(~hidden[y])
        for x in np.flatnonzero(hidden[y]):
            beside = [*row[seen[seen < x]][-1:], *row[seen[seen > x]][:1]]
            found[y, x] = min(beside, default=row[x])
    return found


def test_hidden_runs_take_the_smaller_disparity_beside_them():
    random = np.random.default_rng(8)
    disparity, hidden = random.random((3, 6, 21)).astype(np.float32), random.random((3, 6, 21)) < 0.6
    hidden[0, 0] = True
    found = occlusion.background_filled(tf.constant(disparity), tf.constant(hidden))
    wanted = [filled_by_hand(*each) for each in zip(disparity, hidden, strict=True)]
    np.testing.assert_array_equal(found, wanted)


def test_background_repairs_corrupted_hidden_pixels(scenes):
    random = np.random.default_rng(9)
    true, hidden = np.stack([s.disparity for s in scenes]), np.stack([~s.visible for s in scenes])
    corrupted = np.where(hidden, random.uniform(0, DISPARITIES, true.shape), true).astype(np.float32)
    filled = occlusion.background_filled(tf.constant(corrupted), tf.constant(hidden)).numpy()
    before, after = (np.abs(x - true)[hidden] for x in (corrupted, filled))
    assert after.mean() < 0.25 * before.mean() and (after > 1).mean() < 0.2
    np.testing.assert_array_equal(filled[~hidden], true[~hidden])


# Objective ---------------------------------------------------------------------------------------------------


def a_pair(scenes, rows=(1.0, 1.0)):
    left, right = (np.stack([getattr(s, side) for s in scenes[:2]]) / np.float32(255) for side in ("left", "right"))
    inside = np.ones(left.shape[:3], bool)
    inside[:, :4], inside[:, :, 120:] = False, False
    return objective.Pair(*map(tf.constant, (left, right, inside, np.float32(rows))))


def in_squares(x, scale):
    """[batch, rows, of a square, columns, of a square, ...]."""
    return x.reshape(len(x), HEIGHT // scale, scale, WIDTH // scale, scale, *x.shape[3:])


def photo_gradient(pair, disparity, scales):
    """The gradient of the photometric loss of a warm start."""
    disparity = tf.Variable(disparity)
    with tf.GradientTape() as tape:
        losses = objective.stereo_losses([disparity], pair, None, LossConfig(photo_scales=scales), 0.0)
        total = tf.add_n([loss.sum / loss.weight for name, loss in losses.items() if name.startswith("photo")])
    return float(total), tape.gradient(total, disparity).numpy()


def test_the_photometric_gradient_is_that_of_small_differences(scenes):
    pair, random = a_pair(scenes), np.random.default_rng(11)
    # Away from whole pixels, where linear interpolation has corners.
    disparity = np.stack([s.disparity for s in scenes[:2]]) + random.uniform(0.3, 0.7, (2, HEIGHT, WIDTH))
    disparity, direction = disparity.astype(np.float32), random.normal(size=disparity.shape).astype(np.float32)
    _, gradient = photo_gradient(pair, disparity, 1)
    step = np.float32(0.02)
    after, before = (photo_gradient(pair, disparity + sign * step * direction, 1)[0] for sign in (1, -1))
    np.testing.assert_allclose((gradient * direction).sum(), (after - before) / (2 * step), rtol=0.05)


@pytest.mark.parametrize(("off", "least"), [(2.5, 0.4), (4.1, 0.2)])
def test_smaller_images_show_matches_that_are_far_away(scenes, off, least):
    """Where disparities are off by more than a pixel, the whole images do not tell on which side the match is."""
    pair = a_pair(scenes)
    true = np.stack([s.disparity for s in scenes[:2]])
    known = pair.inside.numpy() & np.stack([s.visible for s in scenes[:2]])

    def pulled_back(scales):
        """1 where all of the gradient pulls to the match, 0 where as much of it pulls away."""
        found = [np.sign(x) * photo_gradient(pair, true + np.float32(x), scales)[1][known] for x in (-off, off)]
        return np.sum(found) / np.abs(found).sum()

    assert pulled_back(1) < 0.1 and pulled_back(4) > least


def test_losses_are_those_of_their_formulas(scenes):
    pair, settings = a_pair(scenes, (1.0, 0.5)), OcclusionConfig()
    true = np.stack([s.disparity for s in scenes[:2]])
    prediction = tf.constant(true + 0.25)
    teaching = objective.taught(tf.constant(true), pair, settings, DISPARITIES)
    config = LossConfig(smooth_weight=0.5, smooth_relative=False)
    found = objective.stereo_losses([prediction], pair, teaching, config, 0.1)
    assert list(found) == ["photo", "photo_2", "photo_4", "photo_8", "smooth_x", "smooth_y", "fill"]
    inside, rows = pair.inside.numpy(), np.float32([1.0, 0.5])[:, None, None]
    hidden = np.stack([~s.visible for s in scenes[:2]]) & inside
    # Where a pixel beside the pair would hide one of the pair, it does not.
    seen = teaching.visible.numpy() > 0
    assert (seen <= inside).all() and (seen & hidden).mean() < 0.01
    each = photometric.photometric(photometric.warped(pair.right, prediction), pair.left).numpy()
    np.testing.assert_allclose(found["photo"].sum, (each * seen * rows).sum() / 4, rtol=1e-4)
    np.testing.assert_allclose(found["photo"].weight, (seen * rows).sum(), rtol=1e-6)
    for scale in (2, 4, 8):
        left, right, moved = (in_squares(x.numpy(), scale).mean(axis=(2, 4)) for x in (*pair[:2], prediction))
        each = photometric.photometric(photometric.warped(right, moved / scale), left).numpy()
        counts = in_squares(seen, scale).mean(axis=(2, 4)) * in_squares(inside, scale).all(axis=(2, 4)) * rows
        np.testing.assert_allclose(found[f"photo_{scale}"].sum, (each * counts).sum() / 4, rtol=1e-4)
        np.testing.assert_allclose(found[f"photo_{scale}"].weight, counts.sum(), rtol=1e-5)
    rough = photometric.roughness(prediction, pair.left, 2).numpy() * (inside[:, :, 1:] & inside[:, :, :-1]) * rows
    np.testing.assert_allclose(found["smooth_x"].sum, 0.5 * rough.sum(), rtol=1e-4)
    weights = teaching.hidden.numpy()
    far = weights * np.abs(prediction - teaching.wanted.numpy())
    np.testing.assert_allclose(found["fill"].sum, 0.1 * far.sum(), rtol=1e-4)
    np.testing.assert_allclose(found["fill"].weight, weights.sum(), rtol=1e-6)


def test_relative_smoothness_does_not_depend_on_the_scale_of_disparities(scenes):
    pair, config = a_pair(scenes), LossConfig(smooth_weight=1.0)
    disparity = tf.constant(np.stack([s.disparity for s in scenes[:2]]) + 1)
    one, other = (
        objective.stereo_losses([x], pair, None, config, 0.0)["smooth_x"].sum for x in (disparity, disparity / 2)
    )
    np.testing.assert_allclose(one, other, rtol=1e-5)
    assert float(one) > 0


def test_hidden_pixels_get_no_photometric_gradient(scenes):
    pair, settings = a_pair(scenes), OcclusionConfig()
    disparity = tf.Variable(np.stack([s.disparity for s in scenes[:2]]) + 0.25)
    teaching = objective.taught(disparity - 0.25, pair, settings, DISPARITIES)
    for given in (teaching, None):
        with tf.GradientTape() as tape:
            loss = objective.stereo_losses([disparity], pair, given, LossConfig(), 0.1)["photo"].sum
        gradient = tape.gradient(loss, disparity).numpy()
        columns = np.arange(WIDTH)[None, None]
        out = columns - disparity.numpy() < 0
        # A window of 3 x 3 pixels beside a hidden one sees it: the hidden one's own loss has no gradient.
        away = teaching.visible.numpy() == 0 if given is not None else out
        inner = np.stack([_eroded(mask) for mask in away])
        assert inner.sum() > 20 and not gradient[inner].any() and np.abs(gradient[~away]).max() > 0


def test_pairs_with_too_many_hidden_pixels_are_left_out(scenes):
    pair = a_pair(scenes)
    noisy = np.random.default_rng(0).uniform(0, 15, (1, HEIGHT, WIDTH)).astype(np.float32)
    disparity = tf.constant(np.concatenate([noisy, scenes[1].disparity[None]]))
    teaching = objective.taught(disparity, pair, OcclusionConfig(), DISPARITIES)
    assert not teaching.visible[0].numpy().any() and not teaching.hidden[0].numpy().any()
    assert teaching.visible[1].numpy().any() and teaching.hidden[1].numpy().any()


def test_what_is_filled_up_hides_nothing_and_is_hidden_from_nobody():
    inside = np.zeros((1, 4, 32), bool)
    inside[:, 1:, :24] = True
    disparity = np.where(inside, 2, 15).astype(np.float32)
    found = objective.hidden_pixels(tf.constant(disparity), tf.constant(inside), OcclusionConfig(), 1.0, 16).numpy()
    assert np.flatnonzero(found[0, 1]).tolist() == [0, 1] and not found[0, 0].any()
