"""JSON to arrays and back: shapes and types, and what must not get through."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from easytransfer.serving.examples import examples_of_json
from easytransfer.serving.failures import ServingFailure
from easytransfer.serving.json_tensors import decode_inputs, encode_outputs, parse_object
from easytransfer.serving.servable import LoadedSignature, TensorFacts

DTYPES = ["float32", "float64", "float16", "int8", "uint8", "int32", "int64", "uint64", "bool"]


def signature(dtype: str, shape=None) -> LoadedSignature:
    return LoadedSignature("one", {"x": TensorFacts(dtype, shape)}, {}, dict)


@given(st.data(), st.sampled_from(DTYPES))
@settings(max_examples=60, deadline=None)
def test_numbers_survive_the_way_out_and_back(data, dtype):
    shape = data.draw(arrays.array_shapes(min_dims=1, max_dims=4, max_side=4))
    value = data.draw(arrays.arrays(np.dtype(dtype), shape))
    text = json.dumps(encode_outputs({"x": value}, rows=False))
    found = decode_inputs({"inputs": parse_object(text.encode())["outputs"]}, signature(dtype))["x"]
    assert found.dtype == value.dtype and found.shape == value.shape
    np.testing.assert_array_equal(found, value)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=8))
@settings(deadline=None)
def test_binary_strings_survive(values):
    outputs = encode_outputs({"x_bytes": np.array([*values, None], object)[:-1]}, rows=True)
    body = {"instances": parse_object(json.dumps(outputs).encode())["predictions"]}
    assert decode_inputs(body, signature("string"))["x"].tolist() == values


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "b64", "y"]), inner, max_size=3),
    max_leaves=20,
)


@given(_JSON, st.sampled_from(["instances", "inputs", "examples"]), st.sampled_from([*DTYPES, "string"]))
@settings(max_examples=150, deadline=None)
def test_any_json_becomes_an_array_or_a_refusal(value, key, dtype):
    body = parse_object(json.dumps({key: value}).encode())
    try:
        found = examples_of_json(body) if key == "examples" else decode_inputs(body, signature(dtype))
    except ServingFailure as failure:
        assert failure.code == "INVALID_ARGUMENT" and str(failure)
    else:
        assert found


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_an_object_or_a_refusal(body):
    try:
        assert isinstance(parse_object(body), dict)
    except ServingFailure as failure:
        assert failure.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"inputs": [' + b"9" * 5000 + b"]}",
        b'{"inputs": [1' + b"0" * 400 + b"]}",
        b'{"inputs": [1e400, 1e39]}',
        b'{"inputs": [[1, 2], [3]]}',
        b'{"inputs": [true]}',
        '{"inputs": [1.0]}'.encode("utf-16"),
    ],
)
def test_traps_are_refused(body):
    with pytest.raises(ServingFailure) as failure:
        decode_inputs(parse_object(body), signature("float32"))
    assert failure.value.code == "INVALID_ARGUMENT" and len(str(failure.value)) < 300


def test_one_long_string_among_many_short_ones_takes_no_memory():
    # NumPy would give each cell the room of the longest one: 20,000 x 4 MB.
    body = {"inputs": ["a" * 1_000_000, *["b"] * 20_000]}
    with pytest.raises(ServingFailure, match="expected type: float32"):
        decode_inputs(body, signature("float32"))
    assert len(decode_inputs(body, signature("string"))["x"]) == 20_001


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(ServingFailure, match="surrogate"):
        decode_inputs(parse_object(b'{"inputs": ["\\ud800"]}'), signature("string"))


def test_features_take_their_type_from_their_values():
    import tensorflow as tf

    (data,) = examples_of_json({"examples": [{"i": [1, True], "f": 1.0, "e": [math.inf], "s": "é", "n": []}]})
    features = tf.train.Example.FromString(data).features.feature
    assert features["i"].int64_list.value == [1, 1] and features["f"].float_list.value == [1.0]
    assert features["e"].float_list.value == [math.inf] and features["s"].bytes_list.value == ["é".encode()]
    with pytest.raises(ServingFailure, match="context"):
        examples_of_json({"context": {"a": 1}, "examples": [{"a": 2}]})
