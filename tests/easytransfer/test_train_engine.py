"""One training step: accumulation, reduction, clipping, freezing, averaging, loss scaling, several optimizers."""

import numpy as np
import pytest
import tensorflow as tf
from toy_tasks import AdversarialWordTask, GeneratorCriticTask, WordTask, words_table

from easytransfer import keras
from easytransfer.config.job import RuntimeConfig, TrainConfig
from easytransfer.distributed.workers import ONE_WORKER, Workers
from easytransfer.errors import ConfigError
from easytransfer.train.engine import Engine
from easytransfer.train.step import EVALUATION, Loss

TABLE = words_table(96)


def make_engine(task=None, runtime=None, total_steps=10, workers=ONE_WORKER, epoch_batches=None, **train):
    keras.utils.set_random_seed(1)
    task = task or WordTask(dropout=0.0)
    task.model = task.build_model()
    settings = {"learning_rate": 0.05, "lr_decay": "constant", "warmup_ratio": 0.0, **train}
    options = {"workers": workers, "epoch_batches": epoch_batches}
    return Engine(task, TrainConfig(**settings), runtime or RuntimeConfig(), total_steps, **options)


def values(engine):
    return [variable.numpy() for variable in engine.task.model.weights]


def rows(start, stop):
    return TABLE.batch(np.arange(start, stop))


def mean_gradients(task, batch):
    with tf.GradientTape() as tape:
        tensors = {name: tf.constant(value) for name, value in batch.items()}
        total, weight = task.losses(tensors, task.forward(tensors), EVALUATION)["cross_entropy"]
        loss = total / weight
    gradients = tape.gradient(loss, task.model.trainable_variables)
    return [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]


@pytest.mark.parametrize("optimizer", ["adamw", "adagrad"])
def test_accumulated_batches_equal_one_big_batch(optimizer):
    train = {"optimizer_type": optimizer, "weight_decay_ratio": 0.01 if optimizer == "adamw" else 0.0}
    big = make_engine(**train)
    small = make_engine(num_accumulated_batches=3, **train)
    for step in range(3):
        start = 32 * step
        # Unequal parts: 5 + 20 + 7 rows, padded to different widths.
        parts = [rows(start, start + 5), rows(start + 5, start + 25), rows(start + 25, start + 32)]
        facts = big.facts([big.run_step([rows(start, start + 32)])])
        accumulated = small.facts([small.run_step(parts)])
        for name in facts:
            np.testing.assert_allclose(accumulated[name], facts[name], rtol=1e-5)
    for expected, actual in zip(values(big), values(small), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_rows_of_weight_zero_change_nothing():
    plain, padded = make_engine(), make_engine()
    plain.run_step([TABLE.batch(np.arange(6))])
    padded.run_step([TABLE.batch(np.arange(6), size=8)])
    for expected, actual in zip(values(plain), values(padded), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-7)


def test_mean_then_clip_then_update_against_numpy():
    engine = make_engine(optimizer_type="adagrad", clip_norm_value=0.05, num_accumulated_batches=2)
    before, gradients = values(engine), mean_gradients(engine.task, rows(0, 32))
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    assert norm > 0.1
    facts = engine.facts([engine.run_step([rows(0, 16), rows(16, 32)])])
    assert facts["grad_norm"][0] == pytest.approx(norm, rel=1e-5)
    for old, new, gradient in zip(before, values(engine), gradients, strict=True):
        clipped = gradient * 0.05 / norm
        np.testing.assert_allclose(new, old - 0.05 * clipped / np.sqrt(0.1 + clipped**2), atol=1e-7)


def test_without_clipping_gradients_are_left_alone():
    engine = make_engine(optimizer_type="adagrad", clip_norm_value=0.05, gradient_clip=False)
    before, gradients = values(engine), mean_gradients(engine.task, rows(0, 32))
    engine.run_step([rows(0, 32)])
    for old, new, gradient in zip(before, values(engine), gradients, strict=True):
        np.testing.assert_allclose(new, old - 0.05 * gradient / np.sqrt(0.1 + gradient**2), atol=1e-6)


def test_reduction_over_two_equal_workers_changes_nothing_and_sees_every_tensor_once():
    seen = []

    class Twice(Workers):
        def reduce(self, tensors, variables):
            seen.append([tensor.dtype for tensor in tensors])
            for tensor, variable in zip(tensors[:-1], variables, strict=True):
                assert isinstance(tensor, tf.IndexedSlices) or tensor.shape == variable.shape
            return [tf.convert_to_tensor(tensor) * 2 for tensor in tensors]

    alone, reduced = make_engine(), make_engine(workers=Twice())
    for start in (0, 32):
        alone.run_step([rows(start, start + 32)])
        facts = reduced.facts([reduced.run_step([rows(start, start + 32)])])
    assert facts["divisor/default"][0] == facts["weight/cross_entropy"][0] == 64
    assert set(map(len, seen)) == {len(alone.variables()) + 1}
    for expected, actual in zip(values(alone), values(reduced), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("train", "still"),
    [
        ({"num_freezed_layers": 1}, {"embedding", "layer_0"}),
        ({"num_freezed_layers": 2, "freeze_embeddings": False}, {"layer_0", "layer_1"}),
        ({"freeze_embeddings": True}, {"embedding"}),
    ],
)
def test_frozen_layers_do_not_move_and_have_no_slots(train, still):
    engine = make_engine(weight_decay_ratio=0.1, **train)
    model = engine.task.model
    before = {name: getattr(model, name).get_weights() for name in ("embedding", "layer_0", "layer_1", "head")}
    engine.run_step([rows(0, 32)])
    for name, old in before.items():
        same = all(np.array_equal(a, b) for a, b in zip(old, getattr(model, name).get_weights(), strict=True))
        assert same == (name in still), name
    moving = sum(len(old) for name, old in before.items() if name not in still)
    assert len(engine.variables()) == len(engine.optimizers["default"].slots) == moving


def test_freezing_more_layers_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="accepted: 0 to 2"):
        make_engine(num_freezed_layers=3)


def test_layerwise_decay_scales_the_rate_of_each_depth():
    engine = make_engine(layerwise_lr_decay=0.5)
    before = values(engine)
    engine.run_step([rows(0, 32)])
    # The first Adam step has the size of the learning rate where the gradient is not tiny.
    sizes = [np.abs(new - old).max() for old, new in zip(before, values(engine), strict=True)]
    expected = [0.05 * 0.5**power for power in (3, 2, 2, 1, 1, 0, 0)]
    np.testing.assert_allclose(sizes, expected, rtol=2e-2)


def test_average_follows_its_formula():
    engine = make_engine(ema_decay=0.9)
    expected = values(engine)
    for start in (0, 32, 64):
        engine.run_step([rows(start, start + 32)])
        expected = [0.9 * average + 0.1 * new for average, new in zip(expected, values(engine), strict=True)]
    trained = values(engine)
    with engine.averages.applied():
        for average, actual in zip(expected, values(engine), strict=True):
            np.testing.assert_allclose(actual, average, atol=1e-6)
    for old, new in zip(trained, values(engine), strict=True):
        np.testing.assert_array_equal(old, new)


def bad(batch):
    return {**batch, "example_weight": np.full_like(batch["example_weight"], np.inf)}


def test_float16_skips_and_counts_non_finite_steps_and_lowers_the_scale():
    engine, plain = make_engine(runtime=RuntimeConfig(mixed_precision="float16")), make_engine()
    vectors = [engine.run_step([rows(0, 32)])]
    before = values(engine)
    vectors.append(engine.run_step([bad(rows(0, 32))]))
    for old, new in zip(before, values(engine), strict=True):
        np.testing.assert_array_equal(old, new)
    vectors.append(engine.run_step([rows(32, 64)]))
    facts = engine.facts(vectors)
    assert facts["skipped"].tolist() == [0, 1, 0] and facts["failed"].tolist() == [0, 0, 0]
    assert facts["loss_scale"].tolist() == [2.0**15, 2.0**15, 2.0**14]
    assert engine.skipped.numpy() == 1 and engine.step.numpy() == 3
    assert engine.optimizers["default"].iterations.numpy() == 2
    # Scaling by powers of two is exact: the same weights as without it.
    plain.run_step([rows(0, 32)])
    plain.run_step([rows(32, 64)])
    for expected, actual in zip(values(plain), values(engine), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_float16_fails_when_the_scale_cannot_be_lowered():
    engine = make_engine(runtime=RuntimeConfig(mixed_precision="float16"))
    engine.loss_scale.value.assign(2.0)
    facts = engine.facts([engine.run_step([bad(rows(0, 8))]) for _ in range(3)])
    assert facts["failed"].tolist() == [0, 1, 1]


def test_loss_scale_grows_after_enough_finite_steps():
    engine = make_engine(runtime=RuntimeConfig(mixed_precision="float16"))
    engine.loss_scale.growth_steps = 2
    facts = engine.facts([engine.run_step([rows(0, 32)]) for _ in range(5)])
    assert facts["loss_scale"].tolist() == [2.0**15, 2.0**15, 2.0**16, 2.0**16, 2.0**17]


def test_float32_stops_moving_at_the_first_failed_step():
    engine = make_engine(num_accumulated_batches=2)
    engine.run_step([rows(0, 16), rows(16, 32)])
    before = values(engine)
    facts = engine.facts(
        [engine.run_step([bad(rows(0, 16)), rows(16, 32)]), engine.run_step([rows(32, 48), rows(48, 64)])]
    )
    assert facts["failed"].tolist() == [1, 1] and facts["skipped"].tolist() == [1, 0]
    for old, new in zip(before, values(engine), strict=True):
        np.testing.assert_array_equal(old, new)


def test_dropout_repeats_with_the_seed_and_step_and_differs_between_them():
    def first_losses(seed):
        engine = make_engine(WordTask(0.5), RuntimeConfig(seed=seed), learning_rate=1e-12)
        return engine.facts([engine.run_step([rows(0, 32)]) for _ in range(2)])["loss/cross_entropy"]

    one, again, other = first_losses(1), first_losses(1), first_losses(2)
    np.testing.assert_array_equal(one, again)
    assert len({*one.tolist(), *other.tolist()}) == 4


def test_two_players_have_optimizers_of_their_own():
    engine = make_engine(GeneratorCriticTask(0.0), gradient_clip=False)
    model = engine.task.model
    before = [layer.get_weights() for layer in (model.embedding, model.layer_1, model.head)]
    clean = mean_gradients(engine.task, rows(0, 32))
    first = engine.facts([engine.run_step([rows(0, 32)])])
    # The encoder climbs (its loss is -0.5 times the critic's), with Adagrad at its own rate of 1.
    gradient = -0.5 * clean[0]
    expected = before[0][0] - gradient / np.sqrt(0.1 + gradient**2)
    np.testing.assert_allclose(model.embedding.get_weights()[0], expected, atol=1e-5)
    assert first["loss/generator"][0] == pytest.approx(-0.5 * first["loss/critic"][0])
    after = [layer.get_weights() for layer in (model.embedding, model.layer_1, model.head)]
    engine.run_step([rows(32, 64)])
    now = [layer.get_weights() for layer in (model.embedding, model.layer_1, model.head)]
    assert np.array_equal(after[0][0], now[0][0]) and np.array_equal(after[1][0], now[1][0])
    assert not np.array_equal(after[2][0], now[2][0])
    assert engine.optimizers["generator"].iterations.numpy() == 1
    assert engine.optimizers["critic"].iterations.numpy() == 2


def test_adversarial_step_accumulates_like_a_plain_one():
    big = make_engine(AdversarialWordTask(0.0))
    small = make_engine(AdversarialWordTask(0.0), num_accumulated_batches=2)
    big.run_step([rows(0, 32)])
    facts = small.facts([small.run_step([rows(0, 10), rows(10, 32)])])
    assert facts["loss/adversarial"][0] > facts["loss/clean"][0]
    for expected, actual in zip(values(big), values(small), strict=True):
        np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_xla_gives_the_same_step():
    plain, compiled = make_engine(), make_engine(runtime=RuntimeConfig(enable_xla=True))
    for engine in (plain, compiled):
        engine.run_step([rows(0, 32)])
        engine.run_step([rows(32, 40)])
    for expected, actual in zip(values(plain), values(compiled), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


class WrongStep(WordTask):
    def __init__(self, wrong, objectives):
        super().__init__(0.0)
        self.wrong, self.objectives = wrong, objectives

    def train_step(self, step, batch):
        gradients = [tf.zeros_like(variable) for variable in step.variables()]
        step.objective({"nothing": Loss(tf.constant(0.0), tf.constant(1.0))}, *self.objectives)
        self.wrong(step, gradients)
        return {"nothing": Loss(tf.constant(0.0), tf.constant(1.0))}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda step, gradients: None, "did not call step.update"),
        (lambda step, gradients: step.update(gradients[1:]), "7 variables, got 6"),
        (lambda step, gradients: step.update(gradients, "critic"), "none of the optimizers .'default'."),
        (lambda step, gradients: step.update([None] * 7), "depends on none"),
        (lambda step, gradients: [step.update(gradients) for _ in range(2)], "called twice"),
    ],
)
def test_wrong_train_steps_are_explained(wrong, message):
    with pytest.raises(ValueError, match=message):
        make_engine(WrongStep(wrong, ["default"])).run_step([rows(0, 8)])


def test_an_update_without_an_objective_is_explained():
    with pytest.raises(ValueError, match="before step.objective"):
        make_engine(WrongStep(lambda step, gradients: step.update(gradients), ["critic"])).run_step([rows(0, 8)])


def test_the_epoch_is_that_in_which_the_step_begins():
    def epochs(count, batches, **train):
        engine = make_engine(epoch_batches=batches, **train)
        return [(engine.step.assign(step), int(engine.epoch()))[1] for step in range(count)]

    assert epochs(5, 3, num_accumulated_batches=2) == [0, 0, 1, 2, 2], "3 batches an epoch, 2 a step"
    assert epochs(3, 2, num_accumulated_batches=2) == [0, 1, 2]
    assert epochs(7, 3) == [0, 0, 0, 1, 1, 1, 2]
    with pytest.raises(ValueError, match="length of an epoch is not known"):
        make_engine().epoch()
