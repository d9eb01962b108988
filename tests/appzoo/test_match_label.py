"""Which label says that two texts match, and what is said of a training that came out upside down."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from appzoo.discovery import config_class
from appzoo.jobs.tables import load_rows, values_of_column
from appzoo.jobs.trained import new_app
from appzoo.match_label import match_last, says_match
from easytransfer.compat.evaluators import EvalMetric
from easytransfer.compat.hook_task import HookTask
from easytransfer.errors import ConfigError
from easytransfer.run.card import found_limitations
from easytransfer.run.suspicions import upside_down


@pytest.mark.parametrize(
    "match", ["1", "1.0", "True", "YES", "match", "duplicate", "is_duplicate", "Paraphrase", "relevant", "same", "相似"]
)
def test_words_that_say_match_are_known(match):
    assert says_match(match) is True


@pytest.mark.parametrize(
    "other",
    [
        "0",
        "-1",
        "false",
        "no",
        "no match",
        "not_duplicate",
        "non-relevant",
        "irrelevant",
        "mismatch",
        "different",
        "不相似",
    ],
)
def test_words_that_say_no_match_are_known(other):
    assert says_match(other) is False


def test_other_words_are_not_known():
    assert [says_match(label) for label in ("a", "2", "cat", "note", "island")] == [None] * 5


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (["match", "nomatch"], "match"),
        (["duplicate", "other stuff"], "duplicate"),
        (["A", "unrelated"], "A"),
        (["0", "1"], "1"),
        (["True", "false"], "True"),
        (["entailment", "not_entailment"], "entailment"),
    ],
)
def test_sorted_labels_are_turned_so_that_the_match_is_second(labels, match):
    assert match_last(labels, None, listed=False)[1] == match


def test_labels_of_no_known_meaning_need_a_name():
    with pytest.raises(ConfigError, match=r"not known which .* name it: --set model.match_label=dog, or"):
        match_last(["cat", "dog"], None, listed=False)
    with pytest.raises(ConfigError, match="not known which"):
        match_last(["same", "similar"], None, listed=False)
    assert match_last(["cat", "dog"], "cat", listed=False) == ["dog", "cat"]
    assert match_last(["no", "yes"], "no", listed=False) == ["yes", "no"], "the name decides against the word"
    assert match_last(["cat", "dog"], None, listed=True) == ["cat", "dog"], "a list says that the second is the match"
    with pytest.raises(ConfigError, match="match_label is none of the labels; got 'bird'; accepted: cat, dog"):
        match_last(["cat", "dog"], "bird", listed=True)


def test_a_list_with_the_match_first_is_refused():
    with pytest.raises(ConfigError, match="must be second; got .yes,no.; give --labelEnumerateValues=no,yes"):
        match_last(["yes", "no"], None, listed=True)
    with pytest.raises(ConfigError, match="it must be second; got 'a,b'"):
        match_last(["a", "b"], "a", listed=True)
    assert match_last(["yes", "no"], "no", listed=True) == ["yes", "no"]


def test_auto_trains_two_towers_the_right_way_round(tiny_model, tmp_path, capfd):
    table = tmp_path / "t.tsv"
    table.write_text("a\tb\tmatch\nc\td\tnomatch\n")
    columns = {"first_sequence": "first", "second_sequence": "second", "label_name": "label"}
    values = {
        "model_name": "text_match_bert_two_tower",
        "data": columns | {"label_enumerate_values": "auto", "input_schema": "first:str:1,second:str:1,label:str:1"},
        "model": {"pretrain_model_name_or_path": str(tiny_model)},
    }
    app = new_app(config_class(values["model_name"]).model_validate(values))
    app.load_assets(None, lambda column: values_of_column(app, str(table), column))
    assert app.labels == ["nomatch", "match"]
    assert load_rows(app, str(table), True).encoded.columns["label_id"].tolist() == [1, 0]
    assert "label of texts that match: match (of others: nomatch)" in capfd.readouterr().err
    app.save_assets(tmp_path)
    assert json.loads((tmp_path / "label_mapping.json").read_text()) == {"nomatch": 0, "match": 1}
    app.load_assets(tmp_path)
    assert app.labels == ["nomatch", "match"], "a trained run keeps its order"


def test_an_area_below_a_half_is_called_out():
    assert (
        upside_down({"auc": 0.5}, ["no", "yes"]) is None and upside_down({"auc": float("nan")}, ["no", "yes"]) is None
    )
    assert upside_down({"auc": 0.1}, ["a", "b", "c"]) is None and upside_down({}, ["no", "yes"]) is None
    wrong = upside_down({"auc": 0.12}, ["no", "yes"])
    assert wrong.startswith("auc is 0.1200, below 0.5: rows of no score higher than rows of yes, the wrong way round.")
    report = {"labels": ["no", "yes"], "metrics": {"auc": 0.12}, "rows": 500}
    assert wrong in found_limitations({}, {"best": {"auc": 0.9}}, report)


def test_user_defined_metrics_are_called_out_too(capfd):
    task = HookTask(SimpleNamespace(), (), SimpleNamespace(labels=None))
    task._metrics = {
        name: EvalMetric("classification", name.partition("_")[0], classes, None, None)
        for name, classes in (("auc", 2), ("auc_many", 3), ("accuracy", 2))
    }
    task.warn_of({"auc": 0.2, "auc_many": 0.2, "accuracy": 0.2})
    error = capfd.readouterr().err
    assert error.count("warning") == 1 and "auc is 0.2000, below 0.5: rows of class 0 score higher" in error
