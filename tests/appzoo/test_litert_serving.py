"""LiteRT exports over REST: answers, refusals, versions, and a process that never imports TensorFlow."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from litert_exports import LABELS, PROGRAM, TEXTS, export, make_app

pytest.importorskip("ai_edge_litert")
pytest.importorskip("tensorflow_serving")
httpx = pytest.importorskip("httpx")

NAME = "text_classify_bert-litert-int8"
SECONDS = 120


@pytest.fixture(scope="module")
def app(tiny_model):
    return make_app(tiny_model)


@pytest.fixture(scope="module")
def exported(app, tmp_path_factory):
    """The model folder of an int8 export, and the version folder of another one that answers otherwise."""
    base = tmp_path_factory.mktemp("models")
    return export(app, base, "litert-int8").path.parent, export(app, tmp_path_factory.mktemp("others"), "litert").path


@pytest.fixture(scope="module")
def served(exported):
    from running_server import RunningServer

    from appzoo.jobs.litert_requests import raw_caller

    with RunningServer(exported[0], raw=raw_caller, max_request_mb=0.05) as server:
        yield server


@pytest.fixture(scope="module")
def predicted(exported, tmp_path_factory):
    """What the verb `predict` writes for the texts: probabilities, label and logits by text."""
    from appzoo.cli.main import main

    folder = tmp_path_factory.mktemp("predicted")
    rows = "".join(json.dumps({"a": text}) + "\n" for text in TEXTS)
    (folder / "in.jsonl").write_text(rows, encoding="utf-8")
    words = [f"--checkpointPath={exported[0]}", f"--inputTable={folder}/in.jsonl", f"--outputTable={folder}/out.jsonl"]
    assert main(["predict", *words]) == 0
    return [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]


def same(answer, row):
    """Bit for bit: both are float32, written in full."""
    assert np.array_equal(np.float32(answer["probabilities"]), np.float32(row["probabilities"]))
    assert answer["label"] == row["predictions"]
    assert np.float32(answer["score"]) == np.float32(row["probabilities"]).max()
    best = np.argsort(row["probabilities"])[::-1]
    assert answer["top5"] == [LABELS[i] for i in best]
    assert np.array_equal(np.float32(answer["top5_score"]), np.float32(row["probabilities"])[best])


def test_the_process_imports_no_tensorflow(exported, predicted):
    """From the command line to its end: ready, an answer, a refusal, SIGTERM."""
    begin = time.monotonic()
    words = [sys.executable, "-c", PROGRAM, "serve", str(exported[0]), "--restPort=0", "--accessLog=false"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert select.select([process.stdout], [], [], SECONDS)[0], "the server did not start"
        where = json.loads(process.stdout.readline())
        print(f"ready {time.monotonic() - begin:.1f} s after the command")
        assert where["models"] == {NAME: [1]} and set(where) == {"rest", "models"}
        with httpx.Client(base_url=where["rest"], timeout=SECONDS) as client:
            answers = client.post(f"/v1/models/{NAME}:predict", json={"instances": TEXTS}).json()["predictions"]
            for answer, row in zip(answers, predicted, strict=True):
                same(answer, row)
            examples = {"examples": [{"text": "so good"}]}
            assert client.post(f"/v1/models/{NAME}:classify", json=examples).status_code == 400
            assert client.get("/readyz").json() == {"status": "ready"}
            assert client.get("/").status_code == 200
            figures = client.get("/monitoring/prometheus/metrics").text
            assert f'request_count{{model_name="{NAME}",status="OK"}} 1.0' in figures
        os.kill(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait(SECONDS)
    assert process.returncode == 0, err
    assert json.loads(out)["requests"] == 2
    assert "HEAVY []" in err, err


def test_answers_are_those_of_predict_whoever_asks_beside(served, predicted):
    rows = served.client.post(f"{NAME}:predict", {"instances": [{"text": text} for text in TEXTS]})["predictions"]
    columns = served.client.post(f"{NAME}:predict", {"inputs": {"text": TEXTS[::-1]}})["outputs"]
    for number, row in enumerate(predicted):
        same(rows[number], row)
        place = len(TEXTS) - 1 - number
        same({name: value[place] for name, value in columns.items()}, row)
        (alone,) = served.client.post(f"{NAME}/versions/1:predict", {"instances": [TEXTS[number]]})["predictions"]
        same(alone, row)
    found, together = [], threading.Barrier(8)

    def ask(number):
        together.wait()
        for _ in range(5):
            (answer,) = served.client.post(f"{NAME}:predict", {"instances": [TEXTS[number]]})["predictions"]
            found.append((answer, predicted[number]))

    threads = [threading.Thread(target=ask, args=(i % len(TEXTS),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert len(found) == 40
    for answer, row in found:
        same(answer, row)


def test_arrays_are_answered_and_those_that_are_none_are_refused(served, app):
    tokens = app.encoder.tokenizer.encode(TEXTS[:1], None, max_length=24)
    ids, segments = tokens.input_ids[0].tolist(), tokens.segment_ids[0].tolist()
    good = {"input_ids": [ids], "input_mask": [[1] * len(ids)], "segment_ids": [segments]}

    def ask(**changed):
        return {"signature_name": "predict_ids", "inputs": good | changed}

    (wanted,) = served.client.post(f"{NAME}:predict", ask())["outputs"]
    padded = {name: [[*value[0], 0, 0]] for name, value in good.items()}
    assert served.client.post(f"{NAME}:predict", ask(**padded))["outputs"] == [wanted]
    vocabulary = len(app.encoder.tokenizer.vocab)
    long = {name: [[value[0][0]] * 25] for name, value in good.items()}
    for changed, told in [
        ({"input_mask": [[1, 0, *[1] * (len(ids) - 2)]]}, "ones and behind them zeros"),
        ({"input_mask": [[0] * len(ids)]}, "at least one 1"),
        ({"input_mask": [[2] * len(ids)]}, "ones and behind them zeros"),
        ({"input_mask": [[2_000_000_000] + [0] * (len(ids) - 1)]}, "ones and behind them zeros"),
        ({"input_mask": [[1] * (len(ids) + 1)]}, "unequally many columns"),
        ({"segment_ids": [segments[:-1]]}, "unequally many columns"),
        ({"input_ids": [[vocabulary + 10**6, *ids[1:]]]}, "refuses a row"),
        ({"input_ids": [[-1, *ids[1:]]]}, "refuses a row"),
        (long, "a row has 25 tokens"),
        ({"input_ids": [[0.5] * len(ids)]}, "is not of expected type: int32"),
    ]:
        status, message = served.client.refused(f"{NAME}:predict", ask(**changed))
        assert status == 400 and told in message, message
        assert served.client.post(f"{NAME}:predict", ask())["outputs"] == [wanted]
    assert served.client.post(f"{NAME}:predict", {"inputs": {"text": []}})["outputs"] == {
        "label": [], "probabilities": [], "score": [], "top5": [], "top5_score": []
    }  # fmt: skip


def test_classes_are_named_as_by_the_graph_and_earlier_exports_answer_as_they_declare(served, exported, tmp_path):
    from running_server import RunningServer

    from appzoo.jobs.litert_requests import raw_caller

    body = {"signature_name": "labels", "instances": [[1, 0, 1]]}
    assert served.client.post(f"{NAME}:predict", body) == {"predictions": [["yes", "no", "yes"]]}
    for number in (2, -1):
        status, message = served.client.refused(f"{NAME}:predict", body | {"instances": [[number]]})
        assert status == 400 and f"class_id {number} is not in [0, 2)" in message
    earlier = shutil.copytree(exported[0], tmp_path / NAME)
    path = earlier / "1/assets.extra/export.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["signatures"]["labels"]
    for name in ("top5", "top5_score"):
        del manifest["signatures"]["serving_default"]["outputs"][name]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with RunningServer(earlier, raw=raw_caller) as server:
        (answer,) = server.client.post(f"{NAME}:predict", {"instances": TEXTS[:1]})["predictions"]
        assert answer.keys() == {"probabilities", "label", "score"}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A server of a SavedModel with the same signature on texts, under the same name."""
    import tensorflow as tf
    from running_server import RunningServer

    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serve(text):
        share = tf.ones([tf.size(text), 2]) / 2
        return {"probabilities": share, "label": text, "score": share[:, 0]}

    folder = tmp_path_factory.mktemp("graphs") / NAME
    tf.saved_model.save(module, str(folder / "1"), signatures={"serving_default": serve})
    with RunningServer(folder, max_request_mb=0.05) as server:
        yield server


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"{NAME}:predict", b"{"),
        (f"{NAME}:predict", b""),
        (f"{NAME}:predict", b"[1]"),
        (f"{NAME}:predict", b'{"instances": ["\\ud800"]}'),
        (f"{NAME}:predict", {}),
        (f"{NAME}:predict", {"instances": []}),
        (f"{NAME}:predict", {"instances": [{"texts": "a"}]}),
        (f"{NAME}:predict", {"instances": [1]}),
        (f"{NAME}:predict", {"instances": ["a"], "signature_name": "other"}),
        (f"{NAME}:predict", {"instances": ["a"], "signature_name": 1}),
        (f"{NAME}:predict", {"inputs": {"text": "a"}}),
        (f"{NAME}:predict", {"instances": [{"b64": "?"}]}),
        (f"{NAME}:predict", {"instances": ["a"] * 65}),
        (f"{NAME}:predict", {"instances": ["a" * 60_000]}),
        (f"{NAME}:classify", {"examples": [{"text": "a"}]}),
        (f"{NAME}:classify", {"examples": "a"}),
        (f"{NAME}:regress", {"examples": [{"text": "a"}]}),
        (f"{NAME}/versions/7:predict", {"instances": ["a"]}),
        ("other:predict", {"instances": ["a"]}),
        (f"{NAME}:other", {"instances": ["a"]}),
    ],
)
def test_refusals_are_those_of_a_savedmodel(served, graph, path, body):
    ours, theirs = served.client.refused(path, body), graph.client.refused(path, body)
    # What the models have is another thing.
    ours, theirs = ((status, message.split("; the model has")[0]) for status, message in (ours, theirs))
    assert ours == theirs


def test_status_and_metadata_have_the_form_of_the_protocol(served, graph):
    from google.protobuf import json_format
    from tensorflow_serving.apis import get_model_metadata_pb2

    for path in ("", "/versions/1", "/versions/9"):
        ours, theirs = (each.client.http.get(f"/v1/models/{NAME}{path}") for each in (served, graph))
        assert (ours.status_code, ours.json()) == (theirs.status_code, theirs.json())
    found = served.client.http.get(f"/v1/models/{NAME}/metadata").json()
    assert found["model_spec"] == {"name": NAME, "signature_name": "", "version": "1"}
    shown = found["metadata"]["signature_def"]
    message = json_format.ParseDict(shown, get_model_metadata_pb2.SignatureDefMap())
    again = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert shown == again and set(shown["signature_def"]) == {"serving_default", "predict_ids", "labels"}
    assert shown["signature_def"]["serving_default"]["inputs"]["text"]["dtype"] == "DT_STRING"


def test_a_new_version_takes_over_between_two_answers(exported, tmp_path):
    from running_server import RunningServer

    from appzoo.jobs.litert_requests import raw_caller

    folder = tmp_path / NAME
    shutil.copytree(exported[0] / "1", folder / "1")
    with RunningServer(folder, raw=raw_caller) as server:
        stopping, answers = threading.Event(), []

        def ask():
            while not stopping.is_set():
                answers.append(json.dumps(server.client.post(f"{NAME}:predict", {"instances": TEXTS[:2]})))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        while len(answers) < 10:
            time.sleep(0.01)
        before = set(answers)
        shutil.copytree(exported[1], tmp_path / "copy")
        (tmp_path / "copy").rename(folder / "2")
        end = time.monotonic() + SECONDS
        while (states := status(server)) != {"1": "END", "2": "AVAILABLE"} and time.monotonic() < end:
            time.sleep(0.02)
        after = json.dumps(server.client.post(f"{NAME}:predict", {"instances": TEXTS[:2]}))
        stopping.set()
        for thread in threads:
            thread.join(SECONDS)
    assert states == {"1": "END", "2": "AVAILABLE"}
    assert len(before) == 1 and after not in before
    assert set(answers) <= before | {after}


def status(server):
    found = server.client.http.get(f"/v1/models/{NAME}").json()["model_version_status"]
    return {each["version"]: each["state"] for each in found}


def test_a_damaged_version_is_left_out_and_said_why(exported, tmp_path):
    from running_server import RunningServer

    from appzoo.jobs.litert_requests import raw_caller

    shutil.copytree(exported[0] / "1", tmp_path / NAME / "1")
    shutil.copytree(exported[0] / "1", tmp_path / NAME / "2")
    (tmp_path / NAME / "2" / "model.tflite").write_bytes(b"nothing")
    with RunningServer(tmp_path / NAME, raw=raw_caller) as server:
        found = server.client.http.get(f"/v1/models/{NAME}").json()["model_version_status"]
        assert "no usable LiteRT model" in found[0]["status"]["error_message"]
        assert server.client.post(f"{NAME}:predict", {"instances": TEXTS})["predictions"]


def test_grpc_is_refused_in_one_line(exported, capfd):
    from appzoo.cli.main import main

    assert main(["serve", str(exported[0]), "--restPort=0", "--grpcPort=8500"]) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "TensorFlow" in line and "leave grpcPort out" in line


def test_savedmodels_come_first_in_a_mixed_folder(exported, tmp_path):
    from easytransfer.serving.sources import ModelDirectory

    shutil.copytree(exported[0], tmp_path / NAME)
    assert ModelDirectory(tmp_path).program == ModelDirectory(tmp_path / NAME / "1").program == "model.tflite"
    (tmp_path / "other" / "1").mkdir(parents=True)
    (tmp_path / "other" / "1" / "saved_model.pb").write_bytes(b"")
    found = ModelDirectory(tmp_path)
    assert found.program == "saved_model.pb" and [source.name for source in found.sources()] == ["other"]


def targets():
    from appzoo.text_match.config import TwoTowerSettings
    from appzoo.text_match.cosine_target import CosineMatch, CosineScore
    from easytransfer.app.targets.labels import MultiLabel, Score, SingleLabel
    from easytransfer.data.labels import LabelMap

    labels = LabelMap([*LABELS, "schön"])
    random = np.random.default_rng(3)
    logits, cosines = (random.normal(0, 2, (9, n)).astype(np.float32) for n in (3, 1))
    cosines = np.tanh(cosines[:, 0])
    yield SingleLabel(labels), logits
    yield MultiLabel(labels, 3, 0.4), logits
    yield Score(), logits[:, :1]
    yield CosineMatch(LabelMap(LABELS), TwoTowerSettings(threshold=0.1)), cosines
    yield CosineScore(), cosines


def test_answers_by_numpy_are_those_of_the_graph():
    import tensorflow as tf

    from appzoo.jobs.litert_requests import _answers_rows
    from easytransfer.data.encoded import EncodedTable

    for target, logits in targets():
        wanted = {name: np.asarray(value) for name, value in target.answer({"logits": tf.constant(logits)}).items()}
        found = target.answer_rows({"logits": logits}, EncodedTable({}))
        assert found.keys() == wanted.keys() and _answers_rows(target)
        for name, value in wanted.items():
            assert found[name].shape == value.shape and found[name].dtype == value.dtype
            if value.dtype == object:
                assert found[name].tolist() == value.tolist()
            else:
                assert np.allclose(found[name], value, rtol=1e-6, atol=1e-7)


def test_a_target_that_answers_otherwise_takes_arrays_alone():
    from appzoo.jobs.litert_requests import _answers_rows
    from easytransfer.app.targets.labels import SingleLabel
    from easytransfer.app.targets.text import TextTarget
    from easytransfer.data.labels import LabelMap

    class Other(SingleLabel):
        def answer(self, outputs):
            return {"logits": outputs["logits"]}

    assert not _answers_rows(Other(LabelMap(LABELS))) and not _answers_rows(TextTarget("a", None, 3))
