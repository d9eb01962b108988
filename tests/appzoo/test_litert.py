"""Exports for LiteRT: the lean network, its int8 form, and predictions in a process without TensorFlow."""

import json
import subprocess
import sys

import numpy as np
import pytest
from litert_exports import LABELS, PROGRAM, TEXTS, export, make_app

pytest.importorskip("ai_edge_litert")


def without_tensorflow(*words):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stderr, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def app(tiny_model):
    return make_app(tiny_model)


@pytest.fixture(scope="module")
def exports(app, tmp_path_factory):
    base = tmp_path_factory.mktemp("litert")
    return {variant: export(app, base, variant) for variant in ("litert", "litert-int8")}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "rows.tsv"
    rows = [f"{text}\t{LABELS[i % 2]}" for i, text in enumerate(TEXTS) if "\t" not in text]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def batch_of(app):
    tokens = app.encoder.tokenizer.encode(TEXTS, None, max_length=24)
    from easytransfer.data.encoded import EncodedTable

    columns = {"input_ids": tokens.input_ids, "segment_ids": tokens.segment_ids}
    return EncodedTable(columns, {"input_mask": "input_ids"}).batch(range(len(TEXTS)), pad_multiple=1)


def test_an_export_has_model_assets_manifest_and_samples(exports):
    from easytransfer.data.labels import LabelMap

    whole, eighth = (exports[variant].path for variant in ("litert", "litert-int8"))
    assert whole.parent.name == "text_classify_bert-litert" and whole.name == "1"
    assert {path.name for path in (whole / "assets").iterdir()} >= {"vocab.txt", "config.json", LabelMap.FILE}
    manifest = json.loads((whole / "assets.extra/export.json").read_text(encoding="utf-8"))
    assert set(manifest["signatures"]) == {"serving_default", "predict_ids", "labels"}
    assert set(manifest["samples"]) == set(manifest["signatures"])
    assert manifest["labels"] == LABELS and manifest["variant"] == "litert"
    sizes = [(folder / "model.tflite").stat().st_size for folder in (whole, eighth)]
    assert sizes[1] < 0.6 * sizes[0]
    # Nothing but gathering rows of tables stands outside of XNNPACK.
    assert [check["detail"] for check in exports["litert-int8"].checks if check["name"] == "delegate"] == [
        "computed by XNNPACK in 1 piece(s)"
    ]


def test_the_lean_network_answers_like_the_network(app, exports):
    from easytransfer.litert.model import LiteRtModel

    batch = batch_of(app)
    wanted = app.predict_step({name: value for name, value in batch.items() if name != "example_weight"})["logits"]
    found = LiteRtModel(exports["litert"].path, 1)(batch)["logits"]
    assert np.ptp(wanted[:, 0]) > 0.1
    assert np.abs(found - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())
    rounded = LiteRtModel(exports["litert-int8"].path, 1)(batch)["logits"]
    assert 1e-5 < np.abs(rounded - wanted).max() < 0.1 * np.ptp(wanted)


def test_answers_do_not_depend_on_companions_threads_or_padding(app, exports):
    from easytransfer.litert.model import LiteRtModel

    batch = batch_of(app)
    alone = LiteRtModel(exports["litert-int8"].path, 1)
    several = LiteRtModel(exports["litert-int8"].path, 3)
    together = several(batch)["logits"]
    wider = {name: np.pad(value, [(0, 0), (0, 7)]) if value.ndim > 1 else value for name, value in batch.items()}
    assert np.array_equal(several(wider)["logits"], together)
    for row in range(len(TEXTS)):
        one = alone({name: value[row : row + 1] for name, value in batch.items()})["logits"]
        assert np.array_equal(one[0], together[row])
    assert several({name: value[:0] for name, value in batch.items()})["logits"].shape == (0, 2)
    several.close()


def test_predict_and_evaluate_import_no_tensorflow(app, exports, table, tmp_path):
    from easytransfer.metrics.scores import softmax

    words = [f"--checkpointPath={exports['litert'].path}", f"--inputTable={table}", "--inputSchema=a:str:1,label:str:1"]
    output = tmp_path / "out.jsonl"
    predicted = without_tensorflow("predict", *words, f"--outputTable={output}")
    assert predicted["written"] == predicted["read"] == 4
    found = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    batch = batch_of(app)
    logits = app.predict_step({name: value for name, value in batch.items() if name != "example_weight"})["logits"]
    logits = np.delete(np.asarray(logits), 3, axis=0)
    assert np.allclose([row["logits"] for row in found], logits, atol=1e-4)
    assert [row["predictions"] for row in found] == [LABELS[i] for i in logits.argmax(axis=1)]
    metrics = without_tensorflow("evaluate", *words)["metrics"]
    labels = np.array([0, 1, 0, 0])
    assert metrics["accuracy"] == np.mean(logits.argmax(axis=1) == labels)
    assert metrics["loss"] == pytest.approx(-np.log(softmax(logits)[range(4), labels]).mean(), rel=1e-4)


def test_tables_of_int8_rows_are_as_close_as_their_scales_allow(tiny_model):
    import tensorflow as tf

    from modelzoo.lean_encoder import LeanEncoder

    encoder = LeanEncoder(make_app(tiny_model).model.backbone, int8=True)
    table = np.random.default_rng(1).normal(0, 1, (300, 16)).astype(np.float32)
    # Rows of very different size, and one of zeros.
    table *= np.geomspace(1e-3, 10, 300, dtype=np.float32)[:, None]
    table[7] = 0
    found = encoder._rows(table, tf.range(300)[None]).numpy()
    scale = np.abs(table).max(axis=1, keepdims=True) / 127
    assert (np.abs(found - table) <= 0.501 * scale * (1 + 1e-3)).all()
    assert not np.array_equal(found, table)


def test_a_damaged_export_is_one_line(exports, tmp_path, capfd):
    from appzoo.cli.main import main

    folder = tmp_path / "broken" / "1"
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "model.tflite").write_bytes(b"nothing")
    words = ["predict", f"--checkpointPath={folder}", "--inputTable=a.tsv", "--outputTable=b.tsv"]
    assert main(words) != 0
    assert len(capfd.readouterr().err.strip().splitlines()) == 1
