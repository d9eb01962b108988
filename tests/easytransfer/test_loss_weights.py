"""Losses with weights of their own: any split of a batch gives the loss and the update of the whole."""

import numpy as np
import pytest
import tensorflow as tf
from lane_task import PIXELS, LaneTask, lane_table

from easytransfer.config.job import RuntimeConfig, TrainConfig
from easytransfer.train.engine import Engine
from easytransfer.train.step import EVALUATION, Loss, weighted_means

TABLE = lane_table(24)


def engine_of(task=None, precision="none", devices=(), xla=False, **train):
    task = task or LaneTask()
    task.model = task.build_model()
    settings = {
        "learning_rate": 0.05,
        "lr_decay": "constant",
        "warmup_ratio": 0.0,
        "optimizer_type": "adagrad",
        **train,
    }
    runtime = RuntimeConfig(mixed_precision=precision, enable_xla=xla)
    return Engine(task, TrainConfig(**settings), runtime, 10, devices=devices)


def after(batches, **options):
    """Losses of the step and the change of every weight."""
    engine = engine_of(num_accumulated_batches=len(batches), **options)
    before = engine.task.model.get_weights()
    facts = engine.facts([engine.run_step(batches)])
    losses = {name: facts[f"loss/{name}"][0] / facts[f"weight/{name}"][0] for name in ("map", "existence", "number")}
    return losses, [new - old for new, old in zip(engine.task.model.get_weights(), before, strict=True)], facts


class WholeSlots(LaneTask):
    """Without augmentation, whose draws follow the micro-batch."""

    def training_batch(self, batch, draws):
        return batch


def rows(*numbers, size=None):
    return TABLE.batch(np.array(numbers), size=size)


def test_one_batch_against_a_tape():
    task = WholeSlots()
    task.model = task.build_model()
    batch = {name: tf.constant(value) for name, value in rows(*range(24)).items()}
    with tf.GradientTape() as tape:
        losses = task.losses(batch, task.forward(batch, training=True), EVALUATION)
        loss = tf.add_n([total / weight for total, weight in losses.values()])
    gradients = tape.gradient(loss, task.model.trainable_variables)
    found, changes, facts = after([rows(*range(24))], task=WholeSlots(), gradient_clip=False)
    assert sum(found.values()) == pytest.approx(float(loss), rel=1e-6)
    assert facts["grad_norm"][0] == pytest.approx(float(tf.linalg.global_norm(gradients)), rel=1e-5)
    for change, gradient in zip(changes, gradients, strict=True):
        expected = -0.05 * gradient / np.sqrt(0.1 + gradient.numpy() ** 2)
        np.testing.assert_allclose(change, expected, atol=1e-6)


SPLITS = {
    "halves": [rows(*range(12)), rows(*range(12, 24))],
    "three uneven with fillers": [rows(*range(16), size=16), rows(*range(16, 22), size=16), rows(22, 23, size=16)],
}


@pytest.mark.parametrize("precision", ["none", "float16"])
@pytest.mark.parametrize("split", SPLITS)
def test_micro_batches_equal_one_batch(split, precision):
    whole = after([rows(*range(24))], task=WholeSlots(), precision=precision)
    parts = after(SPLITS[split], task=WholeSlots(), precision=precision)
    for name, value in whole[0].items():
        assert parts[0][name] == pytest.approx(value, rel=1e-5), name
    for one, many in zip(whole[1], parts[1], strict=True):
        np.testing.assert_allclose(many, one, atol=1e-5)
    assert parts[2]["loss_scale"][0] == (2.0**15 if precision == "float16" else 1)


def test_a_mean_per_micro_batch_would_be_another_update():
    """What the weights added up ahead are for: each micro-batch by its own weights is off."""
    whole = after([rows(*range(24))], task=WholeSlots())
    losses = []
    for part in SPLITS["three uneven with fillers"]:
        losses.append(after([part], task=WholeSlots())[0])
    mean = sum(sum(each.values()) for each in losses) / 3
    assert abs(mean - sum(whole[0].values())) > 1e-3


@pytest.mark.parametrize("xla", [False, True])
def test_devices_and_compiled_steps_equal_one_batch(xla):
    whole, (found, changes, _) = (
        after([rows(*range(24))]),
        after([rows(*range(24))], devices=() if xla else ("CPU:0", "CPU:0"), xla=xla),
    )
    assert found == pytest.approx(whole[0], rel=1e-5)
    for one, many in zip(whole[1], changes, strict=True):
        np.testing.assert_allclose(many, one, atol=1e-5)


def test_weights_follow_the_augmented_batch():
    (found, _, facts) = after([rows(*range(24))])
    assert facts["weight/existence"][0] < (TABLE.columns["slots"] >= 0).sum()
    # Micro-batches are augmented anew: the weights added up ahead are those that the steps see.
    parts = after([rows(*range(12)), rows(*range(12, 24))])[2]
    engine = engine_of(num_accumulated_batches=2)
    engine.run_step([rows(*range(12)), rows(*range(12, 24))])
    ahead = engine._ahead.totals.numpy()
    np.testing.assert_allclose(ahead, [parts[f"weight/{n}"][0] for n in ("map", "existence", "number")], rtol=1e-6)


def test_losses_that_share_a_weight_need_no_look_ahead():
    class Shared(WholeSlots):
        def losses(self, batch, outputs, step):
            losses = super().losses(batch, outputs, step)
            weight = losses["number"].weight
            return {name: Loss(total, weight) for name, (total, _) in losses.items()}

    engine = engine_of(Shared(), num_accumulated_batches=2)
    engine.run_step([rows(*range(12)), rows(*range(12, 24))])
    assert engine._ahead.needed is False and not engine._ahead._traced


def test_a_weight_that_depends_on_the_model_is_refused():
    class Wrong(WholeSlots):
        def losses(self, batch, outputs, step):
            losses = super().losses(batch, outputs, step)
            return {**losses, "map": Loss(losses["map"].sum, tf.reduce_sum(tf.abs(outputs["pixels"])))}

    with pytest.raises(ValueError, match="depends on the model"):
        engine_of(Wrong(), num_accumulated_batches=2).run_step([rows(*range(12)), rows(*range(12, 24))])


def test_a_weight_may_depend_on_what_is_not_trained():
    class Taught(WholeSlots):
        def build_model(self):
            from easytransfer import keras

            model = super().build_model()
            keras.utils.set_random_seed(2)
            model.teacher = keras.layers.Dense(PIXELS, trainable=False)
            model.teacher.build([None, 8])
            return model

        def losses(self, batch, outputs, step):
            mask = tf.cast(self.model.teacher(batch["x"]) > 0, tf.float32) * batch["example_weight"][:, None]
            far = tf.reduce_sum(tf.square(outputs["pixels"]), axis=-1)
            losses = super().losses(batch, outputs, step)
            return {**losses, "map": Loss(tf.reduce_sum(mask * far), tf.reduce_sum(mask))}

    whole = after([rows(*range(24))], task=Taught())
    parts = after(SPLITS["three uneven with fillers"], task=Taught())
    assert parts[0] == pytest.approx(whole[0], rel=1e-5) and 0 < whole[2]["weight/map"][0] < 24 * PIXELS
    for one, many in zip(whole[1], parts[1], strict=True):
        np.testing.assert_allclose(many, one, atol=1e-5)


def test_moving_averages_move_once_though_the_step_is_traced_twice():
    class Normalised(WholeSlots):
        def build_model(self):
            from easytransfer import keras

            inner = super().build_model()
            x = keras.Input([8], name="x")
            return keras.Model({"x": x}, inner({"x": keras.layers.BatchNormalization(momentum=0.5)(x)}))

    engine = engine_of(Normalised(), num_accumulated_batches=2)
    engine.run_step([rows(*range(12)), rows(*range(12, 24))])
    x = TABLE.columns["x"]
    expected = (0.5 * x[:12].mean(0)) * 0.5 + 0.5 * x[12:].mean(0)
    moving = next(w for w in engine.task.model.weights if "moving_mean" in w.name)
    np.testing.assert_allclose(moving.numpy(), expected, atol=1e-6)


def test_a_loss_without_any_weight_counts_nothing():
    assert weighted_means({"a": 6.0, "b": 0.0}, {"a": 3.0, "b": 0.0}) == {"a": 2.0, "b": 0.0}
    assert np.isnan(weighted_means({"a": 0.0}, {"a": 0.0})["a"])
    table = lane_table(24)
    table.columns["slots"][:] = -1
    engine = engine_of(WholeSlots(), num_accumulated_batches=2)
    facts = engine.facts([engine.run_step([table.batch(np.arange(12)), table.batch(np.arange(12, 24))])])
    assert facts["weight/existence"][0] == 0 and facts["skipped"][0] == 0 and facts["grad_norm"][0] > 0
