"""Win prediction: groups, networks against NumPy, properties that hold by construction, losses, stages, scaling."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from tiny_games import GROUPS, PHASES, built, config_of, encoded, game_rows, prepared

from appzoo.win_prediction import losses
from appzoo.win_prediction.fidelity import exchanged, measured_fidelity, other_future, without_group
from appzoo.win_prediction.groups import FeatureColumn, FeatureGroup, parse_groups
from appzoo.win_prediction.scaling import load_scaling, save_scaling
from easytransfer.errors import ModelError
from easytransfer.train.step import EVALUATION, Step

KINDS = ["gru", "lstm", "mlp", "phase", "uniform"]


def options(kind: str) -> dict:
    return {"temporal": kind, "phases": PHASES if kind == "phase" else []}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# Declarations ------------------------------------------------------------------------------------------------


def test_groups_are_read_as_declared():
    assert parse_groups(
        ["gold = log(gold)", "kill=kill  participation", "tower = log(tower:3) x:2", "h = heroes(a b)"]
    ) == (
        FeatureGroup("gold", (FeatureColumn("gold", 1, True),)),
        FeatureGroup("kill", (FeatureColumn("kill"), FeatureColumn("participation"))),
        FeatureGroup("tower", (FeatureColumn("tower", 3, True), FeatureColumn("x", 2))),
        FeatureGroup("h", heroes=("a", "b")),
    )


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], "at least one group"),
        (["gold"], "'gold' declares no group"),
        (["gold ="], "declares no group"),
        (["a = x", "a = y"], "group a is declared twice"),
        (["a = x", "b = x"], "column x is declared twice"),
        (["time = x"], "a group cannot be called time"),
        (["a = log(x"], "'log\\(x' in 'a = log\\(x' is no column"),
        (["a = x:0"], "is no column"),
        (["a = heroes(x y)"], "a group with columns of the frames is needed"),
        (["a = x", "b = heroes(c d)", "e = heroes(f g)"], "only one group may be a line-up"),
    ],
)
def test_wrong_groups_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        parse_groups(groups)
    with pytest.raises(ValueError, match=message):
        config_of(groups=groups)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temporal": "phase", "phases": ["one"]}, "needs two or more model.phases"),
        ({"training": "joint", "spatial_from": "run"}, "takes the place of the spatial stage"),
        ({"groups": ["a = label"]}, "data.label_name=label is also a column of model.groups"),
        ({"groups": ["a = minute"]}, "data.first_sequence=minute is also a column"),
        ({"spatial_units": [0]}, "at least one unit"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        config_of(**settings)


# Networks ----------------------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_sheet(tmp_path):
    """Six groups of 1, 2, 3, 5, 3 and 9 columns: 2,000 and 1,303 parameters in the tiny configuration."""
    widths = {"gold": 1, "kill": 2, "tower": 3, "wild": 5, "soldier": 3, "heroes": 9}
    rows = [{"minute": [0, 0.5], "label": 1, **{name: [0.5] * 2 * width for name, width in widths.items()}}]
    groups = [f"{name} = {name}:{width}" for name, width in widths.items()]
    app, _ = built(tmp_path, rows, groups=groups, spatial_units=[16, 16], temporal_units=16)
    count = [
        sum(int(np.prod(v.shape)) for v in part) for part in (app.model.spatial.weights, app.model.temporal_variables())
    ]
    assert count == [2000, 1303]
    assert len(app.model.weights) == len(app.model.spatial.weights) + len(app.model.temporal_variables())


def numpy_scores(app, frames: np.ndarray) -> np.ndarray:
    """Scores of scaled frames [frames, features] by the formula."""
    found, start = [], 0
    for group, network in zip(app.games.groups, app.model.spatial.networks, strict=True):
        x = frames[:, start : start + group.width].astype(np.float64)
        for layer in network.hidden:
            x = np.tanh(x @ layer.kernel.numpy().astype(np.float64))
        found.append((x @ network.score.kernel.numpy().astype(np.float64))[:, 0])
        start += group.width
    return np.stack(found, axis=-1)


def numpy_states(app, inputs: np.ndarray, kind: str) -> np.ndarray:
    """Hidden states of a GRU (reset after the product) or an LSTM, frame by frame."""
    kernel, recurrent, bias = (weight.numpy().astype(np.float64) for weight in app.model.temporal.cell.weights)
    units, hidden, memory, found = recurrent.shape[0], np.zeros(recurrent.shape[0]), np.zeros(recurrent.shape[0]), []
    for x in inputs:
        if kind == "gru":
            update, reset, new = np.split(x @ kernel + bias[0], 3)
            update_h, reset_h, new_h = np.split(hidden @ recurrent + bias[1], 3)
            z, r = sigmoid(update + update_h), sigmoid(reset + reset_h)
            hidden = z * hidden + (1 - z) * np.tanh(new + r * new_h)
        else:
            i, f, c, o = np.split(x @ kernel + hidden @ recurrent + bias, 4)
            memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(c)
            hidden = sigmoid(o) * np.tanh(memory)
        assert hidden.shape == (units,)
        found.append(hidden)
    return np.array(found)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_those_of_the_formulas(kind, tmp_path):
    app, table = built(tmp_path, **options(kind))
    batch = table.batch([0])
    frames = int(batch["frames_mask"].sum())
    raw = batch["frames"][0, :frames].astype(np.float64)
    gold = np.sign(raw[:, :1]) * np.log(1 + np.abs(raw[:, :1]) / 1000)
    every = np.concatenate([table.columns["frames"][row] for row in range(len(table))]).astype(np.float64)
    every[:, 0] = np.sign(every[:, 0]) * np.log(1 + np.abs(every[:, 0]) / 1000)
    scaled = np.concatenate([gold, raw[:, 1:]], axis=1) / np.sqrt((every**2).mean(axis=0))
    scores = numpy_scores(app, scaled)
    time = batch["minutes"][0, :frames, None] / 20
    temporal = app.model.temporal
    if kind in ("gru", "lstm"):
        hidden = numpy_states(app, np.concatenate([np.abs(scores), time], axis=1), kind)
    elif kind == "mlp":
        kernel, bias = (weight.numpy() for weight in temporal.hidden.weights)
        hidden = np.tanh(time @ kernel + bias)
    if kind == "uniform":
        weights = np.full(scores.shape, 1 / 3)
    else:
        logits = temporal.table.numpy()[batch["phase"][0, :frames]] if kind == "phase" else None
        if logits is None:
            logits = hidden @ temporal.head.kernel.numpy() + temporal.head.bias.numpy()
        weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    contributions = np.exp(float(app.model.log_scale)) * weights * scores
    expected = {
        "scores": scores,
        "weights": weights,
        "contributions": contributions,
        "logit": contributions.sum(axis=1),
    }
    found = app.forward(app.model_inputs(batch))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name][0, :frames], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_the_scale_begins_with_the_number_of_groups(tmp_path):
    app = prepared(config_of())
    app.on_train_table(encoded(app, game_rows(), tmp_path).encoded)
    assert np.exp(float(app.build_model().log_scale)) == pytest.approx(3)
    bounded, table = built(tmp_path, score_bound="tanh", scale="none")
    assert bounded.model.log_scale is None
    found = bounded.forward(bounded.model_inputs(table.batch([0])))
    assert np.abs(found["scores"]).max() < 1
    np.testing.assert_allclose(found["contributions"], found["weights"] * found["scores"], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_attribution_is_complete_odd_and_causal(kind, tmp_path):
    app, table = built(
        tmp_path, game_rows(8, seed=4), groups=[*GROUPS, "line_up = heroes(heroes_a heroes_b)"], **options(kind)
    )
    arrays = app.model_inputs(table.batch(range(len(table))))
    real = arrays["frames_mask"] == 1
    found = {name: value.numpy() for name, value in app.forward(arrays).items()}
    gap = found["logit"] - found["contributions"].sum(axis=-1)
    assert np.abs(gap[real]).max() < 1e-5 and np.abs(found["logit"][real]).min() > 0
    np.testing.assert_allclose(found["weights"].sum(axis=-1), 1, atol=1e-6)
    other = app.forward(exchanged(arrays))
    np.testing.assert_allclose(other["contributions"], -found["contributions"], atol=1e-6)
    np.testing.assert_allclose(other["weights"], found["weights"], atol=1e-6)
    known, changed = other_future(arrays)
    assert not np.array_equal(changed["frames"], arrays["frames"])
    later = app.forward(changed)
    for name, value in later.items():
        at = real & known
        np.testing.assert_allclose(value.numpy()[at], found[name][at], atol=1e-6, err_msg=name)


def test_fidelity_is_measured_as_by_hand(tmp_path):
    app, table = built(tmp_path, game_rows(7, seed=2))
    measured = measured_fidelity(table, app.games.groups, app._outputs, batch=3)
    assert measured["oddness_gap"] <= 1e-6 and measured["causality_gap"] <= 1e-6
    top, least, every = [], [], []
    for row in range(len(table)):
        batch = app.model_inputs(table.batch([row]))
        frames = int(batch["frames_mask"].sum())
        logit, contributions = (app.forward(batch)[name][0, :frames].numpy() for name in ("logit", "contributions"))
        flips = []
        for columns in (slice(0, 1), slice(1, 4), slice(4, 5)):
            zeroed = batch["frames"].copy()
            zeroed[..., columns] = 0
            flips.append(np.sign(app.forward({**batch, "frames": zeroed})["logit"][0, :frames]) != np.sign(logit))
        for frame in range(frames):
            supports = contributions[frame] * np.sign(logit[frame])
            top.append(flips[int(supports.argmax())][frame])
            least.append(flips[int(np.abs(contributions[frame]).argmin())][frame])
            every.append(np.mean([flip[frame] for flip in flips]))
    expected = {"deletion_top": np.mean(top), "deletion_least": np.mean(least), "deletion_random": np.mean(every)}
    assert {name: measured[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert measured["deletion_top"] > 0


def test_a_group_is_left_out_whole(tmp_path):
    app, table = built(tmp_path, groups=[*GROUPS, "line_up = heroes(heroes_a heroes_b)"])
    arrays = app.model_inputs(table.batch([0, 1]))
    for number in range(4):
        found = app.forward(without_group(arrays, app.games.groups, number))["contributions"].numpy()
        assert np.abs(found[..., number]).max() == 0
        assert np.abs(np.delete(found, number, axis=-1)).max() > 0


# Training ----------------------------------------------------------------------------------------------------


class At(Step):
    """A step of a stage."""

    def __init__(self, stage):
        self.stage = stage


def cross_entropy(label, logit):
    p = sigmoid(np.asarray(logit, np.float64))
    return -(label * np.log(p) + (1 - label) * np.log(1 - p))


@pytest.mark.parametrize("balanced", [False, True])
def test_losses_are_those_of_the_formulas(balanced, tmp_path):
    factors = {"entropy_weight": 0.3, "smoothness_weight": 0.7}
    app, table = built(tmp_path, game_balanced=balanced, **factors)
    batch = {name: tf.constant(value) for name, value in table.batch([0, 2, 3], size=4).items()}
    outputs = app.forward(batch)
    spatial = app.losses(batch, outputs, At("spatial"))
    found = {
        name: float(total / weight)
        for name, (total, weight) in {**spatial, **app.losses(batch, outputs, EVALUATION)}.items()
    }
    sums, frames, changes = np.zeros(4), 0.0, 0.0
    for row in range(3):
        count = int(batch["frames_mask"][row].numpy().sum())
        label, share = float(batch["winner"][row]), 1 / count if balanced else 1.0
        s, f, w = (outputs[name][row, :count].numpy().astype(np.float64) for name in ("scores", "logit", "weights"))
        sums[0] += share * cross_entropy(label, s).sum()
        sums[1] += share * cross_entropy(label, f).sum()
        sums[2] += share * -(w * np.log(w)).sum()
        sums[3] += share * ((w[1:] - w[:-1]) ** 2).sum()
        frames, changes = frames + share * count, changes + share * (count - 1)
    expected = {"spatial_loss": sums[0] / frames, "prediction_loss": sums[1] / frames}
    expected |= {"entropy_loss": 0.3 * sums[2] / frames, "smoothness_loss": 0.7 * sums[3] / changes}
    assert found == pytest.approx(expected, rel=1e-5)


def test_weights_of_frames():
    found = losses.frame_weights(tf.constant([[1, 1, 0], [1, 0, 0], [1, 1, 1]]), tf.constant([1.0, 1.0, 0.0]), True)
    np.testing.assert_allclose(found, [[0.5, 0.5, 0], [1, 0, 0], [0, 0, 0]])


def test_detached_scores_get_no_gradient_of_the_prediction(tmp_path):
    for detach in (False, True):
        app, table = built(tmp_path, detach_scores=detach, training="joint")
        batch = {name: tf.constant(value) for name, value in table.batch([0, 1]).items()}
        with tf.GradientTape() as tape:
            outputs = app.forward(batch)
            found = app.losses(batch, outputs, EVALUATION)["prediction_loss"].sum
        gradients = tape.gradient(found, app.model.spatial.trainable_variables)
        assert all((gradient is None) == detach for gradient in gradients)
        names = set(app.losses(batch, outputs, At("joint")))
        assert names == ({"prediction_loss", "spatial_loss"} if detach else {"prediction_loss"})


def test_stages(tmp_path):
    def names(**model):
        return [stage.name for stage in built(tmp_path, **model)[0].stages()]

    assert names() == ["spatial", "temporal"]
    assert names(together_epochs=2) == ["spatial", "temporal", "together"]
    assert names(training="joint") == ["joint"]
    assert names(temporal="uniform") == ["spatial", "temporal"]  # the scale is learnt
    assert names(temporal="uniform", scale="none") == ["spatial"]
    app, _ = built(tmp_path)
    spatial, temporal = (stage.trains for stage in app.stages())
    assert {id(v) for v in spatial} | {id(v) for v in temporal} == {id(v) for v in app.model.trainable_variables}
    assert not {id(v) for v in spatial} & {id(v) for v in temporal}


def test_scaling_is_kept_exactly(tmp_path):
    app, table = built(tmp_path)
    save_scaling(app.scaling, tmp_path)
    again = load_scaling(tmp_path)
    for field in dataclasses.fields(again):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(app.scaling, field.name))
    (tmp_path / "scaling.json").write_text("{}")
    with pytest.raises(ModelError, match="scaling.json is not readable"):
        load_scaling(tmp_path)


def test_a_column_that_is_always_zero_keeps_its_values(tmp_path):
    rows = game_rows()
    for row in rows:
        row["soldier"] = [0.0] * len(row["minute"])
    app, _ = built(tmp_path, rows)
    assert app.scaling.deviation[-1] == 1 and np.isfinite(app.scaling.deviation).all()
