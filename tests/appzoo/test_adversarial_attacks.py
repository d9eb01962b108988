"""Attacks against hand-worked cases, published fixtures, NumPy versions, and the limits they must keep."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from appzoo.adversarial_training.attacks.auto_step import auto_step, checkpoints
from appzoo.adversarial_training.attacks.ball import Ball
from appzoo.adversarial_training.attacks.gradient import fast_gradient, projected_gradient
from appzoo.adversarial_training.attacks.names import named_attack
from appzoo.adversarial_training.attacks.noise import NumberedDraws, normal_noise, random_start, uniform_noise
from appzoo.adversarial_training.attacks.objectives import objective
from appzoo.adversarial_training.attacks.run import attacked
from easytransfer import keras
from easytransfer.errors import ConfigError
from easytransfer.layers.draws import RowDraws
from easytransfer.losses import adversarial as losses

# The linear model of the sheet's fixtures: logits = W x + b on x flattened row by row from [1, 2, 2].
WEIGHTS = np.array([[1, -2, 3, 0], [0, 2, -1, 1], [-1, 1, 0, 2]], np.float32)
BIAS = np.array([0.1, 0, -0.1], np.float32)
IMAGES = np.array([[0.5, 0.2, 0.9, 0.01], [0.4, 0.6, 0.3, 0.7]], np.float32).reshape(2, 2, 2, 1)
LABELS = np.array([0, 1], np.int32)
SIGNS = np.array([[1, -1, 1, -1], [-1, 1, 1, 1]], np.float32).reshape(2, 2, 2, 1)
STARTS = np.array([[1, -1, 0.5, -0.5], [0.2, -0.4, 0.6, -0.8]], np.float32).reshape(2, 2, 2, 1)
BALL = Ball("linf", 0.031)
ATTACKS = ["fgsm", "noise", "pgd7", "cw7", "kl7", "apgd_ce9", "apgd_dlr9", "apgd9"]


def linear(images: tf.Tensor) -> tf.Tensor:
    return tf.reshape(images, [-1, 4]) @ WEIGHTS.T + BIAS


def steps_from(loss: str, start: np.ndarray, steps: int, step_size: float):
    goal = objective(loss, linear, tf.constant(LABELS), tf.constant(IMAGES))
    return projected_gradient(
        goal, tf.constant(IMAGES), BALL, start=tf.constant(start), steps=steps, step_size=step_size
    )


def rows(found) -> np.ndarray:
    return found.images.numpy().reshape(-1, 4)


# Published fixtures ------------------------------------------------------------------------------------------


def test_linear_model_has_the_logits_of_the_fixture():
    np.testing.assert_allclose(linear(IMAGES), [[2.9, -0.49, -0.38], [0.2, 1.6, 1.5]], atol=1e-6)


def test_kl_steps_end_where_the_fixture_says():
    found = steps_from("kl", IMAGES + 0.001 * SIGNS, 10, 0.007)
    np.testing.assert_allclose(rows(found), [[0.531, 0.169, 0.931, 0], [0.369, 0.631, 0.269, 0.731]], atol=1e-6)
    assert float(tf.reduce_sum(found.steepness)) == pytest.approx(0.43228968265, rel=1e-4)


def test_risks_at_these_points_are_those_of_the_fixture():
    natural, changed = linear(IMAGES), linear(steps_from("kl", IMAGES + 0.001 * SIGNS, 10, 0.007).images)
    risk = float(tf.reduce_mean(losses.cross_entropy_rows(LABELS, natural)))
    robust = float(tf.reduce_mean(losses.kl_rows(natural, changed)))
    assert risk == pytest.approx(0.41752105669, abs=1e-6) and robust == pytest.approx(0.00336168067, abs=1e-6)
    assert risk + 6 * robust == pytest.approx(0.43769114069, abs=1e-5)


def test_cross_entropy_steps_end_where_the_fixture_says():
    found = steps_from("ce", IMAGES + 0.001 * SIGNS, 10, 0.007)
    np.testing.assert_allclose(rows(found), [[0.469, 0.231, 0.869, 0.041], [0.369, 0.569, 0.331, 0.731]], atol=1e-6)
    excess = float(tf.reduce_mean(losses.excess_rows(LABELS, linear(IMAGES), linear(found.images))))
    assert 2 * excess == pytest.approx(0.09990255260, abs=1e-6)


@pytest.mark.parametrize(("step_size", "first"), [(0.007, [0.469, 0.231, 0.869]), (0.003, [0.471, 0.229, 0.869])])
def test_evaluation_steps_end_where_the_fixture_says(step_size, first):
    found = steps_from("ce", IMAGES + 0.031 * STARTS, 20, step_size)
    np.testing.assert_allclose(rows(found), [[*first, 0.041], [0.369, 0.569, 0.331, 0.731]], atol=1e-6)
    assert linear(IMAGES).numpy().argmax(1).tolist() == [0, 1]
    assert linear(found.images).numpy().argmax(1).tolist() == [0, 2]


def test_margin_is_masked_and_not_multiplied():
    logits, labels = tf.constant([[3.0, 1, -2], [-1, -3, -2]]), tf.constant([0, 0])
    np.testing.assert_allclose(losses.margin_rows(labels, logits), [-2, -1])
    # -1.0 with the true logit replaced by 0.
    assert float(tf.reduce_mean(losses.carlini_wagner_rows(labels, logits))) == -1.5


# Losses ------------------------------------------------------------------------------------------------------


def test_losses_equal_numpy():
    random = np.random.default_rng(0)
    z, other, labels = random.normal(size=(9, 5)), random.normal(size=(9, 5)), random.integers(0, 5, 9)
    p, q = (np.exp(each) / np.exp(each).sum(1, keepdims=True) for each in (z, other))
    f32 = [tf.constant(each, tf.float32) for each in (z, other)]
    np.testing.assert_allclose(losses.kl_rows(*f32), (p * np.log(p / q)).sum(1), atol=1e-5)
    row = np.arange(9)
    np.testing.assert_allclose(losses.cross_entropy_rows(labels, f32[0]), -np.log(p[row, labels]), atol=1e-5)
    gained = np.maximum(np.log(p[row, labels] / q[row, labels]), 0)
    np.testing.assert_allclose(losses.excess_rows(labels, *f32), gained, atol=1e-5)
    without = np.where(np.eye(5, dtype=bool)[labels], -np.inf, z).max(1)
    margin, ordered = without - z[row, labels], -np.sort(-z, axis=1)
    np.testing.assert_allclose(losses.margin_rows(labels, f32[0]), margin, atol=1e-5)
    np.testing.assert_allclose(losses.carlini_wagner_rows(labels, f32[0]), np.minimum(margin, 0), atol=1e-5)
    ratio = margin / (ordered[:, 0] - ordered[:, 2])
    np.testing.assert_allclose(losses.logits_ratio_rows(labels, f32[0]), ratio, atol=1e-5)
    np.testing.assert_allclose(losses.logits_ratio_rows(labels, 7 * f32[0]), ratio, atol=1e-5)


def test_kl_has_a_gradient_into_both_arguments():
    first, second = tf.constant([[1.0, 2, 0]]), tf.constant([[0.5, -1, 2]])
    with tf.GradientTape() as tape:
        tape.watch([first, second])
        value = tf.reduce_sum(losses.kl_rows(first, second))
    p, q = (np.exp(x) / np.exp(x).sum() for x in (first.numpy(), second.numpy()))
    logs = np.log(p / q)
    into_first, into_second = tape.gradient(value, [first, second])
    np.testing.assert_allclose(into_first, p * (logs - (p * logs).sum()), atol=1e-6)
    np.testing.assert_allclose(into_second, q - p, atol=1e-6)


def test_what_is_unknown_or_impossible_is_refused():
    with pytest.raises(ValueError, match="accepted: ce, cw, dlr, kl"):
        objective("hinge", linear, LABELS, IMAGES)
    with pytest.raises(ValueError, match="needs three classes"):
        losses.logits_ratio_rows(tf.constant([0]), tf.constant([[1.0, 2]]))
    for name in ("pgd", "pgd0", "cw-20", "square5000"):
        with pytest.raises(ConfigError, match="unknown attack"):
            named_attack(name)
    assert named_attack("apgd100").losses == ("ce", "dlr") and named_attack("apgd100").steps == 100


# Balls and starts --------------------------------------------------------------------------------------------


def test_ball_by_hand():
    centre = tf.constant([[0.5, 0.5, 0.9, 0.1]])
    far = tf.constant([[0.8, 0.1, 1.9, 0.1]])
    np.testing.assert_allclose(Ball("linf", 0.2).project(far, centre), [[0.7, 0.3, 1.0, 0.1]], atol=1e-7)
    # The change (0.3, -0.4, 1, 0) has length sqrt(1.25).
    scale = 0.2 / np.sqrt(1.25)
    expected = [[0.5 + 0.3 * scale, 0.5 - 0.4 * scale, min(0.9 + scale, 1), 0.1]]
    np.testing.assert_allclose(Ball("l2", 0.2).project(far, centre), expected, atol=1e-6)
    gradient = tf.constant([[3.0, -4, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(Ball("linf", 1).direction(gradient), [[1, -1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(Ball("l2", 1).direction(gradient), [[0.6, -0.8, 0, 0], [0, 0, 0, 0]], atol=1e-7)
    np.testing.assert_allclose(Ball("linf", 1).dual_length(gradient), [7, 0])
    np.testing.assert_allclose(Ball("l2", 1).dual_length(gradient), [5, 0])


def test_numbers_of_a_row_do_not_depend_on_its_batch():
    def drawn(numbers, seed=3):
        draws = NumberedDraws(seed, tf.constant(numbers))
        return np.concatenate([draws.uniform(5), draws.uniform(2)], axis=1)

    every = drawn([4, 8, 15, 16, 23])
    compiled = tf.function(lambda numbers: NumberedDraws(3, numbers).uniform(5), jit_compile=True)
    np.testing.assert_array_equal(compiled(tf.constant([4, 8, 15, 16, 23])), every[:, :5])
    np.testing.assert_array_equal(drawn([16, 4]), every[[3, 0]])
    assert len(np.unique(every)) == every.size and not np.isin(drawn([4], seed=4), every).any()


def test_noise_has_its_distribution():
    images = tf.zeros([400, 5, 5, 1])
    for draws in (NumberedDraws(1, tf.range(400)), RowDraws(tf.constant([1, 2]), tf.constant(400))):
        uniform, normal = uniform_noise(images, draws).numpy(), normal_noise(images, draws).numpy()
        assert uniform.shape == normal.shape == (400, 5, 5, 1)
        assert uniform.min() >= -1 and uniform.max() < 1
        assert abs(uniform.mean()) < 0.02 and abs(uniform.var() - 1 / 3) < 0.01
        assert abs(normal.mean()) < 0.03 and abs(normal.std() - 1) < 0.03 and 3 < np.abs(normal).max() < 6


@pytest.mark.parametrize("kind", ["numbered", "by_row"])
def test_starts_in_a_round_ball_are_uniform(kind):
    """Lengths to the power d, and every coordinate of the direction, by the distributions they must have."""
    from scipy import stats

    rows, size = 4000, 12
    draws = NumberedDraws(1, tf.range(rows)) if kind == "numbered" else RowDraws(tf.constant([1, 2]), tf.constant(rows))
    centre = tf.fill([rows, 2, 2, 3], 0.5)
    change = (random_start(centre, Ball("l2", 0.3), draws) - centre).numpy().reshape(rows, size).astype(np.float64)
    length = np.linalg.norm(change, axis=1)
    assert length.max() <= 0.3 + 1e-6
    assert stats.kstest((length / 0.3) ** size, "uniform").pvalue > 0.01
    # The square of a coordinate of a uniform direction is Beta(1/2, (d - 1) / 2); signs are fair.
    direction = change / length[:, None]
    for coordinate in direction.T:
        assert stats.kstest(coordinate**2, stats.beta(0.5, (size - 1) / 2).cdf).pvalue > 0.001
    assert abs((direction > 0).mean() - 0.5) < 0.01
    # Pixels are not correlated, nor are lengths and directions.
    assert np.abs(np.corrcoef(change.T) - np.eye(size)).max() < 0.07
    assert abs(np.corrcoef(length, direction[:, 0])[0, 1]) < 0.05


def test_starts_in_a_cube_are_uniform_and_the_same_as_before():
    from scipy import stats

    draws = lambda: NumberedDraws(3, tf.range(500))  # noqa: E731
    centre = tf.fill([500, 2, 3, 1], 0.5)
    start = random_start(centre, Ball("linf", 0.25), draws()).numpy()
    np.testing.assert_array_equal(start, (centre + 0.25 * uniform_noise(centre, draws())).numpy())
    assert stats.kstest((start.ravel() - 0.25) / 0.5, "uniform").pvalue > 0.01


# Attacks -----------------------------------------------------------------------------------------------------


def network(seed: int) -> keras.Model:
    dense = [keras.layers.Dense(12, activation="tanh"), keras.layers.Dense(4)]
    model = keras.Sequential([keras.layers.Input([3, 3, 1]), keras.layers.Flatten(), *dense])
    random = np.random.default_rng(seed)
    model.set_weights([random.normal(0, 0.5, weight.shape) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize("norm", ("linf", "l2"))
@pytest.mark.parametrize("name", ATTACKS)
def test_ten_thousand_images_stay_in_ball_and_box(norm, name):
    random = np.random.default_rng(5)
    # Some pixels at 0 and 1, where the box cuts the ball.
    images = np.clip(random.uniform(-0.3, 1.3, (10_000, 3, 3, 1)), 0, 1).astype(np.float32)
    labels = random.integers(0, 4, 10_000).astype(np.int32)
    ball = Ball(norm, 0.3)
    draws = RowDraws(tf.constant([1, 2]), tf.constant(10_000))
    model = network(0)
    found = tf.function(lambda x, y: attacked(named_attack(name), model, x, y, ball, draws))(images, labels)
    changed = found.images.numpy()
    assert changed.min() >= 0 and changed.max() <= 1
    change = (changed - images).reshape(10_000, -1)
    lengths = np.abs(change).max(1) if norm == "linf" else np.sqrt(np.square(change.astype(np.float64)).sum(1))
    assert lengths.max() <= 0.3 + 1e-6
    assert np.median(lengths) > 0.05, "the attack does something"
    assert np.isfinite(found.steepness).all()


@pytest.fixture(scope="module")
def trained():
    """A small network trained on blurred blobs, its images and labels."""
    random = np.random.default_rng(2)
    centres = random.uniform(0.3, 0.7, (4, 3, 3, 1))
    labels = random.integers(0, 4, 600).astype(np.int32)
    images = np.clip(centres[labels] + random.normal(0, 0.1, (600, 3, 3, 1)), 0, 1).astype(np.float32)
    model = network(1)
    images, labels = tf.constant(images), tf.constant(labels)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(losses.cross_entropy_rows(labels, model(images)))
        for variable, gradient in zip(model.weights, tape.gradient(loss, model.weights), strict=True):
            variable.assign_sub(0.5 * gradient)

    for _ in range(300):
        step()
    return model, images, labels


def result_of(name: str, trained, ball: Ball):
    model, images, labels = trained
    draws = NumberedDraws(0, tf.range(len(labels)))
    found = tf.function(lambda x: attacked(named_attack(name), model, x, labels, ball, draws))(images)
    logits = model(found.images)
    right = tf.argmax(logits, 1, output_type=tf.int32) == labels
    return float(tf.reduce_mean(tf.cast(right, tf.float32))), losses.cross_entropy_rows(labels, logits).numpy()


@pytest.mark.parametrize("norm", ("linf", "l2"))
def test_attacks_are_ordered_by_strength(norm, trained):
    model, images, labels = trained
    ball = Ball(norm, 0.06 if norm == "linf" else 0.2)
    found = {name: result_of(name, trained, ball) for name in ("noise", "fgsm", "pgd20", "apgd_ce100", "apgd100")}
    clean = losses.cross_entropy_rows(labels, model(images)).numpy()
    assert found["pgd20"][1].mean() > clean.mean() + 0.1, "PGD raises the loss"
    accuracy = {name: value for name, (value, _) in found.items()}
    assert accuracy["noise"] > accuracy["fgsm"] >= accuracy["pgd20"] - 0.005
    assert accuracy["apgd100"] <= accuracy["pgd20"] and accuracy["apgd100"] <= accuracy["apgd_ce100"]
    assert 0.05 < accuracy["pgd20"] < accuracy["noise"] - 0.05, "neither hopeless nor without effect"


@pytest.mark.parametrize("name", ["pgd5", "apgd6"])
def test_compiled_attacks_find_the_same(name, trained):
    model, images, labels = (each[:50] if tf.is_tensor(each) else each for each in trained)
    draws = lambda: NumberedDraws(0, tf.range(50))  # noqa: E731
    attack = lambda: attacked(named_attack(name), model, images, labels, Ball("l2", 0.2), draws()).images  # noqa: E731
    np.testing.assert_allclose(tf.function(attack, jit_compile=True)(), tf.function(attack)(), atol=1e-4)


def test_fgsm_by_hand():
    goal = objective("ce", linear, tf.constant(LABELS), tf.constant(IMAGES))
    with tf.GradientTape() as tape:
        images = tf.Variable(IMAGES)
        loss = tf.reduce_sum(losses.cross_entropy_rows(LABELS, linear(images)))
    expected = np.clip(IMAGES + 0.031 * np.sign(tape.gradient(loss, images)), 0, 1)
    np.testing.assert_allclose(fast_gradient(goal, tf.constant(IMAGES), BALL).images, expected, atol=1e-7)


# APGD against a version written row by row in NumPy ----------------------------------------------------------


def test_checkpoints_of_the_paper():
    # p = 0, .22, .41, .57, .70, .80, .87, .93, .99 by hand; section 3.2.
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(10) == [3, 5, 6, 7, 8, 9]
    assert checkpoints(1) == []


def numpy_apgd(value_and_gradient, centre, start, ball: Ball, steps: int):
    """Algorithm 1 for one image in float64; returns the best point and the step sizes at the end of each iteration."""

    def project(x):
        change = x - centre
        if ball.norm == "linf":
            change = np.clip(change, -ball.epsilon, ball.epsilon)
        elif (length := np.linalg.norm(change)) > ball.epsilon:
            change *= ball.epsilon / length
        return np.clip(centre + change, 0, 1)

    def ahead(gradient):
        return np.sign(gradient) if ball.norm == "linf" else gradient / np.linalg.norm(gradient)

    x = previous = best = project(start)
    loss, gradient = value_and_gradient(x)
    best_loss, best_gradient = loss, gradient
    eta, etas, rises, last_mark, halved_before, checked = 2 * ball.epsilon, [], 0, 0, True, loss
    for k in range(steps):
        z = project(x + eta * ahead(gradient))
        x, previous = (z if k == 0 else project(x + 0.75 * (z - x) + 0.25 * (x - previous))), x
        new, gradient = value_and_gradient(x)
        rises, loss = rises + (new > loss), new
        if loss > best_loss:
            best, best_loss, best_gradient = x, loss, gradient
        if k + 1 in checkpoints(steps):
            halve = rises < 0.75 * (k + 1 - last_mark) or (not halved_before and best_loss <= checked)
            if halve:
                eta, x, loss, gradient = eta / 2, best, best_loss, best_gradient
            halved_before, checked, rises, last_mark = halve, best_loss, 0, k + 1
        etas.append(eta)
    return best, etas


@pytest.mark.parametrize("norm", ("linf", "l2"))
def test_apgd_equals_numpy(norm):
    # A bent valley: gradient steps overshoot, so step sizes are halved at different times.
    def both(x):
        a, b, c, d = (x[..., i] for i in range(4))
        value = -(8 * (a - 0.62) ** 2 + 30 * (b - a * a) ** 2 + (c - 0.45) ** 2 + 3 * (c * d - 0.1) ** 2)
        return value

    def with_slope(x):
        with tf.GradientTape() as tape:
            point = tf.constant(x, tf.float64)
            tape.watch(point)
            value = both(point)
        return float(value), tape.gradient(value, point).numpy()

    random = np.random.default_rng(8)
    centres = random.uniform(0.2, 0.8, (6, 4))
    starts = centres + random.uniform(-0.1, 0.1, (6, 4))
    ball = Ball(norm, 0.25)
    goal = lambda x: (both(x), tf.zeros(tf.shape(x)[:1], tf.bool))  # noqa: E731
    images = tf.constant(centres, tf.float32)
    found = auto_step(goal, images, ball, start=tf.constant(starts, tf.float32), steps=25).images.numpy()
    halvings = set()
    for row in range(6):
        expected, etas = numpy_apgd(with_slope, centres[row], starts[row], ball, 25)
        np.testing.assert_allclose(found[row], expected, atol=2e-4, err_msg=f"row {row}")
        halvings.add(tuple(np.flatnonzero(np.diff(etas))))
    assert len(halvings) > 1, "the rows differ in when they halve their steps"


def test_apgd_keeps_what_fooled_the_model():
    # The loss goes on rising where the row is classified right again.
    def goal(x):
        return x[:, 0], (x[:, 0] > 0.52) & (x[:, 0] < 0.6)

    images = tf.constant([[0.5], [0.3]])
    found = auto_step(goal, images, Ball("linf", 0.2), start=images + 0.03, steps=5).images.numpy()
    assert found[0, 0] == pytest.approx(0.53) and found[1, 0] == pytest.approx(0.5)
