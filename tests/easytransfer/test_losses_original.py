"""Distillation and patch losses, and the original's names, against NumPy formulas written from their definitions."""

import inspect

import numpy as np
import pytest
import tensorflow as tf

from easytransfer import losses

RNG = np.random.default_rng(3)
TEACHER, STUDENT = (RNG.normal(size=(5, 4)) * 2 for _ in range(2))
LABELS = np.array([0, 3, 1, 1, 2])


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def cross_entropy(labels, logits):
    return -np.log(softmax(logits)[np.arange(len(labels)), labels]).mean()


def kd_oracle(kind, z, s, balance, temperature):
    p, q = softmax(z / temperature), softmax(s / temperature)
    if kind == "mse":
        return (0.5 * ((z - s) ** 2).sum(-1)).mean()
    soft = -(p * np.log(q)).sum(-1) if kind == "xent" else (p * np.log(p / q)).sum(-1)
    return balance * cross_entropy(LABELS, s) + (1 - balance) * temperature**2 * soft.mean()


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("balance", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["mse", "xent", "kld"])
def test_distillation_losses(kind, balance, temperature):
    expected = kd_oracle(kind, TEACHER, STUDENT, balance, temperature)
    for labels in (LABELS, LABELS[:, None]):
        found = losses.build_kd_loss(TEACHER, STUDENT, balance, temperature, labels, kind)
        assert found.dtype == tf.float32 and found.shape == ()
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_original_distillation_mse_is_a_mean():
    """It was a sum over the batch, so the batch size changed its weight against the other loss."""
    twice = losses.build_kd_loss(np.tile(TEACHER, (2, 1)), np.tile(STUDENT, (2, 1)))
    np.testing.assert_allclose(twice, losses.build_kd_loss(TEACHER, STUDENT), rtol=1e-6)
    np.testing.assert_allclose(losses.build_kd_loss(TEACHER, STUDENT, alpha=3.0), 3 * twice, rtol=1e-6)


def test_original_divergence_is_zero_for_equal_logits_and_positive_otherwise():
    """The original took the logarithm of a difference of probabilities."""
    same = losses.build_kd_loss(TEACHER, TEACHER + 7, 0.0, loss_type="kld")
    np.testing.assert_allclose(same, 0, atol=1e-5)
    other = losses.build_kd_loss(TEACHER, STUDENT, 0.0, loss_type="kld")
    reverse = losses.build_kd_loss(STUDENT, TEACHER, 0.0, loss_type="kld")
    assert other > 0.1 and abs(float(other - reverse)) > 1e-3, "teacher first"


def test_original_cross_entropy_of_teacher_and_student_use_one_temperature():
    """With equal logits the gradient vanishes; the original divided only the teacher's."""
    student = tf.constant(TEACHER, tf.float32)
    for kind in ("xent", "kld"):
        with tf.GradientTape() as tape:
            tape.watch(student)
            loss = losses.build_kd_loss(TEACHER, student, 0.0, 3.0, loss_type=kind)
        np.testing.assert_allclose(tape.gradient(loss, student), 0, atol=1e-6)


@pytest.mark.parametrize("kind", ["mse", "xent", "kld"])
def test_distillation_gradients(kind):
    def loss(student):
        return losses.build_kd_loss(TEACHER, student, 0.3, 2.0, LABELS, kind)

    (analytic,), (numeric,) = tf.test.compute_gradient(loss, [tf.constant(STUDENT, tf.float32)], delta=1e-2)
    np.testing.assert_allclose(analytic, numeric, atol=5e-3)
    teacher = tf.constant(TEACHER, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(teacher)
        value = losses.build_kd_loss(teacher, STUDENT, 0.3, 2.0, LABELS, kind)
    assert tape.gradient(value, teacher) is None, "no gradient reaches the teacher"


def test_distillation_refuses_what_it_cannot_mean():
    with pytest.raises(ValueError, match="unknown loss_type 'kl'; accepted: mse, xent, kld"):
        losses.build_kd_loss(TEACHER, STUDENT, loss_type="kl")
    with pytest.raises(ValueError, match="needs labels"):
        losses.build_kd_loss(TEACHER, STUDENT, loss_type="xent")
    with pytest.raises(ValueError, match="teacher logits are"):
        losses.build_kd_loss(TEACHER[:, :3], STUDENT)


@pytest.mark.parametrize(("teacher_layers", "student_layers", "pairs"), [
    (12, 6, [0, 2, 4, 6, 8, 10]), (12, 5, [0, 3, 5, 8, 10]), (3, 3, [0, 1, 2]), (4, 0, []),
])  # fmt: skip
def test_probes_learn_from_the_layer_at_the_same_height(teacher_layers, student_layers, pairs):
    teacher = [RNG.normal(size=(5, 4)) for _ in range(teacher_layers + 1)]
    student = [RNG.normal(size=(5, 4)) for _ in range(student_layers + 1)]
    expected = sum(kd_oracle("kld", teacher[t], student[s], 0.5, 2.0) for s, t in enumerate(pairs))
    found = losses.build_kd_probes_loss(teacher, student, 0.5, 2.0, LABELS, "kld")
    np.testing.assert_allclose(found, expected, rtol=1e-5)


TARGET, PREDICTED = (RNG.normal(size=(2, 3, 6)) * 2 for _ in range(2))


def patch_oracles():
    t, p = np.log(softmax(TARGET)), np.log(softmax(PREDICTED))
    return {"mse": ((t - p) ** 2).mean(), "kld": (np.exp(t) * (t - p)).sum(-1).mean()}


@pytest.mark.parametrize("kind", ["mse", "kld"])
def test_patch_losses(kind):
    loss = getattr(losses, f"image_reconstruction_{kind}_loss")
    for shape in ((2, 3, 6), (6, 6)):
        found = loss(PREDICTED.reshape(shape), TARGET.reshape(shape), 3, 6)
        np.testing.assert_allclose(found, patch_oracles()[kind], rtol=1e-5)
    predicted = tf.constant(PREDICTED, tf.float32)
    (analytic,), (numeric,) = tf.test.compute_gradient(lambda x: loss(x, TARGET, 3, 6), [predicted], delta=1e-2)
    np.testing.assert_allclose(analytic, numeric, atol=5e-3)
    np.testing.assert_allclose(loss(PREDICTED + 5, PREDICTED, 3, 6), 0, atol=1e-5)


def test_patch_divergence_of_distant_features_is_finite():
    """The original clipped probabilities, so features without overlap had no gradient."""
    target, predicted = np.array([[100.0, 0, 0]]), tf.constant([[0.0, 0, 100]])
    with tf.GradientTape() as tape:
        tape.watch(predicted)
        loss = losses.image_reconstruction_kld_loss(predicted, target, 1, 3)
    np.testing.assert_allclose(loss, 100, rtol=1e-5)
    assert np.abs(tape.gradient(loss, predicted)).max() > 0.9


# The names of the original ----------------------------------------------------------------------------------------

ORIGINAL = {
    "softmax_cross_entropy": "labels depth logits",
    "mean_square_error": "labels logits",
    "multi_label_sigmoid_cross_entropy": "labels depth logits",
    "sequence_labeling_loss": "logits labels num_labels",
    "comprehension_loss": "logits labels",
    "matching_embedding_margin_loss": "",
    "masked_language_model_loss": "lm_logits masked_lm_ids masked_lm_weights vocab_size",
    "next_sentence_prediction_loss": "nsp_logits nx_sent_labels",
    "image_reconstruction_mse_loss": "mpm_logits target_raw_patch_features masked_image_token_num patch_feature_size",
    "image_reconstruction_kld_loss": "mpm_logits target_raw_patch_features masked_image_token_num patch_feature_size",
    "build_kd_loss": "teacher_logits student_logits task_balance distill_tempreture labels loss_type",
    "build_kd_probes_loss": "teacher_logits student_logits task_balance distill_tempreture labels loss_type",
}


@pytest.mark.parametrize("name", ORIGINAL)
def test_every_loss_has_its_arguments_and_a_docstring(name):
    loss = getattr(losses, name)
    expected = ORIGINAL[name].split()
    assert list(inspect.signature(loss).parameters)[: len(expected)] == expected
    assert "Returns" in loss.__doc__ and "Args:" in loss.__doc__
    assert name in losses.__all__ and name in dir(losses)


def test_no_other_name_is_offered():
    assert set(losses.__all__) == set(ORIGINAL)


def test_original_sequence_labeling_loss_averages_over_tags():
    """The original divided by all positions, so padding made the loss smaller."""
    logits, labels = RNG.normal(size=(2, 4, 3)), np.array([[0, 2, -1, -1], [1, -1, -1, -1]])
    rows = [(0, 0, 0), (0, 1, 2), (1, 0, 1)]
    expected = np.mean([-np.log(softmax(logits[b, t])[y]) for b, t, y in rows])
    np.testing.assert_allclose(losses.sequence_labeling_loss(logits, labels, 3), expected, rtol=1e-5)


def test_original_comprehension_loss_pairs_each_row_with_itself():
    """Positions [batch, 1] were broadcast against logits [batch, time], which mixed the examples of a batch."""
    start, end = RNG.normal(size=(3, 5)), RNG.normal(size=(3, 5))
    places = np.array([0, 4, 2]), np.array([1, 4, 3])
    expected = (cross_entropy(places[0], start) + cross_entropy(places[1], end)) / 2
    for column in (False, True):
        given = tuple(side[:, None] for side in places) if column else places
        np.testing.assert_allclose(losses.comprehension_loss((start, end), given), expected, rtol=1e-5)


def test_margin_loss_of_the_original():
    a, b = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    s = unit[0] @ unit[1].T
    terms = [max(0, 0.3 - s[i, i] + s[i, j]) if i != j else 0 for i in range(4) for j in range(4)]
    np.testing.assert_allclose(losses.matching_embedding_margin_loss(a, b), np.mean(terms), rtol=1e-5)
