"""Tables of games: bad rows, timelines, published lines, gold graphs, and predictions as timelines."""

from __future__ import annotations

import gzip
import json
import zlib

import numpy as np
import pytest
from tiny_games import GROUPS, PHASES, config_of, encoded, game_rows, prepared

from appzoo import discovery
from appzoo.cli.reader import JobReader
from appzoo.jobs.tables import load_rows
from appzoo.win_prediction import lines, timeline
from appzoo.win_prediction.readers import READERS
from appzoo.win_prediction.writers import WRITERS
from easytransfer.data.bad_rows import BadRows
from easytransfer.errors import DataError


@pytest.fixture(autouse=True)
def registered():
    discovery.resolve("win_prediction")


# Rows of games -----------------------------------------------------------------------------------------------


def test_columns_become_features_in_the_order_of_the_groups(tmp_path):
    rows = game_rows()
    table = encoded(prepared(config_of()), rows, tmp_path).encoded
    for number, row in enumerate(rows):
        tower = np.reshape(row["tower"], [-1, 2])
        expected = np.column_stack([row["gold"], row["kill"], tower, row["soldier"]])
        np.testing.assert_allclose(table.columns["frames"][number], expected, rtol=1e-6)
        np.testing.assert_allclose(table.columns["minutes"][number], row["minute"])
    assert table.columns["winner"].tolist() == [0, 1, 0, 1, 0, 1]
    batch = table.batch(range(6))
    assert batch["frames_mask"].sum(axis=1).tolist() == [len(row["minute"]) for row in rows]


BROKEN = {
    "order": ({"minute": [0, 1, 0.5]}, "minute", "frames out of order: minute 0.5 comes after 1"),
    "twice": ({"minute": [0, 0.5, 0.5]}, "minute", "frames out of order: minute 0.5 comes after 0.5"),
    "negative": ({"minute": [-0.5, 0, 0.5]}, "minute", "negative time: minute -0.5"),
    "missing": ({"minute": [0, 0.5, 2]}, "minute", "missing frames: minute 2 comes after 0.5, and frames are 0.5"),
    "empty": ({"minute": []}, "minute", "no frames: the game is empty"),
    "length": ({"gold": [1, 2]}, "gold", "wrong number of values: 2, and 3 frames of 1 make 3"),
    "width": ({"tower": [1, 2, 3]}, "tower", "wrong number of values: 3, and 3 frames of 2 make 6"),
    "text": ({"gold": ["x", "1", "2"]}, "gold", "not a number: 'x'"),
    "null": ({"gold": None}, "gold", "missing value"),
    "no_winner": ({"label": None}, "label", "missing value"),
    "empty_winner": ({"label": ""}, "label", "no winner: the cell is empty"),
    "draw": ({"label": 0.5}, "label", "no winner: '0.5', which is not 1"),
    "winner_text": ({"label": "red"}, "label", "not a number: 'red'"),
    "phase": ({"phase": ["early", "early", "never"]}, "phase", "unknown phase: 'never'; known: early, midTerm, late"),
    "phases": ({"phase": ["early"]}, "phase", "wrong number of values: 1 phases, and 3 frames"),
    "heroes": ({"heroes_a": [1, 2, 3, 4]}, "heroes_a", "wrong number of values: 4 heroes, and a team has 5"),
    "hero": ({"heroes_b": [1, 2, 3, 4, 1000]}, "heroes_b", "unknown hero: numbers are whole and from 0 to 999"),
}
GOOD = {"minute": [0, 0.5, 1], "gold": [1.5, 2, 3], "kill": [0, 1, 0], "tower": [0] * 6, "soldier": [0, 0, 1]}
GOOD |= {"phase": ["early", "early", "late"], "heroes_a": [1, 2, 3, 4, 5], "heroes_b": [6, 7, 8, 9, 0], "label": 1}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_games_are_bad_rows_with_their_reason(name, tmp_path):
    change, column, reason = BROKEN[name]
    groups = [*GROUPS, "line_up = heroes(heroes_a heroes_b)"]
    app = prepared(config_of(groups=groups, frame_minutes=0.5, temporal="phase", phases=PHASES))
    rows = [GOOD, {**GOOD, **change}, GOOD]
    with pytest.raises(DataError) as error:
        encoded(app, rows, tmp_path)
    assert f"games.jsonl:2: column {column!r}: {reason}" in str(error.value)
    kept = encoded(app, rows, tmp_path, "skip")
    assert (kept.count.read, kept.count.accepted, kept.count.rejected) == (3, 2, 1) and len(kept.encoded) == 2


def test_gaps_are_allowed_where_no_distance_is_set(tmp_path):
    app = prepared(config_of())
    assert encoded(app, [{**GOOD, "minute": [0, 3, 30]}], tmp_path).count.accepted == 1


def test_padding_is_cut_off_by_the_number_of_frames(tmp_path):
    app = prepared(config_of(num_frames_column="num_frames"))
    padded = {**GOOD, "minute": [0, 0.5, 0], "num_frames": 2}
    table = encoded(app, [padded], tmp_path).encoded
    assert table.columns["minutes"][0].tolist() == [0, 0.5] and table.columns["frames"][0].shape == (2, 5)
    for count in (0, 4):
        with pytest.raises(DataError, match=f"'num_frames': wrong number of frames: {count}, and minute has 3"):
            encoded(app, [{**padded, "num_frames": count}], tmp_path)


def test_the_packed_form_of_fixed_width(tmp_path):
    """Tabs between cells, commas in them, frames one after the other, padded with zeros."""
    schema = "game_id:str:1,num_frames:int:1,label:int:1,time:float:4,gold:float:4,kill:float:8"
    data = {"first_sequence": "time", "input_schema": schema}
    app = prepared(config_of(data=data, groups=["gold = gold", "kill = kill:2"], num_frames_column="num_frames"))
    path = tmp_path / "games.tsv"
    path.write_text("a\t2\t1\t0,0.5,0,0\t10,20,0,0\t1,2,3,4,0,0,0,0\nb\t4\t0\t0,0.5,1,1.5\t1,2,3,4\t1,1,2,2,3,3,4,4\n")
    table = load_rows(app, str(path), True).encoded
    np.testing.assert_array_equal(table.columns["frames"][0], [[10, 1, 2], [20, 3, 4]])
    assert table.columns["frames"].lengths.tolist() == [2, 4] and table.columns["winner"].tolist() == [1, 0]


def test_an_unknown_column_is_named(tmp_path):
    with pytest.raises(Exception, match="column 'glod' is not in .*; accepted: .*gold.*; did you mean gold"):
        encoded(prepared(config_of(groups=["gold = glod"])), [GOOD], tmp_path)


# Timelines ---------------------------------------------------------------------------------------------------


def read(path, **model):
    app = prepared(config_of(**model))
    bad = BadRows("skip")
    return app, load_rows(app, str(path), True, bad), bad


def write(path, *text: str):
    path.write_text("\n".join(text) + "\n")
    return path


def test_a_timeline_of_differences(tmp_path):
    path = write(tmp_path / "x.timeline.csv", "game_id,minute,gold,label", "a,0,5,1", "a,1,-7,1", "b,0,2,0")
    _, rows, _ = read(path, groups=["gold = gold"])
    assert rows.count.read == 2 and rows.encoded.columns["winner"].tolist() == [1, 0]
    np.testing.assert_array_equal(rows.encoded.columns["frames"][0], [[5], [-7]])


def test_a_timeline_with_a_line_for_each_team(tmp_path):
    """Team 90 is team A: teams are in the order of their numbers, not of their text."""
    text = ["game_id\tminute\tteam\tgold\tname\twinning_team", "7\t0\t100\t5\tx\t100", "7\t0\t90\t9\ty\t100"]
    text += ["7\t1\t90\t20\ty\t100", "7\t1\t100\t50\tx\t100", "8\t0\t90\t1\tz\t90", "8\t0\t100\t1\tz\t90"]
    path = tmp_path / "x.timeline.tsv.gz"
    path.write_bytes(gzip.compress("\n".join(text).encode()))
    _, rows, _ = read(path, groups=["gold = gold"])
    np.testing.assert_array_equal(rows.encoded.columns["frames"][0], [[4], [-30]])
    assert rows.encoded.columns["winner"].tolist() == [0, 1]


LINES = {
    "pieces": (["a,0,1,1", "b,0,1,1", "a,1,1,1"], 2, "game not in one piece: lines of another game"),
    "cells": (["a,0,1,1", "b,0,1"], 1, "wrong column count: a line has not the 4 cells of the header"),
    "no_game": ([",0,1,1", "b,0,1,1"], 1, "no game: the cell is empty"),
    "two_winners": (["a,0,1,1", "a,1,1,0", "b,0,1,1"], 1, "two winners: 0, 1"),
    "no_number": (["b,0,1,1", "a,0,1,1", "a,1,many,1"], 1, "not a number: 'many'"),
    "no_number_first": (["a,0,1,1", "a,1,many,1", "b,0,1,1"], 1, "wrong numbers: could not convert .*many"),
    "empty_cell": (["b,0,1,1", "a,0,,1"], 1, "not a number: 'an empty cell'"),
    "time": (["b,0,1,1", "a,later,1,1"], 1, "not a number: 'later'"),
    "order": (["a,1,1,1", "a,0,1,1", "b,0,1,1"], 1, "frames out of order: minute 0 comes after 1"),
    "no_winner": (["a,0,1,", "b,0,1,1"], 1, "missing value"),
}


@pytest.mark.parametrize("name", LINES)
def test_bad_games_of_a_timeline(name, tmp_path):
    text, good, reason = LINES[name]
    path = write(tmp_path / "x.timeline.csv", "game_id,minute,gold,label", *text)
    _, rows, bad = read(path, groups=["gold = gold"])
    kind = reason.split(": ")[0]
    assert rows.count.accepted == good and bad.reasons[kind] == rows.count.rejected == 1, bad.reasons
    with pytest.raises(DataError, match=reason):
        load_rows(prepared(config_of(groups=["gold = gold"])), str(path), True)


TEAMS = {
    "one": (["a,0,r,1,r", "a,0,b,1,r", "a,1,r,1,r"], "missing frames: minute 1 has no line of team b"),
    "three": (["a,0,r,1,r", "a,0,b,1,r", "a,0,c,1,r"], "wrong number of teams: b, c, r"),
    "twice": (["a,0,r,1,r", "a,0,b,1,r", "a,0,b,1,r"], "frame twice: minute 0 has 3 lines"),
    "winner": (["a,0,r,1,x", "a,0,b,1,x"], "missing value"),
    "text": (["a,0,r,1,r", "a,0,b,?,r"], "not a number: '\\? and 1.0'"),
}


@pytest.mark.parametrize("name", TEAMS)
def test_bad_games_with_lines_of_teams(name, tmp_path):
    text, reason = TEAMS[name]
    header, good = "game_id,minute,team,gold,winning_team", ["z,0,r,3,b", "z,0,b,1,b"]
    path = write(tmp_path / "x.timeline.csv", header, *good, *text)
    _, rows, bad = read(path, groups=["gold = gold"])
    assert (rows.count.accepted, rows.count.rejected) == (1, 1) and rows.encoded.columns["winner"].tolist() == [1]
    with pytest.raises(DataError, match=reason):
        load_rows(prepared(config_of(groups=["gold = gold"])), str(path), True)


def test_long_games_and_lines_stay_within_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr(timeline, "MOST_LINES", 3)
    monkeypatch.setattr(lines, "MOST_BYTES", 40)
    text = [*(f"a,{minute},1,1" for minute in range(5)), "b,0,1,1", f"c,0,{'1' * 50},1"]
    path = write(tmp_path / "x.timeline.csv", "game_id,minute,gold,label", *text)
    _, rows, bad = read(path, groups=["gold = gold"])
    assert rows.count.accepted == 1
    assert bad.reasons == {"too many lines": 1, "wrong column count": 1}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("game,minute,gold", "has no column game_id"),
        ("game_id,minute,gold,gold", "names a column twice"),
        ("", "no column"),
    ],
)
def test_headers_of_timelines(header, message, tmp_path):
    path = write(tmp_path / "x.timeline.csv", header, "a,0,1")
    with pytest.raises(DataError, match=message):
        load_rows(prepared(config_of(groups=["gold = gold"])), str(path), True)


# Published lines ---------------------------------------------------------------------------------------------


def camp(gold, **more):
    heroes = {str(number): {"profession": ["tank", "mage"] if number == 3 else ["mage"]} for number in range(1, 6)}
    return {"gold": gold, "kill": "4", "hero": heroes, "AD": {"state": True, "id": 3}, "sum": "early", **more}


def published_line(game: str, **frames) -> str:
    return f"{game}\t{json.dumps(frames)}"


def even_and_odd() -> tuple[str, str]:
    names = [f"game{number}" for number in range(20)]
    return tuple(next(name for name in names if zlib.crc32(name.encode()) % 2 == odd) for odd in (0, 1))


HOK_GROUPS = ["gold = gold", "kill = kill participation", "soldier = soldier_down soldier_mid", "heroes = tank mage AD"]


def test_camps_become_teams_by_a_hash_of_the_game(tmp_path):
    winner = camp(300, participation=2, **{"soldier.distance": {"down": 7, "mid": -1}})
    loser = camp(
        "100", AD={"state": False}, hero={"9": {"profession": ["mage"]}}, **{"soldier.distance": {"down": 5, "mid": 4}}
    )
    frames = {"10.0": {"wincp": loser, "losecp": winner}, "2.0": {"wincp": winner, "losecp": loser}}
    even, odd = even_and_odd()
    path = write(tmp_path / "x.hok.json", published_line(even, **frames), "", published_line(odd, **frames))
    _, rows, _ = read(path, groups=HOK_GROUPS)
    # participation stands on one side only, and a lane below 0 is absent: their differences are 0.
    first = np.array([200, 0, 0, 2, 0, 1, 4, 1])
    expected = np.array([first, -first], np.float32)
    np.testing.assert_array_equal(rows.encoded.columns["frames"][0], expected)
    np.testing.assert_array_equal(rows.encoded.columns["frames"][1], -expected)
    assert rows.encoded.columns["minutes"][0].tolist() == [2, 10]
    assert rows.encoded.columns["winner"].tolist() == [1, 0]


def test_the_order_of_camps_says_nothing_of_the_winner():
    from appzoo.win_prediction.published import team_a_won

    share = np.mean([team_a_won(str(number)) for number in range(100_000, 110_000)])
    assert abs(share - 0.5) < 0.02


def test_phases_and_heroes_of_published_games(tmp_path):
    winner, loser = camp(1), camp(2, hero={str(n): {"profession": []} for n in (30, 4, 5, 60, 7)}, sum="")
    even, odd = even_and_odd()
    texts = [published_line(game, **{"0.0": {"wincp": winner, "losecp": loser}}) for game in (even, odd)]
    path = write(tmp_path / "hok_sample_100.json", *texts)
    groups = ["gold = gold", "line_up = heroes(heroes_a heroes_b)"]
    _, rows, _ = read(path, groups=groups, temporal="phase", phases=PHASES)
    heroes = rows.encoded.columns["heroes"]
    assert heroes[0].tolist() == [[1, 2, 3, 4, 5], [4, 5, 7, 30, 60]] and heroes[1].tolist() == heroes[0][::-1].tolist()
    assert rows.encoded.columns["phase"].values.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("alone", "no published game"),
        ("game {broken", "no published game"),
        ("game {}", "no frames: the game is empty"),
        ("game []", "no published game"),
        ('game {"early": {}}', "no published game: minute 'early'"),
        ('game {"0.0": {"losecp": {}}}', "no winner: minute 0 has no wincp"),
        ('game {"0.0": {"wincp": {"gold": "much"}, "losecp": {"gold": 1}}}', "no published game: could not convert"),
        ('game {"0.0": {"wincp": {"gold": NaN}, "losecp": {"gold": 1}}}', "no published game: NaN is no number"),
        ("game " + "[" * 100_000, "no published game"),
    ],
)
def test_bad_published_lines(line, reason, tmp_path):
    good = published_line("good", **{"0.0": {"wincp": camp(1), "losecp": camp(2)}})
    path = write(tmp_path / "x.hok.json", good, line)
    _, rows, bad = read(path, groups=["gold = gold"])
    assert (rows.count.accepted, rows.count.rejected) == (1, 1)
    with pytest.raises(DataError, match=f":2: .*({reason})"):
        load_rows(prepared(config_of(groups=["gold = gold"])), str(path), True)


def test_a_file_without_any_game_names_the_first_reason(tmp_path):
    path = write(tmp_path / "x.hok.json", "nothing here", "nor here")
    with pytest.raises(DataError, match="no record of .*x.hok.json can be read; the first: no published game"):
        load_rows(prepared(config_of(groups=["gold = gold"])), str(path), True)


# Gold graphs -------------------------------------------------------------------------------------------------


def test_gold_graphs(tmp_path):
    fields = ("kill_count", "level", "lh_count", "assists_count")
    names = [f"team_{team}_player_{p}_{field}" for team in (2, 3) for p in range(5) for field in fields]
    header = ["game_time", *(f"graph_gold_{n}" for n in range(4)), *names, "winner"]
    state = [str(team) for team in (3, 1) for _ in range(20)]
    good, lost = ["120", "10", "20", "30", "40", *state, "radiant"], ["90", "1", "2", "3", "4", *state, "nobody"]
    path = write(tmp_path / "x_gold_graph.csv", *(",".join(row) for row in (header, good, lost, ["1"])))
    app, rows, bad = read(path, groups=["gold = gold gold_trend", "players = kills levels last_hits assists"])
    assert (rows.count.accepted, rows.count.rejected) == (1, 2)
    # Points at 0.5, 1, 1.5 and 2 minutes; five players with 3 against five with 1 at the end.
    expected = [[10, 10, 0, 0, 0, 0], [20, 20, 0, 0, 0, 0], [30, 30, 0, 0, 0, 0], [40, 40, 10, 10, 10, 10]]
    np.testing.assert_array_equal(rows.encoded.columns["frames"][0], expected)
    assert rows.encoded.columns["minutes"][0].tolist() == [0.5, 1, 1.5, 2]


def test_real_matches(shared_data, tmp_path):
    dota, lol = (shared_data / "moba" / name for name in ("dota2_gold_graph.csv", "lol_timeline.csv"))
    _, rows, _ = read(dota, groups=["gold = log(gold) gold_trend"])
    assert rows.count.accepted == 2274 and int(rows.encoded.columns["winner"].sum()) == 1197
    _, rows, _ = read(lol, groups=["gold = log(gold) xp", "towers = towers"], frame_minutes=1)
    assert rows.count.accepted == 2 and rows.encoded.columns["winner"].tolist() == [0, 0]
    assert rows.encoded.columns["minutes"].lengths.sum() == 66


# Shipped configurations --------------------------------------------------------------------------------------


def first_row(path) -> dict:
    return next(READERS[next(ending for ending in READERS if path.name.endswith(ending))](str(path)))


def test_shipped_configurations_read_what_their_tables_hold(repository, tmp_path):
    fields = ("kill_count", "level", "lh_count", "assists_count")
    state = [f"team_{team}_player_{p}_{field}" for team in (2, 3) for p in range(5) for field in fields]
    header = ["game_time", "graph_gold_0", *state, "winner"]
    league = "game_id,minute,timestamp_ms,team,gold,xp,level_sum,minions,kills,towers,dragons,barons,winning_team"
    texts = {
        "honor_of_kings": ("x.hok.json", [published_line("g", **{"0.0": {"wincp": camp(1), "losecp": camp(2)}})]),
        "dota2": ("x_gold_graph.csv", [",".join(header), ",".join(["60", *["1"] * 41, "dire"])]),
        "league_of_legends": (
            "x.timeline.csv",
            [league, *(f"1,0,0,{team}{',3' * 8},100" for team in (100, 200))],
        ),
    }
    configs = {path.stem for path in (repository / "appzoo" / "win_prediction" / "configs").glob("*.yaml")}
    assert configs == {*texts, "smoke"}
    for name, (file, text) in texts.items():
        config = (
            JobReader("train", [f"--config={repository}/appzoo/win_prediction/configs/{name}.yaml"], []).read().config
        )
        app, row = prepared(config), first_row(write(tmp_path / file, *text))
        wanted = {*app.input_columns(), *app.label_inputs()}
        assert isinstance(row, dict) and wanted <= row.keys(), (name, row)
        assert any(config.data.train_table.endswith(ending) for ending in READERS), name


# Predictions as timelines ------------------------------------------------------------------------------------


def test_predictions_are_written_frame_by_frame(tmp_path):
    rows = [{"game_id": "a,1", "minutes": [0.0, 0.5], "win_probability": [0.25, 0.75]}]
    rows.append({"game_id": "b", "minutes": [0.0], "win_probability": [0.5]})
    WRITERS["timeline.csv"](tmp_path / "out.csv", iter(rows))
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines == ["game_id,minutes,win_probability", '"a,1",0.0,0.25', '"a,1",0.5,0.75', "b,0.0,0.5"]
    with pytest.raises(ValueError, match="differ in frames"):
        WRITERS["timeline.tsv"](tmp_path / "out.tsv", iter([{"a": [1], "b": [1, 2]}]))
