"""What an export of win prediction answers: whole prefixes, live streams, typed tables; spatial networks of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tiny_games import GROUPS, PHASES, built, config_of, encoded, game_rows, prepared, table_of
from training import without_export

from appzoo import jobs
from appzoo.win_prediction.groups import columns_of
from easytransfer.errors import ConfigError, ModelError
from easytransfer.train import checkpoint

LINE_UP = "line_up = heroes(heroes_a heroes_b)"


class Served:
    """An application with random weights, its games, and its signatures behind a SavedModel."""

    def __init__(self, folder: Path, **model) -> None:
        self.rows = game_rows(5, seed=1)
        self.app, self.table = built(folder, self.rows, **model)
        self.app.save_assets(folder)
        module = tf.Module()
        module.model = self.app.model
        functions = {
            name: tf.function(signature.function).get_concrete_function(
                **{key: tf.TensorSpec(spec.shape, spec.dtype, name=key) for key, spec in signature.inputs.items()}
            )
            for name, signature in self.app.signatures(folder).items()
        }
        tf.saved_model.save(module, str(folder / "saved"), functions)
        self.loaded = tf.saved_model.load(str(folder / "saved"))

    def __call__(self, signature: str, **inputs) -> dict[str, np.ndarray]:
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        return {name: value.numpy() for name, value in self.loaded.signatures[signature](**tensors).items()}

    def request(self) -> dict[str, np.ndarray]:
        """The games as a client sends them: unscaled, padded with nonsense behind their ends."""
        longest, found = 9, {"num_frames": np.array([len(row["minute"]) for row in self.rows], np.int32)}

        def padded(columns: list[str]) -> np.ndarray:
            values = np.full(
                (len(self.rows), longest, sum(2 if name == "tower" else 1 for name in columns)), 7, np.float32
            )
            for number, row in enumerate(self.rows):
                parts = [np.reshape(row[name], [len(row["minute"]), -1]) for name in columns]
                values[number, : len(row["minute"])] = np.concatenate(parts, axis=1)
            return values

        found["time"] = padded(["minute"])
        for group in self.app.games.groups:
            if group.columns:
                found[group.name] = padded(columns_of(group))
        if self.app.games.phases:
            tags = [[*row["phase"], *["late"] * (longest - len(row["phase"]))] for row in self.rows]
            found["phase"] = np.array(tags, object)[..., None]
        if self.app.games.line_up:
            found["line_up"] = np.array([[row["heroes_a"], row["heroes_b"]] for row in self.rows], np.int32)
        return found


@pytest.fixture(scope="module")
def gru(tmp_path_factory) -> Served:
    return Served(tmp_path_factory.mktemp("gru"), groups=[*GROUPS, LINE_UP])


KINDS = ["gru", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("lstm", "phase"))]


@pytest.fixture(scope="module", params=KINDS)
def served(request, gru, tmp_path_factory) -> Served:
    if request.param == "gru":
        return gru
    phases = PHASES if request.param == "phase" else []
    return Served(tmp_path_factory.mktemp(request.param), temporal=request.param, phases=phases)


def test_a_prefix_is_answered_as_by_the_model_in_memory(served):
    answer = served("serving_default", **served.request())
    outputs = served.app.forward(served.app.model_inputs(served.table.batch(range(5))))
    expected = served.app.postprocess({name: value.numpy() for name, value in outputs.items()}, served.table)
    names = [group.name for group in served.app.games.groups]
    assert [[name.decode() for name in row] for row in answer["group_names"]] == [names] * 5
    for row in range(5):
        frames = len(served.rows[row]["minute"])
        np.testing.assert_allclose(answer["win_prob_curve"][row, :frames], expected["win_probability"][row], atol=1e-5)
        assert not answer["win_prob_curve"][row, frames:].any()
        assert answer["win_prob"][row] == pytest.approx(expected["win_probability"][row][-1], abs=1e-5)
        for number, name in enumerate(names):
            for kind in ("contribution", "weight", "score"):
                wanted = expected[f"{kind}_{name}"][row][-1]
                assert answer[f"{kind}s"][row, number] == pytest.approx(wanted, abs=1e-5)
        assert answer["logit"][row] == pytest.approx(answer["contributions"][row].sum(), abs=1e-5)


def test_frame_by_frame_is_the_same_as_the_prefix(served):
    request = served.request()
    whole = {name: request.pop(name) for name in ("num_frames", *(["line_up"] if "line_up" in request else []))}
    width = served.app.model.temporal.state_width
    state = np.zeros((5, width), np.float32)
    for frame in range(9):
        step = {name: value[:, frame] for name, value in request.items()}
        step |= {name: value for name, value in whole.items() if name == "line_up"}
        answer = served("step", **step, state=state)
        state = answer.pop("state")
        counts = np.full(5, frame + 1, np.int32)
        given = {**request, **{n: v for n, v in whole.items() if n == "line_up"}, "num_frames": counts}
        prefix = served("serving_default", **given)
        for name, value in answer.items():
            if name == "group_names":
                assert value.tolist() == prefix[name].tolist()
            else:
                np.testing.assert_allclose(value, prefix[name], atol=1e-5, err_msg=f"{name} at {frame}")
    assert width == {"gru": 6, "lstm": 12, "phase": 1}[served.app.config.model.temporal]


@pytest.mark.parametrize("counts", [[0, 1, 1, 1, 1], [1, 1, 10, 1, 1]])
def test_a_wrong_number_of_frames_is_refused(gru, counts):
    with pytest.raises(tf.errors.InvalidArgumentError, match="num_frames must be from 1 to the number of frames"):
        gru("serving_default", **{**gru.request(), "num_frames": np.array(counts, np.int32)})


def test_an_unknown_phase_weighs_groups_alike(tmp_path):
    served = Served(tmp_path, temporal="phase", phases=PHASES)
    request = served.request()
    request["phase"][:] = "unheard of"
    np.testing.assert_allclose(served("serving_default", **request)["weights"], 1 / 3, atol=1e-6)


# Typed tables ------------------------------------------------------------------------------------------------


def typed(row: dict, separator: str = ",") -> str:
    columns = {"soldier": row["soldier"], "time": row["minute"], "note": ["x"] * 99, "gold": row["gold"]}
    columns |= {"kill": row["kill"], "tower_1": row["tower"][::2], "tower_2": row["tower"][1::2]}
    columns |= {name: [" ".join(map(str, row[name]))] * 99 for name in ("heroes_a", "heroes_b")}
    lines = [separator.join(columns)]
    for frame in range(len(row["minute"])):
        lines.append(separator.join(f" {values[frame]}" for values in columns.values()))
    return "\r\n".join(lines) + "\n"


def test_typed_games_are_answered_like_requests(gru):
    tables = [typed(row, ",;\t"[number % 3]) for number, row in enumerate(gru.rows)]
    found, expected = gru("page", table=np.array(tables, object)), gru("serving_default", **gru.request())
    assert found["problem"].tolist() == [b""] * 5
    for row, game in enumerate(gru.rows):
        frames = len(game["minute"])
        assert found["curve_length"][row] == frames
        np.testing.assert_allclose(found["curve_x"][row, :frames], game["minute"])
        np.testing.assert_allclose(found["win_prob_curve"][row], expected["win_prob_curve"][row], atol=1e-5)
        np.testing.assert_allclose(
            found["contributions_curve"][row, frames - 1], expected["contributions"][row], atol=1e-5
        )
    np.testing.assert_allclose(found["win_prob"], expected["win_prob"], atol=1e-5)


HEADER = "time,gold,kill,tower_1,tower_2,soldier,heroes_a,heroes_b"
HEROES = "1 2 3 4 5,6 7 8 9 10"


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("", "no column called time"),
        ("anything at all", "no column called time"),
        (HEADER, "no frame below the header"),
        (f"{HEADER}\n0,1,1,1,1,x,{HEROES}", "not a number in column soldier"),
        (f"{HEADER}\n0,1,1,1,nan,1,{HEROES}", "not a number in column tower_2"),
        (f"{HEADER}\n0,1e30,1,1,1,1,{HEROES}", "not a number in column gold"),
        (f"{HEADER}\n0,1,1,1", "not a number in column tower_2"),
        (f"{HEADER}\n1,1,1,1,1,1,{HEROES}\n1,1,1,1,1,1,{HEROES}", "the times are negative or not in order"),
        (f"{HEADER}\n-1,1,1,1,1,1,{HEROES}", "the times are negative or not in order"),
        ("time,gold,kill,tower_1,soldier,heroes_a,heroes_b\n0,1,1,1,1,1,1", "no column called tower_2"),
    ],
)
def test_tables_that_cannot_be_read_have_a_problem_and_others_an_answer(gru, table, problem):
    good = f"{HEADER}\n0,1000,2,1,1,1,{HEROES}\n0.5,1000,2,1,1,1,{HEROES}"
    alone, found = (gru("page", table=np.array(tables, object)) for tables in ([good], [table, good]))
    assert [text.decode() for text in found["problem"]] == [problem, ""]
    assert (
        found["curve_length"].tolist() == [0, 2] and not found["win_prob_curve"][0].any() and found["win_prob"][0] == 0
    )
    np.testing.assert_allclose(found["win_prob_curve"][1, :2], alone["win_prob_curve"][0, :2], atol=1e-6)


# Spatial networks of another run -----------------------------------------------------------------------------


def trained(folder: Path, rows: list[dict], run: str, **model) -> Path:
    table = table_of(rows, folder)
    schema = "minute:float:*,gold:float:*,kill:float:*,tower:float:*,soldier:float:*,label:int:1"
    config = config_of({"num_epochs": 1, "batch_size": 4}, {"input_schema": schema}, **model)
    data = {**config.data.model_dump(), "train_table": table, "eval_table": table}
    values = {**config.model_dump(), "data": data, "checkpoint_dir": str(folder / run)}
    with without_export():
        jobs.train(type(config).model_validate(values))
    return folder / run


@pytest.fixture(scope="module")
def first_run(tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("first"), game_rows(8), "run")


def test_spatial_networks_are_taken_from_a_run(first_run, tmp_path):
    rows, first = game_rows(8), Path(shutil.copytree(first_run, tmp_path / "a"))
    others = [{**row, "gold": [3 * value for value in row["gold"]]} for row in rows]
    second = trained(tmp_path / "b", others, "run", spatial_from=str(first), temporal="lstm")
    old, new = (checkpoint.load(checkpoint.resolve(run), weights_only=True).weights for run in (first, second))
    spatial = [name for name in old if "/spatial/" in name]
    assert len(spatial) == 9 and all(np.array_equal(old[name], new[name]) for name in spatial)
    assert (first / "scaling.json").read_bytes() == (second / "scaling.json").read_bytes()
    assert "stages" not in json.loads((second / "report.json").read_text())
    assert json.loads((second / "run.json").read_text())["frozen"]["spatial"]["path"].startswith(str(first))
    # The prediction needs the first run no more.
    output = tmp_path / "out.timeline.csv"
    words = {"model_name": "win_prediction", "checkpoint_path": str(second)}
    stored = json.loads((second / "train_config.json").read_text())
    data = {**stored["data"], "input_table": table_of(others, tmp_path / "c"), "output_table": str(output)}
    shutil.rmtree(first)
    result = jobs.predict(type(config_of()).model_validate({**stored, **words, "data": data}))
    assert result["written"] == 8 and len(output.read_text().splitlines()) == 1 + sum(
        len(row["minute"]) for row in rows
    )


def test_spatial_networks_that_do_not_fit_are_refused(first_run, tmp_path):
    rows, run = game_rows(4), first_run
    app = prepared(config_of(spatial_from=str(run), spatial_units=[8, 5]))
    app.on_train_table(encoded(app, rows, tmp_path).encoded)
    with pytest.raises(ModelError, match="has other spatial networks; got .* parameters"):
        app.build_model()
    with pytest.raises(ModelError, match="with another set of groups than this run"):
        prepared(config_of(spatial_from=str(run), groups=["gold = gold", *GROUPS[1:]]))
    with pytest.raises((ModelError, ConfigError), match="no spatial networks"):
        prepared(config_of(spatial_from=str(tmp_path / "nowhere")))
