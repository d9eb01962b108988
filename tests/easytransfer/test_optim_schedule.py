"""Learning-rate schedules against transformers and the original's formula."""

import math

import numpy as np
import pytest
import tensorflow as tf

from easytransfer.config.job import TrainConfig
from easytransfer.optim import Schedule, build_schedule


def rates(schedule, total):
    return np.array([float(schedule(t)) for t in range(total + 1)])


@pytest.mark.parametrize(("total", "ratio"), [(10, 0.0), (37, 0.1), (100, 0.25), (7, 0.1)])
def test_polynomial_is_the_originals_formula(total, ratio):
    warmup = int(total * ratio)
    expected = [2e-5 * (1 - t / total) * (min(1, t / warmup) if warmup else 1) for t in range(total + 1)]
    np.testing.assert_allclose(
        rates(Schedule("polynomial", 2e-5, total, ratio), total), expected, rtol=1e-6, atol=1e-15
    )


def test_warmup_starts_at_zero_and_ends_at_zero():
    values = rates(Schedule("polynomial", 1.0, 20, 0.2), 20)
    assert values[0] == 0 and values[-1] == 0 and values[4] == pytest.approx(0.8)


@pytest.mark.parametrize("warmup", [0, 5])
@pytest.mark.parametrize("name", ["linear_after_warmup", "cosine", "inverse_sqrt", "constant"])
def test_schedules_equal_transformers(name, warmup):
    torch = pytest.importorskip("torch")
    optimization = pytest.importorskip("transformers.optimization")
    total = 40
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    peer = {
        "linear_after_warmup": lambda: optimization.get_linear_schedule_with_warmup(optimizer, warmup, total),
        "cosine": lambda: optimization.get_cosine_schedule_with_warmup(optimizer, warmup, total),
        "inverse_sqrt": lambda: optimization.get_inverse_sqrt_schedule(optimizer, warmup),
        "constant": lambda: optimization.get_constant_schedule_with_warmup(optimizer, warmup),
    }[name]()
    expected = []
    for _ in range(total + 1):
        expected.append(peer.get_last_lr()[0])
        optimizer.step()
        peer.step()
    np.testing.assert_allclose(rates(Schedule(name, 0.5, total, warmup / total), total), expected, rtol=1e-6, atol=1e-9)


def test_step_drops_at_half_and_three_quarters():
    values = rates(Schedule("step", 1.0, 8), 8)
    np.testing.assert_allclose(values, [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01], rtol=1e-6)


def test_step_drops_at_the_milestones_it_is_given():
    config = TrainConfig(lr_decay="step", lr_milestones=[0.25, 0.5, 0.75], learning_rate=1.0, warmup_ratio=0)
    np.testing.assert_allclose(rates(build_schedule(config, 4), 4), [1, 0.1, 0.01, 1e-3, 1e-3], rtol=1e-6)
    never = config.model_copy(update={"lr_milestones": ()})
    np.testing.assert_allclose(rates(build_schedule(never, 4), 4), [1] * 5)


@pytest.mark.parametrize("name", ["none", "warm", "after_warmup", "__init__"])
def test_other_words_mean_constant_after_warmup(name):
    np.testing.assert_allclose(rates(Schedule(name, 1.0, 4, 0.5), 4), [0, 0.5, 1, 1, 1])


def test_schedule_runs_inside_a_graph():
    train = TrainConfig(lr_decay="cosine", learning_rate=3e-4, warmup_ratio=0.0)
    schedule = build_schedule(train, 10)
    inside = tf.function(schedule)(tf.constant(5, tf.int64))
    assert float(inside) == pytest.approx(3e-4 * 0.5 * (1 + math.cos(math.pi * 0.5)), rel=1e-6)


def test_a_polynomial_of_another_power():
    config = TrainConfig(lr_power=0.9, learning_rate=0.02, warmup_ratio=0.25)
    expected = [0.02 * (1 - t / 8) ** 0.9 * min(t / 2, 1) for t in range(9)]
    np.testing.assert_allclose(rates(build_schedule(config, 8), 8), expected, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 13, 202])
def test_warm_up_from_a_share_and_milestones_as_in_the_strong_baseline_of_re_identification(steps):
    """arXiv 1903.07071: from 0.01 of the rate in 10 epochs, a tenth at epochs 40 and 70 of 120."""
    schedule = Schedule("step", 2.0, 120 * steps, 10 / 120, (40 / 120, 70 / 120), warmup_start=0.01)
    found = [float(schedule(epoch * steps)) for epoch in (0, 5, 10, 39, 40, 69, 70, 119)]
    np.testing.assert_allclose(found, [0.02, 1.01, 2, 2, 0.2, 0.2, 0.02, 0.02], rtol=1e-6)
