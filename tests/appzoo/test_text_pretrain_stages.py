"""Stages of a pre-training on shorter sequences: how rows are cut, and that a run goes on exactly inside each."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from appzoo.text_pretrain.config import TextPretrainConfig
from appzoo.text_pretrain.lengths import RowCutter
from easytransfer.data.batches import Batches
from easytransfer.data.encoded import EncodedTable, Ragged
from easytransfer.errors import ConfigError, Interrupted
from easytransfer.layers.draws import RowDraws

NETWORK = Path("examples/text_pretrain/tiny-bert")


class Special:
    cls_id, sep_id, pad_id = 2, 3, 0


def rows_of(lengths: list[int], width: int) -> tuple[np.ndarray, dict[str, tf.Tensor]]:
    """Rows whose pieces count from 10."""
    ids = np.zeros((len(lengths), width), np.int32)
    for row, length in enumerate(lengths):
        ids[row, : length + 2] = [2, *range(10, 10 + length), 3]
    mask = (ids > 0).astype(np.int32)
    weight = tf.constant([1.0] * (len(lengths) - 1) + [0.0])
    return ids, {"input_ids": tf.constant(ids), "input_mask": tf.constant(mask), "example_weight": weight}


def test_rows_are_cut_into_whole_short_ones():
    """40 pieces in rows of at most 14: 3 parts of 12, what is over is cut off at both ends."""
    lengths = [40, 40, 36, 30, 12, 5, 40]
    ids, batch = rows_of(lengths, 42)
    cutter = RowCutter(Special(), 42, 14)
    assert cutter.parts == 3
    batch["inside_word"] = tf.constant((ids % 2).astype(np.int32))
    found, _ = cutter.cut(batch, RowDraws(tf.constant([1, 2]), tf.constant(7)))
    arrays = {name: value.numpy() for name, value in found.items()}
    firsts = []
    for row, length in enumerate(lengths):
        text = []
        for part in range(3):
            own = {name: value[3 * row + part] for name, value in arrays.items()}
            size = int(own["input_mask"].sum()) - 2
            pieces = own["input_ids"][1 : 1 + size].tolist()
            assert own["input_ids"].tolist() == [2, *pieces, 3] + [0] * (12 - size)
            assert own["inside_word"][1 : 1 + size].tolist() == [piece % 2 for piece in pieces]
            assert own["example_weight"] == float(size > 0 and row < 6)
            text += pieces
        begin = text[0]
        assert text == list(range(begin, begin + min(length, 36))) and 0 <= begin - 10 <= max(length - 36, 0)
        firsts.append(begin)
    assert len(set(firsts)) > 1
    # Narrow batches have fewer parts; what is drawn for a row is the same.
    _, narrow = rows_of([12, 5], 16)
    short, draws = cutter.cut(narrow, RowDraws(tf.constant([1, 2]), tf.constant(2)))
    assert short["input_ids"].shape == (4, 14)
    _, wide = rows_of([12, 5], 42)
    _, others = cutter.cut(wide, RowDraws(tf.constant([1, 2]), tf.constant(2)))
    every = others.uniform(5).numpy().reshape(2, 3, 5)
    np.testing.assert_array_equal(draws.uniform(5).numpy().reshape(2, 2, 5), every[:, :2])


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ("128", "has '128', not length:epochs"),
        ("128:0", "has '128:0', not length:epochs"),
        ("4:1", "has '4:1', not length:epochs"),
        ("64:1,32:1", "lengths that rise and lie below data.sequence_length=128"),
        ("64:1,64:2", "lengths that rise"),
        ("128:1", "lengths that rise and lie below"),
    ],
)
def test_stages_that_mean_nothing_are_refused(stages, said):
    with pytest.raises(ValidationError, match=said):
        TextPretrainConfig(model={"short_stages": stages})


def test_pairs_and_records_are_not_cut(repository, tmp_path):
    with pytest.raises(ValidationError, match="pairs cannot be cut"):
        TextPretrainConfig(model={"short_stages": "64:1", "pair_task": "sop"})
    app = app_of(repository)
    with pytest.raises(ConfigError, match="say which words are hidden"):
        app.on_train_table(EncodedTable({"masked_lm_positions": np.zeros((3, 2), np.int32)}))


def app_of(repository: Path, optimizer: str = "lamb"):
    from appzoo.text_pretrain.app import TextPretrain

    config = TextPretrainConfig(
        model_name="text_pretrain",
        data={"sequence_length": 32},
        model={
            **{"pretrain_model_name_or_path": str(repository / NETWORK), "from_scratch": True},
            **{"short_stages": "12:1.5"},
        },
        train={
            **{"num_epochs": 1, "batch_size": 8, "optimizer_type": optimizer, "learning_rate": 1e-3},
            **{"save_checkpoint_steps": 1, "log_step_count_steps": 1, "weight_decay_ratio": 0.01},
        },
    )
    app = TextPretrain(config)
    app.load_assets(None)
    return app


def table() -> EncodedTable:
    random = np.random.default_rng(3)
    rows = [[2, *random.integers(5, 40, random.integers(6, 30)), 3] for _ in range(24)]
    segments = [[0] * len(row) for row in rows]
    columns = {"input_ids": Ragged.from_lists(rows), "segment_ids": Ragged.from_lists(segments)}
    return EncodedTable(columns, {"input_mask": "input_ids"})


def trained(repository: Path, folder: Path, reporter=None) -> dict[str, np.ndarray]:
    from easytransfer.train.trainer import Trainer

    app = app_of(repository)
    seen = []
    whole = app._of_stage

    def watched(batch, stage, draws):
        found = whole(batch, stage, draws)
        seen.append((stage, found["input_ids"].shape[1]))
        return found

    app._of_stage = watched
    trainer = Trainer(app, app.config.train, app.config.runtime, folder, reporter)
    batches = Batches(table(), 8, shuffle=True, seed=1)
    trainer.fit(batches, None)
    assert {stage for stage, _ in seen} <= {"length 12", "length 32"}
    assert all(width == 12 for stage, width in seen if stage == "length 12")
    return {variable.name: variable.numpy() for variable in app.model.trainable_variables}


@pytest.mark.slow
def test_a_run_with_lamb_goes_on_exactly_inside_each_stage(repository, tmp_path):
    """Four or five steps of 12 pieces and three of 32, stopped behind the second and the sixth."""
    sys.path.append(str(repository / "tests" / "easytransfer"))
    from test_train_resume import Killer

    unbroken = trained(repository, tmp_path / "whole")
    for step in (2, 6):
        with pytest.raises(Interrupted):
            trained(repository, tmp_path / str(step), Killer(step))
        again = trained(repository, tmp_path / str(step))
        for name, value in unbroken.items():
            np.testing.assert_array_equal(again[name], value, err_msg=name)
