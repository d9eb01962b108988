"""Rows that become several examples: what the contract makes of the entries of inputs and targets, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from easytransfer.app.inputs.base import Encoded, Input, joined
from easytransfer.config.job import JobConfig
from easytransfer.data.encoded import EncodedTable, HostColumn, Ragged
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import BadRows, open_table
from easytransfer.metrics.evaluator import MeanEvaluator

MISSING = "empty text"


def make_app(named, target="row"):
    """Halves of a list of numbers, each an example; beside them a number of the row, and a label.

    Args:
        named: Column of the lists.
        target: Whether labels are those of the `row`, or of the `half`.
    """
    import tensorflow as tf

    from easytransfer.app.contract import App
    from easytransfer.app.targets.base import Target

    class Halves(Input):
        masks = {"values_mask": "values"}
        pad_values = {"values": -5}

        def table_columns(self):
            return [named]

        def encode(self, chunk):
            parts, rows = [], []
            for row, cell in enumerate(chunk.columns[named]):
                numbers = [int(number) for number in cell.split(",")]
                if not sum(numbers):
                    chunk.reject(row, named, f"{MISSING}: nothing but zeros")
                middle = (len(numbers) + 1) // 2
                halves = [half for half in (numbers[:middle], numbers[middle:]) if half]
                parts += halves
                rows += [row] * len(halves)
            count = len(chunk.index)
            counts = {"truncated": np.zeros(count, bool), "tokens": np.bincount(rows, minlength=count)}
            counts |= {"unknown": np.zeros(count, int), "halves": np.bincount(rows, minlength=count)}
            shown = HostColumn.of(map(tuple, parts))
            return Encoded({"values": Ragged.from_lists(parts), "shown": shown}, counts, np.array(rows))

        def specs(self):
            return {name: tf.TensorSpec([None, None], tf.int32) for name in ("values", "values_mask")}

        def serving_specs(self):
            return {"first": tf.TensorSpec([None], tf.int32), "second": tf.TensorSpec([None], tf.int32)}

        def samples(self):
            return {"first": np.int32([1, 2]), "second": np.int32([3, 4])}

        def from_request(self, tensors):
            """Two halves of one number each."""
            values = tf.reshape(tf.stack([tensors["first"], tensors["second"]], axis=1), [-1, 1])
            return {"values": values, "values_mask": tf.ones_like(values), "rows": tf.size(tensors["first"])}

    class Factor(Input):
        def table_columns(self):
            return ["factor"]

        def encode(self, chunk):
            return Encoded({"factor": np.asarray(chunk.columns["factor"], np.int32)})

        def specs(self):
            return {"factor": tf.TensorSpec([None], tf.int32)}

        def samples(self):
            return {"factor": np.int32([10, 20])}

        def from_request(self, tensors):
            return {"factor": tf.repeat(tensors["factor"], 2)}

    class Sums(Target):
        encoded_columns = ("label_id",)

        def table_columns(self):
            return ["label"]

        def encode(self, chunk, inputs):
            halves, factor = inputs
            assert factor.row_of is None and len(factor.columns["factor"]) == len(chunk.index)
            labels = np.asarray(chunk.columns["label"], np.int32)
            for row in np.flatnonzero(labels < 0):
                chunk.reject(int(row), "label", "unknown label: below 0")
            if target == "row":
                return Encoded({"label_id": labels})
            sums = [sum(part) for part in halves.columns["shown"]]
            return Encoded({"label_id": np.array(sums, np.int32) + labels[halves.row_of]}, row_of=halves.row_of)

        def losses(self, batch, outputs, step):
            raise NotImplementedError

        def evaluator(self):
            return MeanEvaluator("equal", lambda batch, outputs: outputs["sum"] == batch["label_id"])

        def output_columns(self):
            return ("sum",)

        def postprocess(self, outputs, encoded):
            return {"sum": np.bincount(encoded.row_of, outputs["sum"]).astype(int).tolist()}

        def answer(self, outputs):
            return {"sum": tf.reduce_sum(tf.reshape(outputs["sum"], [outputs["rows"], 2]), axis=1)}

    class Sum(App):
        def build_inputs(self, assets):
            return [Halves(), Factor()]

        def build_target(self, assets):
            return Sums()

        def forward(self, batch, training=False):
            values = batch["values"] * batch["values_mask"]
            return {"sum": tf.reduce_sum(values, axis=1) * batch["factor"]}

    app = Sum(JobConfig())
    app.load_assets(None)
    return app


LINES = ["1,2,3\t10\t0", "0,0\t10\t1", "4\t20\t2", "5,6\t30\t-1", "7,8\t40\t3"]


def encode(app, tmp_path, with_labels=True):
    path = tmp_path / "table.tsv"
    path.write_text("\n".join(LINES) + "\n")
    bad = BadRows("skip")
    table = open_table(str(path), schema=parse_schema("numbers:str:1,factor:int:1,label:int:1"), bad_rows=bad)
    (chunk,) = table.chunks()
    return SimpleNamespace(encoded=app.encode(chunk, with_labels), count=table.count, bad=bad)


def test_examples_of_rejected_rows_are_left_out_and_rows_keep_their_order(tmp_path):
    app = make_app("numbers")
    found = encode(app, tmp_path)
    table = found.encoded
    assert found.bad.reasons == {MISSING: 1, "unknown label": 1} and found.count.accepted == 3
    assert table.row_of.tolist() == [0, 0, 1, 2, 2] and table.row_count == 3
    assert [table.columns["values"][i].tolist() for i in range(5)] == [[1, 2], [3], [4], [7], [8]]
    assert list(table.columns["shown"]) == [[1, 2], [3], [4], [7], [8]]
    # What has one entry a row is repeated.
    assert table.columns["factor"].tolist() == [10, 10, 20, 40, 40]
    assert table.columns["label_id"].tolist() == [0, 0, 2, 3, 3]
    batch = table.batch(range(5), pad_multiple=1)
    assert batch["shown"].dtype == object and batch["shown"].tolist() == [[1, 2], [3], [4], [7], [8]]
    assert "shown" not in app.evaluation_inputs(batch) and "values" in app.evaluation_inputs(batch)
    assert batch["values"].tolist() == [[1, 2], [3, -5], [4, -5], [7, -5], [8, -5]]
    assert batch["values_mask"].tolist() == [[1, 1], [1, 0], [1, 0], [1, 0], [1, 0]]
    # Counts are those of accepted rows, whatever they are called.
    assert app.text_counts == {"rows": 3, "truncated": 0, "tokens": 5, "unknown": 0, "halves": 5}


def test_a_target_may_label_examples(tmp_path):
    table = encode(make_app("numbers", "half"), tmp_path).encoded
    assert table.columns["label_id"].tolist() == [3, 3, 4 + 2, 7 + 3, 8 + 3]


def test_labels_are_not_read_without_need(tmp_path):
    found = encode(make_app("numbers"), tmp_path, with_labels=False)
    assert found.bad.reasons == {MISSING: 1} and "label_id" not in found.encoded.columns
    assert found.encoded.row_of.tolist() == [0, 0, 1, 2, 2, 3, 3]


def test_rows_and_answers_come_back_from_their_examples(tmp_path):
    import tensorflow as tf

    app = make_app("numbers")
    table = encode(app, tmp_path).encoded
    batch = table.batch(range(5), pad_multiple=1)
    outputs = {name: value.numpy() for name, value in app.predict_step(batch).items()}
    assert app.postprocess(outputs, table) == {"sum": [60, 80, 600]}
    signatures = app.signatures(tmp_path)
    served = signatures["serving_default"].function(first=[7, 4], second=[8, 0], factor=[40, 20])
    assert served.keys() == {"sum"} and served["sum"].numpy().tolist() == [600, 80]
    # A request without a row.
    none = signatures["serving_default"].function(**dict.fromkeys(("first", "second", "factor"), np.int32([])))
    assert none["sum"].shape == [0]
    # The arrays alone, without what only the answer needs.
    arrays = signatures["predict_ids"]
    assert arrays.inputs.keys() == arrays.samples.keys() == {"values", "values_mask", "factor"}
    tensors = {name: tf.constant(value) for name, value in arrays.samples.items()}
    assert arrays.function(**tensors)["sum"].numpy().tolist() == [10, 30, 40, 80]


def test_columns_are_joined_by_the_examples_of_the_one_that_has_several():
    several = Encoded({"a": Ragged.from_lists([[1], [2, 3], [4]])}, row_of=np.array([0, 1, 1]))
    one = Encoded({"b": np.array([5, 6]), "c": Ragged.from_lists([[7], [8, 9]])}, {"tokens": np.array([1, 2])})
    found = joined([one, several])
    assert found.row_of.tolist() == [0, 1, 1] and found.columns["b"].tolist() == [5, 6, 6]
    assert [found.columns["c"][i].tolist() for i in range(3)] == [[7], [8, 9], [8, 9]]
    assert [found.columns["a"][i].tolist() for i in range(3)] == [[1], [2, 3], [4]]
    plain = joined([one])
    assert plain.row_of is None and plain.columns["b"] is one.columns["b"]
    assert len(EncodedTable(found.columns, row_of=found.row_of)) == 3
    with pytest.raises(ValueError, match="different examples of the same rows"):
        joined([several, Encoded({"d": np.zeros(3)}, row_of=np.array([0, 0, 1]))])
    with pytest.raises(ValueError, match="column e is an array of objects: .* HostColumn"):
        Encoded({"e": np.array(["a", None], object)})
