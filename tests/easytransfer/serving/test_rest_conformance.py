"""The REST protocol as TensorFlow Serving documents it: forms of requests, answers, errors with their codes.

The same tests run against a TensorFlow Serving instance, see the fixture `client`.
"""

import base64
import json
import math

import numpy as np
import pytest

ROWS = {
    "signature_name": "table",
    "instances": [
        {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
        {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]},
    ],
}
COLUMNS = {
    "signature_name": "table",
    "inputs": {
        "tag": ["foo", "bar"],
        "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]],
        "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]],
    },
}


def test_status_of_all_versions(client):
    reply = client.http.get("/v1/models/toy")
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("application/json")
    found = reply.json()["model_version_status"]
    assert sorted(found, key=lambda item: item["version"]) == [
        {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        for version in ("2", "3")
    ]


@pytest.mark.parametrize("path", ["toy/versions/2", "toy/labels/stable"])
def test_status_of_one_version(client, path):
    (status,) = client.http.get(f"/v1/models/{path}").json()["model_version_status"]
    assert status["version"] == "2"


def test_metadata(client):
    found = client.http.get("/v1/models/toy/versions/2/metadata").json()
    assert found["model_spec"] == {"name": "toy", "signature_name": "", "version": "2"}
    signature = found["metadata"]["signature_def"]["signature_def"]["table"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["inputs"]["signal"]["dtype"] == "DT_FLOAT"
    shape = signature["inputs"]["signal"]["tensor_shape"]
    assert [dim["size"] for dim in shape["dim"]] == ["-1", "5"] and shape["unknown_rank"] is False


@pytest.mark.parametrize(
    ("path", "number"), [("toy", 3), ("toy/versions/2", 2), ("toy/versions/3", 3), ("toy/labels/stable", 2),
                         ("toy/labels/canary", 3)]
)  # fmt: skip
def test_the_published_example_in_every_way_to_name_a_version(client, path, number):
    assert client.post(f"{path}:predict", {"instances": [1.0, 2.0, 5.0]}) == {
        "predictions": [0.5 + number, 1.0 + number, 2.5 + number]
    }


def test_rows_and_columns_of_several_inputs(client):
    totals, doubled = [25.0, 38.0], [[[2.0, 4.0], [6.0, 8.0]], [[8.0, 10.0], [12.0, 16.0]]]
    rows = client.post("toy:predict", ROWS)["predictions"]
    assert rows == [
        {"tag": tag, "total": total, "doubled": double}
        for tag, total, double in zip(["foo", "bar"], totals, doubled, strict=True)
    ]
    assert client.post("toy:predict", COLUMNS) == {
        "outputs": {"tag": ["foo", "bar"], "total": totals, "doubled": doubled}
    }


def test_one_input_and_one_output_may_do_without_names(client):
    assert client.post("toy:predict", {"inputs": [2.0]}) == {"outputs": [4.0]}
    assert client.post("toy:predict", {"inputs": {"x": [2.0]}}) == {"outputs": [4.0]}
    assert client.post("toy:predict", {"instances": [{"x": 2.0}]}) == {"predictions": [4.0]}


def test_binary_values_are_base64_both_ways(client):
    data = bytes(range(256))
    value = {"b64": base64.b64encode(data).decode()}
    (row,) = client.post("toy:predict", {"signature_name": "picture", "instances": [value]})["predictions"]
    assert row == {"size": 256, "image_bytes": value}
    body = {"signature_name": "picture", "inputs": {"image_bytes": [value, "plain"]}}
    found = client.post("toy:predict", body)["outputs"]
    assert found["size"] == [256, 5]
    assert base64.b64decode(found["image_bytes"][1]["b64"]) == b"plain"


def test_text_that_is_not_ascii(client):
    body = {"signature_name": "texts", "instances": ["naïve 漢字", "", "👩‍👩‍👧"]}
    assert client.post("toy:predict", body) == {"predictions": [8, 0, 5]}


def test_nan_and_infinity_in_requests_and_answers(client):
    text = '{"signature_name": "divide", "inputs": {"a": [1.0, -1, 0, NaN, Infinity], "b": [0, 0, 0, 1, 1]}}'
    reply = client.http.post("/v1/models/toy:predict", content=text)
    assert reply.status_code == 200
    found = json.loads(reply.text)["outputs"]
    assert found[:2] == [math.inf, -math.inf] and found[4] == math.inf
    assert math.isnan(found[2]) and math.isnan(found[3])


def test_bool_and_small_integers(client):
    body = {"signature_name": "flags", "inputs": {"flag": [True, False], "count": [0, 255]}}
    assert client.post("toy:predict", body) == {"outputs": {"flag": [False, True], "count": [0, 255]}}


def test_classify(client):
    body = {"signature_name": "classify", "examples": [{"x": 0.25, "name": "a"}, {"x": [0.75], "name": ["é"]}]}
    assert client.post("toy:classify", body) == {
        "results": [[["a", 0.25], ["other", 0.75]], [["é", 0.75], ["other", 0.25]]]
    }


def test_regress_and_context(client):
    body = {"signature_name": "regress", "examples": [{"x": 1.0}, {"x": 2.0}]}
    assert client.post("toy:regress", body) == {"results": [3.5, 4.0]}
    body = {"signature_name": "classify", "context": {"name": {"b64": "Yw=="}}, "examples": [{"x": 0.5}, {"x": 1.0}]}
    assert [row[0] for row in client.post("toy:classify", body)["results"]] == [["c", 0.5], ["c", 1.0]]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("absent:predict", {"instances": [1.0]}, 404),
        ("toy/versions/9:predict", {"instances": [1.0]}, 404),
        ("toy/labels/none:predict", {"instances": [1.0]}, 400),
        ("toy:predict", b"", 400),
        ("toy:predict", b"{", 400),
        ("toy:predict", b"[1]", 400),
        ("toy:predict", b"\xff\xfe", 400),
        ("toy:predict", {}, 400),
        ("toy:predict", {"instances": [1.0], "inputs": [1.0]}, 400),
        ("toy:predict", {"instances": []}, 400),
        ("toy:predict", {"instances": 1.0}, 400),
        ("toy:predict", {"instances": ["one"]}, 400),
        ("toy:predict", {"instances": [None]}, 400),
        ("toy:predict", {"instances": [1.0, [2.0]]}, 400),
        ("toy:predict", {"instances": [{"z": 1.0}]}, 400),
        ("toy:predict", {"instances": [1e39]}, 400),
        ("toy:predict", {"signature_name": "absent", "instances": [1.0]}, 400),
        ("toy:predict", {"signature_name": 5, "instances": [1.0]}, 400),
        ("toy:predict", {"signature_name": "table", "instances": ["foo"]}, 400),
        ("toy:predict", {"signature_name": "table", "inputs": {"tag": ["foo"]}}, 400),
        ("toy:predict", {"signature_name": "flags", "inputs": {"flag": [1], "count": [1]}}, 400),
        ("toy:predict", {"signature_name": "flags", "inputs": {"flag": [True], "count": [1.5]}}, 400),
        ("toy:predict", {"signature_name": "picture", "instances": [{"b64": "not base64!"}]}, 400),
        ("toy:predict", {"signature_name": "picture", "instances": [""]}, 400),
        ("toy:classify", {"signature_name": "classify"}, 400),
        ("toy:classify", {"signature_name": "classify", "examples": []}, 400),
        ("toy:classify", {"signature_name": "classify", "examples": [{"x": [0.5, "a"]}]}, 400),
        ("toy:classify", {"signature_name": "classify", "examples": [{"x": [[0.5]]}]}, 400),
        ("toy:classify", {"examples": [{"x": 0.5}]}, 400),
        ("toy:regress", {"signature_name": "regress", "examples": [{"y": 0.5}]}, 400),
        ("toy:explain", {"instances": [1.0]}, 400),
        ("toy/versions/two:predict", {"instances": [1.0]}, 400),
        ("toy/versions/99999999999999999999:predict", {"instances": [1.0]}, 400),
    ],
)
def test_what_cannot_be_answered_gets_its_code_and_a_message(client, path, body, status):
    found, message = client.refused(path, body)
    assert found == status and message


@pytest.mark.parametrize(("path", "status"), [("absent", 404), ("toy/versions/9", 404), ("toy/labels/none", 400)])
def test_status_of_what_is_not_there(client, path, status):
    reply = client.http.get(f"/v1/models/{path}")
    assert reply.status_code == status and list(reply.json()) == ["error"]


def test_a_float_comes_back_exactly(client):
    values = np.random.default_rng(0).normal(size=60).astype(np.float32)
    found = client.post("toy/versions/2:predict", {"instances": values.tolist()})["predictions"]
    expected = np.float32(0.5) * values + np.float32(2)
    np.testing.assert_allclose(np.array(found, np.float32), expected, rtol=1e-6, atol=1e-6)
