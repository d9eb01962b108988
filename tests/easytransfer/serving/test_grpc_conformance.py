"""The gRPC protocol with the official stubs; the same tests run against a TensorFlow Serving instance."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from running_server import SECONDS, fill_spec
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)  # fmt: skip


def example(**features) -> tf.train.Example:
    found = tf.train.Example()
    for name, value in features.items():
        if isinstance(value, bytes):
            found.features.feature[name].bytes_list.value.append(value)
        else:
            found.features.feature[name].float_list.value.append(value)
    return found


def code_of(call, *arguments, **options) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as failure:
        call(*arguments, **options)
    return failure.value.code().name, failure.value.details()


@pytest.mark.parametrize(
    ("spec", "version"), [({}, 3), ({"version": 2}, 2), ({"label": "stable"}, 2), ({"label": "canary"}, 3)]
)
def test_predict_names_the_version_that_answered(client, spec, version):
    reply = client.predict("toy", {"x": np.array([1.0, 2.0], np.float32)}, **spec)
    assert (reply.model_spec.name, reply.model_spec.version.value) == ("toy", version)
    assert reply.model_spec.signature_name == "serving_default"
    assert reply.outputs["y"].dtype == tf.float32.as_datatype_enum
    np.testing.assert_array_equal(tf.make_ndarray(reply.outputs["y"]), [0.5 + version, 1.0 + version])


def test_predict_of_several_inputs_with_a_filter(client):
    inputs = {
        "tag": np.array([b"foo", b"\xff"], object),
        "signal": np.ones([2, 5], np.float32),
        "sensor": np.ones([2, 2, 2], np.float32),
    }
    found = client.arrays("toy", inputs, signature="table")
    assert found["tag"].tolist() == [b"foo", b"\xff"] and found["total"].tolist() == [9.0, 9.0]
    request = predict_pb2.PredictRequest(output_filter=["total"])
    fill_spec(request.model_spec, "toy", signature="table")
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    assert list(client.prediction.Predict(request, SECONDS).outputs) == ["total"]
    request.output_filter.append("absent")
    assert code_of(client.prediction.Predict, request, SECONDS)[0] == "INVALID_ARGUMENT"


def test_classify_with_and_without_context(client):
    request = classification_pb2.ClassificationRequest()
    fill_spec(request.model_spec, "toy", signature="classify")
    request.input.example_list.examples.extend([example(x=0.25, name=b"a"), example(x=0.5)])
    reply = client.prediction.Classify(request, SECONDS)
    assert reply.model_spec.version.value == 3
    found = [[(item.label, item.score) for item in row.classes] for row in reply.result.classifications]
    assert found == [[("a", 0.25), ("other", 0.75)], [("x", 0.5), ("other", 0.5)]]
    listed = request.input.example_list_with_context
    listed.context.CopyFrom(example(name=b"c"))
    listed.examples.extend([example(x=0.25)])
    (row,) = client.prediction.Classify(request, SECONDS).result.classifications
    assert row.classes[0].label == "c"


def test_regress(client):
    request = regression_pb2.RegressionRequest()
    fill_spec(request.model_spec, "toy", version=2, signature="regress")
    request.input.example_list.examples.extend([example(x=1.0), example(x=2.0)])
    values = [item.value for item in client.prediction.Regress(request, SECONDS).result.regressions]
    assert values == [2.5, 3.0]


def test_several_inferences_at_once(client):
    request = inference_pb2.MultiInferenceRequest()
    for name in ("classify", "regress"):
        task = request.tasks.add(method_name=f"tensorflow/serving/{name}")
        fill_spec(task.model_spec, "toy", signature=name)
    request.input.example_list.examples.append(example(x=1.0, name=b"a"))
    classified, regressed = client.prediction.MultiInference(request, SECONDS).results
    assert classified.classification_result.classifications[0].classes[0].label == "a"
    assert regressed.regression_result.regressions[0].value == 3.5


def test_metadata(client):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    fill_spec(request.model_spec, "toy", version=2)
    reply = client.prediction.GetModelMetadata(request, SECONDS)
    assert (reply.model_spec.name, reply.model_spec.version.value) == ("toy", 2)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert reply.metadata["signature_def"].Unpack(found)
    assert found.signature_def["table"].inputs["signal"].dtype == tf.float32.as_datatype_enum
    request.metadata_field[:] = ["other"]
    assert code_of(client.prediction.GetModelMetadata, request, SECONDS)[0] == "INVALID_ARGUMENT"


def test_status(client):
    assert client.states("toy") == {2: "AVAILABLE", 3: "AVAILABLE"}
    request = get_model_status_pb2.GetModelStatusRequest()
    fill_spec(request.model_spec, "toy", version=2)
    (status,) = client.models.GetModelStatus(request, SECONDS).model_version_status
    assert (status.version, status.status.error_code) == (2, 0)
    fill_spec(request.model_spec, "absent")
    assert code_of(client.models.GetModelStatus, request, SECONDS)[0] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("name", "inputs", "spec", "code"),
    [
        ("absent", {"x": [1.0]}, {}, "NOT_FOUND"),
        ("toy", {"x": [1.0]}, {"version": 9}, "NOT_FOUND"),
        ("toy", {"x": [1.0]}, {"label": "none"}, "INVALID_ARGUMENT"),
        ("toy", {"x": [1.0]}, {"signature": "absent"}, "INVALID_ARGUMENT"),
        ("toy", {"z": [1.0]}, {}, "INVALID_ARGUMENT"),
        ("toy", {}, {}, "INVALID_ARGUMENT"),
        ("toy", {"x": np.array([1.0])}, {}, "INVALID_ARGUMENT"),
        ("toy", {"x": [[1.0]]}, {}, "INVALID_ARGUMENT"),
        ("toy", {"image_bytes": [b""]}, {"signature": "picture"}, "INVALID_ARGUMENT"),
    ],
)
def test_refusals(client, name, inputs, spec, code):
    found, message = code_of(client.predict, name, inputs, **spec)
    assert found == code and message


# Only ours: what TensorFlow Serving does, or does in another way -----------------------------------------------------


def test_clients_cannot_change_the_models(running):
    request = model_management_pb2.ReloadConfigRequest()
    code, message = code_of(running.client.models.HandleReloadConfigRequest, request, SECONDS)
    assert code == "UNIMPLEMENTED" and "models.config" in message


def test_a_tensor_that_claims_a_huge_shape_is_refused(running):
    proto = tf.make_tensor_proto(np.zeros(1, np.float32))
    proto.tensor_shape.dim[0].size = 10**12
    code, message = code_of(running.client.predict, "toy", {"x": proto})
    assert code == "INVALID_ARGUMENT" and "1000000000000" in message


def test_the_reason_of_the_model_is_told(running):
    """It was the first line of TensorFlow's message: `Graph execution error:`."""
    code, message = code_of(running.client.predict, "toy", {"image_bytes": [b""]}, signature="picture")
    assert code == "INVALID_ARGUMENT" and "an image is empty" in message


def test_an_input_that_tensorflow_repeats_and_python_cannot_read(running):
    """It was INTERNAL: the message of TensorFlow held bytes that are not UTF-8."""
    code, message = code_of(running.client.predict, "toy", {"inputs": [b"\x80"]}, signature="classify")
    assert code == "INVALID_ARGUMENT" and "not UTF-8" in message


def test_bytes_that_are_no_message_are_the_clients_fault(running, capfd):
    """gRPC answered UNKNOWN, and wrote a traceback for each of them."""
    call = running.client.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    code, message = code_of(call, b"\xff\xff")
    assert code == "INVALID_ARGUMENT" and "not a message" in message
    assert "Traceback" not in capfd.readouterr().err
