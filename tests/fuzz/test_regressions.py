"""Inputs that once ended in a traceback, took forever, or were misread: found by fuzzing, or by reading for it."""

import gzip
import json
import struct

import numpy as np
import pytest
from time_limit import within

from appzoo.cli.reader import JobReader
from easytransfer.config.files import load_file
from easytransfer.config.job import DataConfig, JobConfig
from easytransfer.config.original import from_original_json
from easytransfer.config.stored import load_run_config
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.labels import LabelMap
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import open_table
from easytransfer.errors import ConfigError, DataError, EasyTransferError, ModelError
from easytransfer.presets import resolve
from easytransfer.text.vocabulary import read_vocabulary
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.names import named


def rows(path, schema=None):
    table = open_table(str(path), schema=schema and parse_schema(schema), bad_rows=BadRows("skip"))
    read = [row for chunk in table.chunks() for row in zip(*chunk.columns.values(), strict=True)]
    return read, table


# Names ------------------------------------------------------------------------------------------------------


def test_a_list_of_labels_longer_than_a_file_name():
    """Asking the file system whether it is a file raised OSError 36."""
    names = [f"label-{number}" for number in range(100)]
    assert LabelMap.parse(",".join(names), scan=dict).names == names


def test_model_names_longer_than_a_file_name(tmp_path):
    with pytest.raises(ModelError, match="unknown model"):
        resolve("m" * 300, tmp_path)
    with pytest.raises(ModelError, match="unknown image network") as error:
        named("m" * 30_000)
    assert len(str(error.value)) < 5000, "the message repeats the name"


def test_the_home_of_nobody(tmp_path):
    """`~nobody-here` has no home; pathlib raises RuntimeError."""
    with pytest.raises(ModelError, match="no model at"):
        resolve("~nobody-here/model", tmp_path)
    with pytest.raises(ModelError):
        resolve("~nobody\0", tmp_path)


NETWORKS = ["resnet" + "9" * 5000 + "_cifar", "resnet99999_cifar", "wrn28_" + "1" * 9 + "_cifar"]


@pytest.mark.parametrize("name", NETWORKS, ids=["digits", "layers", "width"])
def test_networks_of_more_layers_than_there_can_be(name):
    with pytest.raises(ModelError, match="at most 4 digits"):
        named(name)


# Configuration ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"_config_json": 5},
        {"model_config": {"a": 1, "a.b": 2}},
        {"preprocess_config": {"label_enumerate_values": {"a": [], "b": 1}}},
    ],
)
def test_configurations_of_the_original_with_values_for_sections(values):
    with pytest.raises(ConfigError):
        from_original_json(values, warn=lambda text: None)


@pytest.mark.parametrize("path", ["[1]", "{a: 1}", "5"])
def test_a_checkpoint_path_that_is_no_text(tmp_path, path):
    (tmp_path / "job.yaml").write_text(f"checkpoint_path: {path}\n")
    with pytest.raises(EasyTransferError):
        JobReader("predict", [f"--config={tmp_path / 'job.yaml'}"], []).read()


def test_a_stored_configuration_that_is_a_list(tmp_path):
    for text in ("[]", "5", "[" * 100_000):
        (tmp_path / "train_config.json").write_text(text)
        with pytest.raises(ModelError, match="damaged"):
            load_run_config(tmp_path)


def test_line_ends_of_other_systems_in_a_configuration(tmp_path):
    (tmp_path / "job.yaml").write_bytes(b"a: 1\r\nb: 2\rc: 3\n")
    assert load_file(tmp_path / "job.yaml") == {"a": 1, "b": 2, "c": 3}


def test_a_handle_that_is_no_text(tmp_path):
    (tmp_path / "config.json").write_text('{"family": "saved_model", "handle": 5}')
    with pytest.raises(ModelError):
        CnnConfig.from_folder(tmp_path)


@pytest.mark.parametrize("content", [{"model": 5}, {"model": {"type": "WordPiece", "vocab": 3}}, {"added_tokens": 1}])
def test_tokenizer_files_of_another_shape(tmp_path, content):
    base = {"normalizer": {"type": "BertNormalizer"}, "pre_tokenizer": {"type": "BertPreTokenizer"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps({**base, **content}))
    with pytest.raises(ModelError):
        read_vocabulary(tmp_path)


def test_rules_of_a_tokenizer_that_cannot_be_compared(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": []}')
    with pytest.raises(ModelError, match="bad do_lower_case"):
        read_vocabulary(tmp_path)


@pytest.mark.parametrize("content", ["[1]", '{"a": "x"}', "{", '{"a": 0.5}'])
def test_numbers_of_labels_that_are_none(tmp_path, content):
    (tmp_path / LabelMap.FILE).write_text(content)
    with pytest.raises(ModelError):
        LabelMap.load(tmp_path)


# Tables -----------------------------------------------------------------------------------------------------


def test_an_integer_too_large_for_a_float_is_a_bad_row(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n{"a": 1' + "0" * 400 + "}\n")
    read, table = rows(tmp_path / "t.jsonl", "a:float:1")
    assert read == [(1.0,)] and table.count.rejected == 1


def test_a_first_row_nested_too_deeply(tmp_path):
    (tmp_path / "t.jsonl").write_text("[" * 100_000)
    with pytest.raises(DataError, match="nested too deeply"):
        rows(tmp_path / "t.jsonl")


def test_a_header_that_is_no_text(tmp_path):
    (tmp_path / "t.tsv").write_bytes(b"a\xff\tb\n")
    with pytest.raises(DataError, match="the header is not valid UTF-8"):
        open_table(str(tmp_path / "t.tsv"), schema=None, data=DataConfig(header="names"))


@pytest.mark.parametrize("packed", [False, True])
def test_a_tfrecord_whose_frame_claims_more_than_there_is(tmp_path, packed):
    """Counting seeked past the end, or asked for exabytes of memory."""
    content = struct.pack("<Q", 2**63) + bytes(20)
    path = tmp_path / ("t.tfrecord.gz" if packed else "t.tfrecord")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match="cut off behind record 0"):
        open_table(str(path), schema=parse_schema("a:int:1")).row_count()


def test_a_record_that_is_no_text_in_a_message_of_tensorflow(tmp_path):
    """TensorFlow repeats the record in its message, and Python fails to decode the message."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(tmp_path / "t.tfrecord")) as writer:
        writer.write(b"\x80")
    read, table = rows(tmp_path / "t.tfrecord", "t:str:1,n:int:1")
    assert read == [] and table.count.rejected == 1


def test_an_empty_list_for_an_optional_text_is_not_set():
    """It became an empty text, which is read as not set: the stored configuration was another one."""
    assert JobConfig(checkpoint_path=[]).checkpoint_path is None


def test_a_tfrecord_of_something_else(tmp_path):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(tmp_path / "t.tfrecord")) as writer:
        writer.write(b"\xff\xff")
    with pytest.raises(DataError, match="record 1 of .* is not a tf.train.Example"):
        rows(tmp_path / "t.tfrecord")


def test_a_tfrecord_whose_first_record_has_no_features(tmp_path):
    """TensorFlow refuses to parse a record into no columns."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(tmp_path / "t.tfrecord")) as writer:
        writer.write(b"")
    with pytest.raises(DataError, match="record 1 of .* has no features"):
        rows(tmp_path / "t.tfrecord")


def idx(*shape, body=b""):
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + body


@pytest.mark.parametrize(
    "shape", [(2**32 - 1,) * 3, (2**16, 2**16, 2**16, 2**16), (0, 2**32 - 1, 2**32 - 1), (1,) * 70, ()]
)
def test_idx_files_whose_sizes_overflow(tmp_path, shape):
    """The product of the sizes wrapped around to the number of bytes there were."""
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(*shape))
    try:
        read, _ = rows(tmp_path / "train-images-idx3-ubyte")
        assert read == []
    except DataError as error:
        assert "idx" in str(error)


def test_idx_labels_in_a_matrix(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(2, 1, 1, body=b"ab"))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(2, 2, body=b"abcd"))
    with pytest.raises(DataError, match="2 pictures and .* 2 labels"):
        rows(tmp_path / "train-images-idx3-ubyte")


@pytest.mark.parametrize(
    "arrays",
    [
        {"image": np.zeros(3, np.uint8)},
        {"image": np.uint8(3)},
        {"image": np.zeros((2, 3, 3), np.uint8), "label": np.zeros((2, 2))},
        {"image": np.zeros((2, 3, 3), np.uint8), "label": np.zeros(())},
    ],
)
def test_npz_arrays_of_another_shape(tmp_path, arrays):
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(DataError, match=r"pictures are \[rows, height, width"):
        rows(tmp_path / "t.npz")


def test_an_npy_file_named_npz(tmp_path):
    with open(tmp_path / "t.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="it is no archive"):
        rows(tmp_path / "t.npz")


def test_parquet_whose_footer_tells_of_other_rows(tmp_path):
    """Rows were missing without a word."""
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": [1, 2]}), tmp_path / "t.parquet", compression="none")
    content = (tmp_path / "t.parquet").read_bytes()
    # In the footer the number of rows, 2 as a zigzag varint, stands before the list of one row group.
    assert content.count(b"\x16\x04\x19\x1c") == 1
    (tmp_path / "t.parquet").write_bytes(content.replace(b"\x16\x04\x19\x1c", b"\x16\x06\x19\x1c"))
    with pytest.raises(DataError, match="t.parquet is damaged: its footer tells of 3 rows, and 2 can be read"):
        rows(tmp_path / "t.parquet")


def test_parquet_damaged_behind_its_footer(tmp_path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": ["x" * 50] * 100}), tmp_path / "t.parquet", compression="none")
    content = bytearray((tmp_path / "t.parquet").read_bytes())
    content[4:60] = b"\xff" * 56
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(DataError, match="t.parquet"):
        rows(tmp_path / "t.parquet")


# Requests ---------------------------------------------------------------------------------------------------


def refusal_of(call, *arguments):
    from easytransfer.serving.failures import ServingFailure

    with pytest.raises(ServingFailure) as failure:
        call(*arguments)
    assert failure.value.code == "INVALID_ARGUMENT" and len(str(failure.value)) < 1100
    return str(failure.value)


@pytest.mark.parametrize(
    ("dtype", "sizes"),
    [
        (1, [2**62] * 100_000),
        (1, [1] * 100_000),
        (2, [2**17]),
        (7, [2**17]),
        (999, [1]),
        (1, [-1]),
        (20, [1]),
        (21, []),
    ],
)
def test_tensors_that_are_refused(dtype, sizes):
    """A million lengths took minutes to multiply, eight bytes for each element counted as one, handles have no type."""
    from tensorflow.core.framework import tensor_pb2

    from easytransfer.serving.saved_model import array_of

    tensor = tensor_pb2.TensorProto(dtype=dtype, double_val=[1.0])
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
    with within(5):
        refusal_of(array_of, tensor, 2**20 - 1)


def test_a_refusal_does_not_repeat_a_name_as_long_as_the_request():
    """gRPC cannot send such a message."""
    from easytransfer.serving.failures import ServingFailure

    assert len(str(ServingFailure("NOT_FOUND", "n" * 10**6))) < 1100


def test_names_of_features_with_half_a_surrogate_pair():
    """They cannot stand in a tf.train.Example: the answer was INTERNAL."""
    pytest.importorskip("tensorflow_serving", reason="needs easytransfer[serving]")
    from easytransfer.serving.examples import examples_of_json

    assert "half of a surrogate pair" in refusal_of(examples_of_json, {"examples": [{"\ud800": 1}]})


@pytest.mark.parametrize("path", ["", "/healthz/", "/page/models/"])
def test_the_server_redirects_nobody(path):
    """A path with a slash too many was answered with an address made of the client's own Host header."""
    testclient = pytest.importorskip("starlette.testclient", reason="needs easytransfer[serving]")
    from easytransfer.serving.access import Gate
    from easytransfer.serving.rest import RestProtocol

    application = RestProtocol(None, Gate(None), bytes, 1, lambda: True).application()
    reply = testclient.TestClient(application, base_url="http://elsewhere").get(path, follow_redirects=False)
    assert reply.status_code == (200 if path == "" else 404)
