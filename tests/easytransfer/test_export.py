"""Exports that work: content, numbering, concurrency, warm-up, and use without the training code."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from export_models import LABELS, TEXTS, CoreClassifier, TextClassifier, signatures

from easytransfer.errors import ConfigError, ModelError
from easytransfer.export.saved_model import ExportReport, export_saved_model, publish
from easytransfer.export.selfcheck import c_loader
from easytransfer.savedmodel.array_json import decode_array, encode_array
from easytransfer.savedmodel.example_signatures import regress_signature
from easytransfer.savedmodel.loading import find_exported, is_exported, load_exported
from easytransfer.savedmodel.messages import new_message
from easytransfer.savedmodel.requests import read_requests
from easytransfer.savedmodel.signature import Signature

pytestmark = pytest.mark.every_check
ALL_CHECKS = ["layout", "signatures", "operators", "outputs", "session", "saved_model_cli", "warmup"]
ALL_CHECKS += ["server_files", "c_api", "process"]


def export(folder: Path, model: CoreClassifier, name: str = "sentiment", **changes) -> ExportReport:
    labels = folder / "labels.txt"
    labels.write_text("\n".join(LABELS), encoding="utf-8")
    arguments = {"module": model, "base": folder / "exports", "name": name, "assets": {"labels.txt": labels}}
    facts = {"labels": LABELS, "max_length": 128, "config": {"tables": [f"{folder}/a.tsv,{folder}/b.tsv", "c/d.tsv"]}}
    arguments |= {"manifest": facts, "max_batch_size": 5} | changes
    return export_saved_model(arguments.pop("signatures", None) or signatures(model), **arguments)


@pytest.fixture(scope="module")
def core(tmp_path_factory) -> tuple[CoreClassifier, ExportReport]:
    folder = tmp_path_factory.mktemp("core")
    model = CoreClassifier(folder)
    return model, export(folder, model)


def test_layout_and_checks(core):
    model, report = core
    base = report.path.parents[1]
    assert (report.version, report.path) == (1, base / "sentiment" / "1")
    files = {path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()}
    version = {
        "saved_model.pb", "fingerprint.pb", "variables/variables.index", "variables/variables.data-00000-of-00001",
        "assets/vocab.txt", "assets/labels.txt", "assets.extra/export.json", "assets.extra/export_report.json",
        "assets.extra/tf_serving_warmup_requests",
    }  # fmt: skip
    assert files == {f"sentiment/1/{name}" for name in version} | {
        "models.config", "batching.config", "monitoring.config",
    }  # fmt: skip
    assert [check["name"] for check in report.checks] == ALL_CHECKS
    assert all(check["ok"] for check in report.checks) and set(report.latency_ms) == {"1", "32"}
    assert json.loads((report.path / "assets.extra/export_report.json").read_text())["latency_ms"] == report.latency_ms


def test_only_used_variables_are_exported(core):
    model, report = core
    stored = dict(tf.train.list_variables(str(report.path / "variables" / "variables")))
    shapes = [shape for name, shape in stored.items() if name.endswith("VARIABLE_VALUE") and "asset" not in name]
    assert shapes == [list(model.vectors.shape)], stored


def test_manifest_repeats_the_model(core):
    model, report = core
    manifest = json.loads((report.path / "assets.extra/export.json").read_text(encoding="utf-8"))
    assert manifest["labels"] == LABELS and manifest["max_length"] == 128 and len(manifest["tokenizer_digest"]) == 64
    assert manifest["config"] == {"tables": ["a.tsv,b.tsv", "c/d.tsv"]}
    assert manifest["float_types"] == ["float32"]
    assert manifest["packages"]["tensorflow"] == tf.__version__
    assert manifest["signatures"]["predict_ids"]["inputs"]["input_ids"] == {"dtype": "int32", "shape": [None, None]}
    recorded = manifest["samples"]["serving_default"]["outputs"]["3"]["probabilities"]
    np.testing.assert_array_equal(decode_array(recorded), model.answer(tf.constant(TEXTS[:3]))["probabilities"])


def test_load_exported_answers_like_the_model(core):
    model, report = core
    loaded = load_exported(report.path.parents[1])
    assert (loaded.path, loaded.version, loaded.assets) == (report.path, 1, report.path / "assets")
    answers, expected = loaded.signatures["serving_default"](text=list(TEXTS)), model.answer(tf.constant(TEXTS))
    np.testing.assert_allclose(answers["probabilities"], expected["probabilities"], atol=1e-6)
    assert answers["label"].tolist() == [label.decode() for label in expected["label"].numpy()]
    assert loaded.signatures["serving_default"](text=[])["probabilities"].shape == (0, 3)
    with pytest.raises(ModelError, match=r"wrong inputs for serving_default.*'sentence'.*accepted: text"):
        loaded.signatures["serving_default"](sentence=["x"])


def test_text_export_needs_only_operator_libraries(tmp_path):
    pytest.importorskip("tensorflow_text")
    report = export(tmp_path, TextClassifier(tmp_path), name="", flat=True)
    assert report.path == tmp_path / "exports" / "1"
    assert [path.name for path in (tmp_path / "exports").iterdir()] == ["1"]
    details = {check["name"]: check["detail"] for check in report.checks}
    assert "WordpieceTokenizeWithOffsets" in details["operators"] and details["process"] == "TensorFlow only"
    # Without them the C interface refuses the graph, so the check that passed was a real load.
    loader = Path(c_loader.__file__)
    command = [sys.executable, loader, Path(tf.__file__).parent, report.path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "Op type not registered" in done.stderr


def test_failed_check_publishes_nothing(tmp_path):
    model = CoreClassifier(tmp_path)

    def through_python(text: tf.Tensor) -> dict[str, tf.Tensor]:
        upper = tf.numpy_function(lambda values: values, [text], tf.string)
        upper.set_shape([None])
        return model.answer(upper)

    text = {"text": tf.TensorSpec([None], tf.string)}
    broken = {"serving_default": Signature(through_python, text, {"text": TEXTS})}
    with pytest.raises(ModelError, match="`operators`.*PyFunc.*easy_transfer_app export --again") as raised:
        export(tmp_path, model, signatures=broken, command="easy_transfer_app export --again")
    assert raised.value.exit_code == 4
    assert list((tmp_path / "exports" / "sentiment").iterdir()) == []


def test_unowned_table_is_explained(tmp_path):
    with pytest.raises(ModelError, match="cannot be saved for serving.*must belong to `module`"):
        export(tmp_path, tf.Module(), signatures=signatures(CoreClassifier(tmp_path)))


@pytest.mark.parametrize("name", ["", "12", "../up", "a b"])
def test_bad_model_name(tmp_path, name):
    with pytest.raises(ConfigError, match="unusable model name"):
        export(tmp_path, CoreClassifier(tmp_path), name=name)


def test_samples_must_fit_inputs(tmp_path):
    model = CoreClassifier(tmp_path)
    wrong = Signature(model.answer, {"text": tf.TensorSpec([None], tf.string)}, {"texts": TEXTS})
    with pytest.raises(ConfigError, match="equally many rows"):
        export(tmp_path, model, signatures={"serving_default": wrong})


def test_exports_at_once_get_different_versions(tmp_path):
    (tmp_path / "7").mkdir()
    versions = []

    def one(number: int) -> None:
        staging = tmp_path / f".staging-{number}"
        staging.mkdir()
        (staging / "saved_model.pb").write_text(str(number))
        versions.append((publish(staging, tmp_path), number))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(version for version, _ in versions) == list(range(8, 20))
    assert all((tmp_path / str(v) / "saved_model.pb").read_text() == str(number) for v, number in versions)


def test_warmup_parses_with_the_official_messages(core):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    _, report = core
    records = tf.data.TFRecordDataset(str(report.path / "assets.extra/tf_serving_warmup_requests"))
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records.as_numpy_iterator()]
    sizes = {(log.predict_log.request.model_spec.signature_name, _rows(log.predict_log.request)) for log in logs}
    assert sizes == {(name, rows) for name in ("serving_default", "predict_ids", "classify") for rows in (1, 5)}
    text = tf.make_ndarray(logs[1].predict_log.request.inputs["text"])
    assert text.tolist() == [value.encode() for value in [*TEXTS, TEXTS[0]]]
    ours = [request.SerializeToString(deterministic=True) for request in read_requests(report.path)]
    parsed = new_message("PredictionLog")
    parsed.ParseFromString(logs[0].SerializeToString())
    assert ours[0] == parsed.predict_log.request.SerializeToString(deterministic=True)


def test_values_survive_json():
    for array in (
        np.array([["é", "漢"], ["", "a\u0000"]], object),
        np.array([b"\xff\xfe", b"ok"], object),
        np.array([[1.1, -0.0], [3e-38, np.float32(1) / 3]], np.float32),
        np.zeros([0, 3], np.int32),
    ):
        back = decode_array(json.loads(json.dumps(encode_array(array))))
        expected = np.array([tf.compat.as_bytes(v) for v in array.ravel()], object) if array.dtype == object else array
        np.testing.assert_array_equal(back, expected.reshape(array.shape))
        assert back.dtype == expected.dtype


def test_regress_signature_reads_examples():
    specs = {name: tf.TensorSpec([None], tf.string) for name in ("text_a", "text_b")}

    def lengths(text_a: tf.Tensor, text_b: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"score": tf.cast(tf.strings.length(text_a) - tf.strings.length(text_b), tf.float32)[:, None]}

    samples = {"text_a": np.array(["abcd", ""], object), "text_b": np.array(["a", "xy"], object)}
    signature = regress_signature(Signature(lengths, specs, samples))
    function = tf.function(signature.function)
    assert function(inputs=tf.constant(signature.samples["inputs"]))["outputs"].numpy().tolist() == [3.0, -2.0]
    assert function(inputs=tf.constant([], tf.string))["outputs"].shape == (0,)
    with pytest.raises(tf.errors.InvalidArgumentError, match="text_a"):
        function(inputs=tf.constant([tf.train.Example().SerializeToString()]))


def test_find_exported(tmp_path):
    for name in ("a/1", "a/9", "a/10", "a/.staging-x", "a/notes"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "saved_model.pb").touch()
    assert find_exported(tmp_path) == find_exported(tmp_path / "a") == tmp_path / "a" / "10"
    assert find_exported(tmp_path / "a" / "9") == tmp_path / "a" / "9"
    (tmp_path / "b" / "1").mkdir(parents=True)
    (tmp_path / "b" / "1" / "saved_model.pb").touch()
    with pytest.raises(ModelError, match="several models; accepted: a, b"):
        find_exported(tmp_path)
    (tmp_path / "c" / "variables").mkdir(parents=True)
    assert not is_exported(tmp_path / "c")
    with pytest.raises(ModelError, match="no export at .*variables"):
        find_exported(tmp_path / "c")


def _rows(request) -> int:
    return next(iter(request.inputs.values())).tensor_shape.dim[0].size
