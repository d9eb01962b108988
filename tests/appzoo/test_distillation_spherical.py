"""Logits on a sphere: numbers worked out beforehand, torch with the formulas of the published code, and properties."""

import numpy as np
import pytest
import tensorflow as tf

from appzoo.distillation_skd import spherical
from easytransfer.losses.classification import softmax_cross_entropy_sum

STUDENT = np.array([[1, 2, 3, 4], [0, -1, 2, 0.5]], np.float32)
TEACHER = np.array([[3, 1, 0, -2], [-1, 0, 6, 1]], np.float32)
LABELS = np.array([0, 2])
ALPHA = 0.9
RANDOM = np.random.default_rng(8)
MANY_STUDENT, MANY_TEACHER = (RANDOM.normal(size=(32, 100)) * scale for scale in (0.7, 4.0))
MANY_LABELS = RANDOM.integers(0, 100, 32)


def parts(student, teacher, labels, variant="layer_norm", multiplier=2.0, temperature=4.0):
    """The mean distillation loss and the mean cross entropy of a batch."""
    rows = len(labels)
    if variant is None:
        mine, target = tf.constant(student, tf.float32), tf.constant(teacher, tf.float32)
    else:
        mine, target = spherical.rescaled_pair(variant, student, teacher, multiplier)
    ones = tf.ones([rows])
    soft = spherical.divergence_sum(target, mine, temperature, ones)
    return soft / rows, softmax_cross_entropy_sum(labels, mine, ones) / rows


def total(*given, alpha=ALPHA, **options):
    soft, hard = parts(*given, **options)
    return alpha * soft + (1 - alpha) * hard


def gradient(student, teacher, labels, **options) -> np.ndarray:
    student = tf.constant(student, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = total(student, teacher, labels, **options)
    return tape.gradient(loss, student).numpy()


def test_the_projection_by_hand():
    found = spherical.on_sphere(STUDENT).numpy()
    expected = [[-1.3416407, -0.4472136, 0.4472136, 1.3416407], [-0.3464101, -1.2701705, 1.5011106, 0.1154700]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 2, atol=1e-6)
    np.testing.assert_allclose(spherical.deviation(STUDENT), [1.1180, 1.0825], atol=5e-5)
    np.testing.assert_allclose(spherical.deviation(TEACHER), [1.8028, 2.6926], atol=5e-5)
    np.testing.assert_allclose(spherical.at_unit_length(STUDENT).numpy()[0], STUDENT[0] / np.sqrt(30), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": 4.0}, (3.9558978, 2.8180481, 3.8421128)),
        ({"temperature": 1.0}, (2.4034632, 2.8180481, 2.4449217)),
        ({"variant": "teacher_std", "temperature": 4.0}, (3.3471029, 2.5445677, 3.2668494)),
        ({"variant": "teacher_std", "temperature": 1.0}, (2.0855, 2.5445677, 2.1314068)),
        (
            {"variant": "l2", "multiplier": np.linalg.norm(TEACHER, axis=1, keepdims=True), "temperature": 4.0},
            (1.8034331, 1.3538647, 1.7584763),
        ),
        ({"variant": None, "temperature": 4.0}, (2.9933734, 1.8912696, ALPHA * 2.9933734 + 0.1 * 1.8912696)),
    ],
)
def test_losses_of_two_rows(options, expected):
    soft, hard = parts(STUDENT, TEACHER, LABELS, **options)
    found = [soft, hard, total(STUDENT, TEACHER, LABELS, **options)]
    np.testing.assert_allclose(found, expected, rtol=2e-5 if expected[0] == 2.0855 else 1e-6)


def test_gradients_of_two_rows():
    np.testing.assert_allclose(
        gradient(STUDENT, TEACHER, LABELS),
        [[-0.0522748, 0.1195000, -0.0821759, 0.0149504], [0.1603618, -0.1680604, -0.1146065, 0.1223051]],
        atol=1e-6,
    )
    np.testing.assert_allclose(
        gradient(STUDENT, TEACHER, LABELS, variant="teacher_std"),
        [[-0.0431712, 0.0971035, -0.0646942, 0.0107616], [0.2307035, -0.2556485, -0.1787475, 0.2036928]],
        atol=1e-6,
    )


def test_the_logarithm_of_another_library_differs_by_the_entropy_of_the_teacher():
    """Soft cross entropy in place of the divergence, T = 1, alpha 0.9."""
    mine, target = (z.numpy() for z in spherical.rescaled_pair("layer_norm", STUDENT, TEACHER, 2.0))
    p = np.exp(target) / np.exp(target).sum(1, keepdims=True)
    entropy = -(p * np.log(p)).sum(1).mean()
    assert float(total(STUDENT, TEACHER, LABELS, temperature=1.0) + ALPHA * entropy) == pytest.approx(2.7491558, 1e-6)


def reference(student, teacher, labels, variant, multiplier, temperature):
    """Value and gradient in torch, float64, with torch's own normalisation and divergence."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    mine, target = torch.tensor(student, dtype=torch.float64, requires_grad=True), torch.tensor(teacher)
    classes = [student.shape[1]]
    if variant == "layer_norm":
        zs = multiplier * functional.layer_norm(mine, classes, eps=1e-7)
        zt = multiplier * functional.layer_norm(target, classes, eps=1e-7)
    elif variant == "teacher_std":
        # The published code: unbiased deviations, not centred.
        zs, zt = mine / mine.std(1, keepdim=True) * target.std(1, keepdim=True), target
    else:
        zs, zt = multiplier * functional.normalize(mine), multiplier * functional.normalize(target)
    logs, p = functional.log_softmax(zs / temperature, 1), functional.softmax(zt / temperature, 1)
    soft = temperature**2 * functional.kl_div(logs, p, reduction="batchmean")
    loss = ALPHA * soft + (1 - ALPHA) * functional.cross_entropy(zs, torch.tensor(labels))
    loss.backward()
    return loss.item(), mine.grad.numpy()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("variant", ["layer_norm", "teacher_std", "l2"])
def test_value_and_gradient_equal_torch(variant, temperature):
    given = (MANY_STUDENT, MANY_TEACHER, MANY_LABELS)
    options = {"variant": variant, "multiplier": 3.0, "temperature": temperature}
    value, slope = reference(*given, **options)
    assert float(total(*given, **options)) == pytest.approx(value, rel=1e-5)
    found = gradient(*given, **options)
    np.testing.assert_allclose(found, slope, atol=1e-5 * np.abs(slope).max())


def test_affine_changes_of_logits_do_not_matter():
    plain = float(total(STUDENT, TEACHER, LABELS))
    assert float(total(3 * STUDENT + 5, TEACHER, LABELS)) == pytest.approx(plain, abs=2e-6)
    assert float(total(STUDENT, 7 * TEACHER - 2, LABELS)) == pytest.approx(plain, abs=2e-6)
    by_teacher = float(total(STUDENT, TEACHER, LABELS, variant="teacher_std"))
    assert float(total(3 * STUDENT + 5, TEACHER, LABELS, variant="teacher_std")) == pytest.approx(by_teacher, abs=2e-6)
    assert abs(float(total(STUDENT, 7 * TEACHER - 2, LABELS, variant="teacher_std")) - by_teacher) > 0.1
    shifted = float(total(STUDENT + 5, TEACHER, LABELS, variant="l2"))
    assert abs(shifted - float(total(STUDENT, TEACHER, LABELS, variant="l2"))) > 1e-3


@pytest.mark.parametrize("variant", ["layer_norm", "teacher_std"])
def test_gradients_are_tangent_and_shrink_with_the_size_of_the_logits(variant):
    found = gradient(MANY_STUDENT, MANY_TEACHER, MANY_LABELS, variant=variant)
    scale = np.abs(found).max()
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-5 * scale)
    np.testing.assert_allclose((found * MANY_STUDENT).sum(axis=1), 0, atol=1e-4 * scale)
    tenth = gradient(10 * MANY_STUDENT, MANY_TEACHER, MANY_LABELS, variant=variant)
    np.testing.assert_allclose(10 * tenth, found, atol=1e-5 * scale)


def test_the_distillation_loss_is_zero_for_positive_affine_images_only():
    for student, zero in ((TEACHER, True), (2 * TEACHER + 1, True), (-TEACHER, False), (STUDENT, False)):
        soft, _ = parts(student, TEACHER, LABELS)
        assert (abs(float(soft)) < 1e-5) == zero
    assert float(total(TEACHER, TEACHER, LABELS)) == pytest.approx(0.0089559, abs=1e-6)


def test_high_temperature_compares_directions():
    centred = [z - z.mean(axis=1, keepdims=True) for z in (STUDENT, TEACHER)]
    cosine = (centred[0] * centred[1]).sum(1) / np.linalg.norm(centred[0], axis=1) / np.linalg.norm(centred[1], axis=1)
    limit = (4 * (1 - cosine)).mean()
    assert limit == pytest.approx(4.2262913, abs=1e-6)
    for temperature, expected in ((16.0, 4.1940798), (100.0, 4.2228852)):
        soft, _ = parts(STUDENT, TEACHER, LABELS, temperature=temperature)
        # T^2 amplifies the rounding of float32.
        assert float(soft) == pytest.approx(expected, abs=3e-7 * temperature**2)


def test_the_order_of_classes_stays():
    for scaled in (spherical.on_sphere, spherical.at_unit_length):
        np.testing.assert_array_equal(np.argsort(scaled(MANY_STUDENT), axis=1), np.argsort(MANY_STUDENT, axis=1))


def test_equal_logits_and_half_precision_are_finite():
    flat = np.zeros((2, 4), np.float32)
    assert np.isfinite(gradient(flat, TEACHER, LABELS)).all() and np.isfinite(total(flat, TEACHER, LABELS))
    half = spherical.on_sphere(tf.constant(300 * STUDENT, tf.float16))
    assert half.dtype == tf.float32
    np.testing.assert_allclose(half, spherical.on_sphere(300 * STUDENT), atol=1e-6)


def test_no_gradient_reaches_the_teacher_and_weights_remove_rows():
    teacher = tf.Variable(TEACHER)
    with tf.GradientTape() as tape:
        loss = total(STUDENT, teacher, LABELS)
    assert tape.gradient(loss, teacher) is None
    first = spherical.divergence_sum(TEACHER[:1], STUDENT[:1], 2.0, [1.0])
    both = spherical.divergence_sum(TEACHER, STUDENT, 2.0, [1.0, 0.0])
    np.testing.assert_allclose(first, both, rtol=1e-6)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="teacher logits are"):
        spherical.rescaled_pair("layer_norm", STUDENT, TEACHER[:, :3])
    with pytest.raises(ValueError, match="unknown variant 'l3'"):
        spherical.rescaled_pair("l3", STUDENT, TEACHER)
