"""Every way to break an export is found by the check that is meant for it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from export_models import LABELS, TEXTS, CoreClassifier, signatures

from appzoo.cli.main import main
from easytransfer.errors import ConfigError, ModelError
from easytransfer.export import validate as validation
from easytransfer.export.samples import record_samples
from easytransfer.export.saved_model import publish, write_servable
from easytransfer.export.selfcheck.behaviour import check_outputs
from easytransfer.export.selfcheck.checks import SelfCheck
from easytransfer.export.server_config import check_existing_files, update_server_files
from easytransfer.export.warmup import write_warmup
from easytransfer.savedmodel.array_json import encode_array
from easytransfer.savedmodel.failure import CheckFailed
from easytransfer.savedmodel.graph import read_saved_model
from easytransfer.savedmodel.manifest import signature_digest
from easytransfer.savedmodel.signature import Signature


def write(folder: Path, model: CoreClassifier, chosen: dict[str, Signature] | None = None) -> None:
    labels = folder.parent / "labels.txt"
    labels.write_text("\n".join(LABELS), encoding="utf-8")
    write_servable(
        folder, chosen or signatures(model), module=model, name="sentiment", assets={"labels.txt": labels},
        manifest={"labels": LABELS}, max_batch_size=4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """`<base>/sentiment/1` with its configuration files; the checks run in this process to save time."""
    folder = tmp_path_factory.mktemp("exports")
    base = folder / "base"
    (base / "sentiment").mkdir(parents=True)
    write(folder / "staging", CoreClassifier(folder))
    publish(folder / "staging", base / "sentiment")
    update_server_files(base, "sentiment", max_batch_size=4, serving_root="/models")
    return base / "sentiment" / "1"


@pytest.fixture
def copy(published, tmp_path) -> Path:
    shutil.copytree(published.parents[1], tmp_path / "base")
    return tmp_path / "base" / "sentiment" / "1"


def edit_manifest(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / "assets.extra/export.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def edit_graph(folder: Path, change: Callable) -> None:
    proto = read_saved_model(folder)
    change(proto.meta_graphs[0])
    (folder / "saved_model.pb").write_bytes(proto.SerializeToString())


def node(meta, op: str):
    nodes = [*meta.graph_def.node, *(n for f in meta.graph_def.library.function for n in f.node_def)]
    return next(n for n in nodes if n.op == op)


def flip_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)


def manifest_shape(manifest: dict) -> None:
    manifest["signatures"]["predict_ids"]["outputs"]["logits"]["shape"] = [None, 7]
    manifest["signature_digest"] = signature_digest(manifest["signatures"])


def absolute_constant(meta) -> None:
    tensor = tf.make_tensor_proto("/home/someone/vocab.txt")
    meta.graph_def.node.add(op="Const", name="path").attr["value"].tensor.CopyFrom(tensor)
    meta.graph_def.node[-1].attr["dtype"].type = tf.string.as_datatype_enum


def other_weights(folder: Path) -> None:
    model = CoreClassifier(folder.parents[1])
    model.vectors.assign(model.vectors * 1.001)
    write(folder.parents[1] / "other", model)
    shutil.rmtree(folder / "variables")
    shutil.copytree(folder.parents[1] / "other" / "variables", folder / "variables")


def few_requests(folder: Path, rows: int = 1) -> None:
    write_warmup(folder, "sentiment", signatures(CoreClassifier(folder.parents[1])), rows)


def in_manifest(**changes) -> Callable[[Path], None]:
    return lambda folder: edit_manifest(folder, lambda manifest: manifest.update(changes))


def in_node(field: str, value: str) -> Callable[[Path], None]:
    return lambda folder: edit_graph(folder, lambda meta: setattr(node(meta, "Softmax"), field, value))


def asset_named(name: str) -> Callable[[Path], None]:
    return lambda folder: edit_graph(folder, lambda meta: setattr(meta.asset_file_def[0], "filename", name))


def text_in(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


WARMUP, MANIFEST = "assets.extra/tf_serving_warmup_requests", "assets.extra/export.json"
WEIGHTS = "variables/variables.data-00000-of-00001"
# What is broken -> how, the check that must fail first, and what it says.
BREAKS = {
    "foreign file": (text_in("notes.txt", "x"), "layout", "foreign files: notes.txt"),
    "missing asset": (without("assets/vocab.txt"), "layout", "missing under assets/: vocab.txt"),
    "changed asset": (text_in("assets/labels.txt", "x"), "layout", "not as the manifest says .*labels.txt"),
    "no warm-up": (without(WARMUP), "layout", f"missing: {WARMUP}"),
    "no manifest": (without(MANIFEST), "layout", f"missing: {MANIFEST}"),
    "cut manifest": (text_in(MANIFEST, "{"), "layout", "cannot be read"),
    "poor manifest": (lambda f: edit_manifest(f, lambda m: m.pop("max_length")), "layout", "lacks max_length"),
    "machine path": (in_manifest(run="/home/me/run"), "layout", "machine that wrote it: /home/me/run"),
    "other digest": (in_manifest(signature_digest="0"), "layout", "signature_digest does not belong"),
    "other shape": (lambda f: edit_manifest(f, manifest_shape), "signatures", "differ from the manifest: predict_ids"),
    "label dropped": (in_manifest(labels=LABELS[:2]), "signatures", "has 3 columns for 2 labels"),
    "labels swapped": (in_manifest(labels=LABELS[::-1]), "outputs", "classes are"),
    "labels renamed": (in_manifest(labels=["x", "y", "z"]), "outputs", "answered the label b'(bad|good|odd)'"),
    "train tag": (lambda f: edit_graph(f, lambda m: m.meta_info_def.tags.append("train")), "signatures", "tag sets"),
    "not a model": (lambda f: (f / "saved_model.pb").write_bytes(b"\xff" * 9), "signatures", "cannot be parsed"),
    "python operator": (in_node("op", "EagerPyFunc"), "operators", "does not run: EagerPyFunc"),
    "horovod operator": (in_node("op", "HorovodAllreduce"), "operators", "does not run: HorovodAllreduce"),
    "collective": (in_node("op", "CollectiveReduceV2"), "operators", "does not run: CollectiveReduceV2"),
    "too new for servers": (in_node("op", "TFText>Utf8Binarize"), "operators", "does not run: TFText>Utf8Binarize"),
    "unknown operator": (in_node("op", "MyOp"), "operators", "neither TensorFlow nor tf.Text has .* MyOp"),
    "device name": (in_node("device", "/job:a/device:GPU:0"), "operators", "device names .*/job:a/device:GPU:0"),
    "absolute path": (lambda f: edit_graph(f, absolute_constant), "operators", "absolute paths.*/home/someone"),
    "asset outside": (asset_named("../vocab.txt"), "operators", "leaves the export"),
    "unknown asset": (asset_named("x.txt"), "operators", "reads assets/x.txt, which is missing"),
    "other weights": (other_weights, "outputs", "differs from the model in memory by"),
    "damaged weights": (lambda f: flip_byte(f / WEIGHTS, 5), "outputs", "DataLoss|[Cc]hecksum"),
    "damaged warm-up": (lambda f: flip_byte(f / WARMUP, 20), "warmup", "damaged after 0 records"),
    "few warm-ups": (few_requests, "warmup", r"no request of serving_default with a batch of \[4\]"),
    "models.config": (text_in("../../models.config", "model_config_list {"), "server_files", "does not parse"),
    "unlisted": (text_in("../../models.config", ""), "server_files", "must list 'sentiment' once"),
    "batch sizes": (
        text_in("../../batching.config", "max_batch_size { value: 8 } allowed_batch_sizes: [4, 2]"),
        "server_files",
        r"\[4, 2\] must ascend to max_batch_size 8",
    ),
}


def failure(folder: Path, staged: bool = False) -> dict:
    report = SelfCheck(folder, staged).run()
    assert not report["ok"], report
    assert all(check["ok"] for check in report["checks"][:-1])
    return report["checks"][-1]


@pytest.mark.parametrize("name", BREAKS)
def test_broken_export_is_caught(copy, name):
    damage, check, message = BREAKS[name]
    damage(copy)
    failed = failure(copy)
    assert failed["name"] == check and re.search(message, failed["detail"]), failed


def test_untouched_export_passes(copy):
    report = SelfCheck(copy).run()
    assert report["ok"] and len(report["checks"]) == 9, report
    assert report["checks"][7]["detail"] == "models.config, batching.config, monitoring.config"


@pytest.mark.parametrize("name", ["latest", "01", "0", "1.5"])
def test_folder_must_be_a_version(copy, name):
    renamed = copy.rename(copy.with_name(name))
    assert "positive integer" in failure(renamed)["detail"]


def test_fixed_batch_axis(tmp_path):
    model = CoreClassifier(tmp_path)
    fixed = Signature(model.answer, {"text": tf.TensorSpec([4], tf.string)}, {"text": TEXTS})
    write(tmp_path / "fixed", model, {"serving_default": fixed})
    failed = failure(tmp_path / "fixed", staged=True)
    assert failed["name"] == "signatures" and "the batch axis must be None, not shape [4]" in failed["detail"]


def test_wrong_classify_contract(tmp_path):
    model = CoreClassifier(tmp_path)
    raw = signatures(model)["serving_default"]
    write(tmp_path / "wrong", model, {"serving_default": raw, "classify": raw})
    assert "classify.inputs must be ['inputs'], not ['text']" in failure(tmp_path / "wrong", staged=True)["detail"]


ROWS = np.array([[0.1, 0.2], [0.4, 0.3], [0.5, 0.9]], np.float32)


def compared(
    answer: Callable[[np.ndarray], dict[str, np.ndarray]],
    recorded: Callable = np.array,
    float_type: str = "float32",
    undecided: dict[str, list[int]] | None = None,
) -> str:
    outputs = {str(rows): {"y": encode_array(recorded(ROWS[:rows]))} for rows in (1, 3)}
    samples = {"inputs": {"x": encode_array(ROWS)}, "outputs": outputs, "undecided": undecided or {}}
    specs = {"s": {"inputs": {"x": {"dtype": "float32", "shape": [None, 2]}}}}
    manifest = {"samples": {"s": samples}, "signatures": specs, "labels": None}
    manifest["float_types"] = ["float32", float_type]
    return check_outputs({"s": lambda inputs: answer(inputs["x"])}, manifest)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: {"y": x if len(x) else ROWS[:1]}, "an empty batch gave"),
        (lambda x: {"y": x + np.float32(2e-4)}, "y differs from the model in memory by 0.0002"),
        (lambda x: {"z": x}, r"outputs \['z'\], expected \['y'\]"),
        (lambda x: {"y": x[:, :1]}, r"y has shape \(1, 1\), the model in memory \(1, 2\)"),
        (lambda x: {"y": np.full_like(x, np.nan)}, "y is not finite"),
    ],
)
def test_wrong_answers_are_found(answer, message):
    with pytest.raises(CheckFailed, match=message):
        compared(answer)


def test_rows_that_look_at_each_other_are_found():
    def centred(x: np.ndarray) -> np.ndarray:
        return x - x.mean(0) if len(x) else x

    with pytest.raises(CheckFailed, match="y of a row depends on the other rows"):
        compared(lambda x: {"y": centred(x)}, recorded=centred)


def test_difference_is_reported():
    # 4e-6 of 0.9 is 37 times what a float32 cannot tell apart, and 256 times are allowed.
    assert compared(lambda x: {"y": x + np.float32(4e-6)}).endswith("memory 0.15 of what rounding explains")


def test_names_that_are_not_those_of_the_labels_are_found():
    from easytransfer.app.serving import labels_signature

    def check(shown: list[str], labels: list[str]) -> str:
        signature = labels_signature(shown)
        specs = {"inputs": {"class_id": {"dtype": "int32", "shape": [None, None]}}}
        manifest = {"samples": {"labels": record_samples(signature)}, "signatures": {"labels": specs}}
        manifest |= {"labels": labels, "float_types": ["float32"]}
        return check_outputs(
            {"labels": lambda inputs: {"label": signature.function(**inputs)["label"].numpy()}}, manifest
        )

    assert check(["ä", "b", "c"], ["ä", "b", "c"]).startswith("largest difference")
    with pytest.raises(CheckFailed, match="labels: the names are .*, the labels"):
        check(["ä", "c", "b"], ["ä", "b", "c"])


@pytest.mark.parametrize(("name", "known"), [(b"b", True), (b"z", False)])
def test_best_classes_are_labels(name, known):
    outputs = {"top5": np.array([[b"a", name]], object)}
    recorded = {"1": {key: encode_array(value) for key, value in outputs.items()}}
    samples = {"inputs": {"x": encode_array(ROWS[:1])}, "outputs": recorded}
    manifest = {"samples": {"s": samples}, "labels": ["a", "b"], "float_types": ["float32"]}
    manifest["signatures"] = {"s": {"inputs": {"x": {"dtype": "float32", "shape": [None, 2]}}}}

    def check() -> str:
        return check_outputs({"s": lambda inputs: {"top5": outputs["top5"][: len(inputs["x"])]}}, manifest)

    if known:
        check()
        return
    with pytest.raises(CheckFailed, match="answered the name b'z', which is none of"):
        check()


def logits(x: np.ndarray) -> np.ndarray:
    """Answers of size 10 beside zeros, and padding."""
    return np.stack([10 * x[:, 0] / 0.5, 0 * x[:, 0], np.full(len(x), -1e9)], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("difference", "float_type", "allowed"),
    [
        # The report that ended a healthy training: 1.33e-05 beside logits of size 10.
        (1.33e-5, "float32", True),
        (2.8e-4, "float32", True),
        (3.4e-4, "float32", False),
        (0.5, "bfloat16", True),
        (1.5, "bfloat16", False),
    ],
)
def test_differences_count_beside_the_largest_number_of_the_output(difference, float_type, allowed):
    def answer(x: np.ndarray) -> dict[str, np.ndarray]:
        return {"y": logits(x) + np.array([0, difference, 0], np.float32)}

    if allowed:
        compared(answer, logits, float_type)
        return
    with pytest.raises(CheckFailed, match=r"numbers reach 10: [\d,]+ units of rounding, [\d,]+ are allowed"):
        compared(answer, logits, float_type)


def test_padding_is_compared_by_its_own_size():
    with pytest.raises(CheckFailed, match="y differs"):
        compared(lambda x: {"y": logits(x) * np.array([1, 1, 1.001], np.float32)}, logits)
    # 64 is the next float32 to -1e9.
    compared(lambda x: {"y": logits(x) + np.array([0, 0, 64], np.float32)}, logits)


def test_outputs_of_small_numbers_are_compared_by_their_size():
    def small(x: np.ndarray) -> np.ndarray:
        return 0.01 * x

    compared(lambda x: {"y": small(x) * np.float32(1 + 2e-5)}, small)
    with pytest.raises(CheckFailed, match="y differs"):
        compared(lambda x: {"y": small(x) * np.float32(1 + 8e-5)}, small)


def names(x: np.ndarray) -> np.ndarray:
    return np.array([*(b"yes" if value > 0.3 else b"no" for value in x[:, 0]), None], object)[:-1]


def test_rows_that_rounding_decides_are_not_compared():
    def other(x: np.ndarray) -> np.ndarray:
        found = names(x)
        found[1:2] = b"no"
        return found

    with pytest.raises(CheckFailed, match="y is .*, the model in memory gave"):
        compared(lambda x: {"y": other(x)}, names)
    told = compared(lambda x: {"y": other(x)}, names, undecided={"y": [1]})
    assert told.endswith("; 1 rows not compared, since rounding decides them")
    with pytest.raises(CheckFailed, match="y is .*, the model in memory gave"):
        compared(lambda x: {"y": other(x)}, names, undecided={"y": [0, 2]})


class Decisions(tf.Module):
    """Names the larger of two scores, which are equal but for the last bit in the second row."""

    def __init__(self) -> None:
        self.kernel = tf.Variable(np.float32([[1.0, 0.5], [0.5, 1.0]]))

    def answer(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = tf.matmul(x, self.kernel)
        best = tf.argmax(scores, axis=1)
        return {"scores": scores, "label": tf.gather(tf.constant(["left", "right"]), best), "label_id": best}


def test_undecided_rows_are_found_by_moving_the_weights_a_little():
    model, rows = Decisions(), np.float32([[1, 2], [1, np.nextafter(np.float32(1), 2)], [3, 1], [1, 1.001]])
    signature = Signature(model.answer, {"x": tf.TensorSpec([None, 2])}, {"x": rows})
    before = model.kernel.numpy()
    found = record_samples(signature, [model.kernel])
    assert found["undecided"] == {"label": [1], "label_id": [1]}
    np.testing.assert_array_equal(model.kernel, before)
    assert found["tolerance"] == {"scores": 256 * 2.0**-23}


def test_a_network_that_amplifies_rounding_is_compared_by_how_much():
    """A hundred layers, of which each doubles the difference to what the first one gives."""
    kernel, power = tf.Variable(np.float32([[1.0]])), 20

    def answer(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": 1 + 2.0**power * (tf.matmul(x, kernel) - x)}

    signature = Signature(answer, {"x": tf.TensorSpec([None, 1])}, {"x": np.float32([[1], [1.5]])})
    # 64 units of 1.5, amplified by 2^20, beside numbers of size 1.
    share = record_samples(signature, [kernel])["tolerance"]["y"]
    assert share == pytest.approx(1.5 * 64 * 2.0**-23 * 2**power, rel=0.2)
    assert record_samples(signature)["tolerance"]["y"] == 256 * 2.0**-23


def test_server_files_keep_what_is_there(tmp_path, published):
    base = tmp_path / "base"
    shutil.copytree(published.parents[1], base)
    own = '# by hand\nmodel_config_list { config { name: "sentiment" base_path: "/srv/x" } }\n'
    (base / "models.config").write_text(own)
    (base / "batching.config").write_text("max_batch_size { value: 2 }")
    for other in ("topics", "a-b"):
        shutil.copytree(base / "sentiment", base / other)
    (base / "unfinished" / ".staging-1").mkdir(parents=True)
    update_server_files(base, "topics", max_batch_size=4, serving_root="/models/")
    text = (base / "models.config").read_text()
    assert text.startswith('# by hand\nmodel_config_list { config { name: "sentiment" base_path: "/srv/x" }')
    assert [text.count(f'name: "{name}"') for name in ("sentiment", "topics", "a-b", "unfinished")] == [1, 1, 1, 0]
    assert 'base_path: "/models/topics"' in text
    assert (base / "batching.config").read_text() == "max_batch_size { value: 2 }"
    update_server_files(base, "topics", max_batch_size=4, serving_root="/models")
    assert (base / "models.config").read_text() == text


def test_unusable_server_file_is_found_before_the_export(tmp_path):
    (tmp_path / "models.config").write_text("model_config_list { name: }")
    with pytest.raises(ConfigError, match=r"models.config does not parse.*correct or remove"):
        check_existing_files(tmp_path)


@pytest.mark.parametrize("largest", [1, 2, 5, 64])
def test_batch_sizes_ascend_to_the_largest(tmp_path, largest, copy):
    (copy.parents[1] / "batching.config").unlink()
    update_server_files(copy.parents[1], "sentiment", max_batch_size=largest, serving_root="/models")
    sizes = [int(line.split()[1]) for line in (copy.parents[1] / "batching.config").read_text().splitlines()
             if line.startswith("allowed")]  # fmt: skip
    assert sizes == {1: [1], 2: [1, 2], 5: [1, 2, 4, 5], 64: [1, 2, 4, 8, 16, 32, 64]}[largest]


def test_validate_command(copy, capsys):
    """The one test here that pays for a fresh process."""
    (copy / "assets/labels.txt").write_text("other")
    assert main(["export", "validate", str(copy), "--json"]) == 4
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["checks"][0]["name"] == "layout" and not report["checks"][0]["ok"]
    assert err.startswith("error: the export fails its check `layout`; got ")


def test_validate_explains_a_dead_process(copy, monkeypatch):
    monkeypatch.setattr(validation, "_START", "import sys; sys.exit('killed by something')")
    with pytest.raises(ModelError, match="died with exit code 1.*killed by something"):
        validation.validate(copy)
