"""Vectors from LiteRT exports: equal to the network's, without TensorFlow, whatever the batches."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from litert_exports import PROGRAM

from easytransfer.data.npy_tables import read_npy

pytest.importorskip("ai_edge_litert")

COLUMNS = "pool_output,first_token_output,mean_output,all_hidden_outputs"
VECTORS = COLUMNS.split(",")[:3]
WORDS = "the movie was good bad not very we our a film 42 , .".split()


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, size=(7 * row) % 13)) for row in range(40)]
    path = tmp_path_factory.mktemp("table") / "rows.csv"
    path.write_text("text\n" + "".join(f'"{text}"\n' for text in texts), encoding="utf-8")
    return SimpleNamespace(path=path, texts=texts)


def command(capfd, *words, code=0):
    from appzoo.cli.main import main

    capfd.readouterr()
    found = main(list(map(str, words)))
    captured = capfd.readouterr()
    assert found == code, captured.err
    return captured if code else SimpleNamespace(result=json.loads(captured.out), err=captured.err)


@pytest.fixture(scope="module")
def exported(tiny_model, table, tmp_path_factory):
    """Both variants, and what was printed of them."""
    import contextlib
    import io

    from appzoo.cli.main import main

    base, out, err = tmp_path_factory.mktemp("vectors"), io.StringIO(), io.StringIO()
    words = ["export", "--exportType=ez_bert_feat", f"--checkpointPath={tiny_model}", f"--exportDirBase={base}"]
    words += ["--exportVariants=litert,litert-int8", f"--outputSchema={COLUMNS}", "--sequenceLength=10"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*words, f"--inputTable={table.path}", "--set=data.first_sequence=text"])
    assert code == 0, err.getvalue()
    result = json.loads(out.getvalue())
    return SimpleNamespace(whole=result, eighth=result["others"][0], err=err.getvalue())


def vectors(capfd, model, table, output, **options):
    from appzoo.cli.features import main

    flags = {"modelName": model, "inputTable": table.path, "outputTable": f"{output}/", "firstSequence": "text"}
    flags |= {"outputSchema": COLUMNS, "sequenceLength": 10} | options
    assert main([f"--{name}={value}" for name, value in flags.items()]) == 0, capfd.readouterr().err
    return read_npy(output)


@pytest.fixture
def wanted(capfd, tiny_model, table, tmp_path):
    return vectors(capfd, tiny_model, table, tmp_path / "network")


def test_vectors_are_those_of_the_network(capfd, exported, table, wanted, tmp_path):
    assert exported.whole["export"].endswith("tiny-bert_vectors-litert/1")
    assert exported.eighth["export"].endswith("tiny-bert_vectors-litert-int8/1")
    found = vectors(capfd, exported.whole["export"], table, tmp_path / "litert")
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert np.abs(found[name] - value).max() <= 1e-5 * max(1, np.abs(value).max()), name
    rounded = vectors(capfd, exported.eighth["export"], table, tmp_path / "int8")
    for name in VECTORS:
        one, other = rounded[name].astype(np.float64), wanted[name].astype(np.float64)
        cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        # What the export has printed, to what rounding in batches of other sizes changes.
        printed = exported.eighth["cosine"][name]
        assert np.allclose([printed["mean"], printed["smallest"]], [cosine.mean(), cosine.min()], atol=1e-6)
        assert 0.95 < printed["smallest"] <= printed["mean"] < 1 - 1e-7
        assert exported.whole["cosine"][name]["smallest"] > 1 - 1e-7
        assert f"cosine of {name} to the network's over 40 texts {printed['mean']:.6f}" in exported.err


def test_the_command_imports_no_tensorflow_and_batches_change_no_bit(capfd, exported, table, tmp_path):
    folder = exported.eighth["export"]
    flags = [f"--modelName={folder}", f"--inputTable={table.path}", f"--outputTable={tmp_path}/alone/"]
    flags += ["--firstSequence=text", "--outputSchema=pool_output,mean_output", "--batchSize=1"]
    program = PROGRAM.replace("appzoo.cli.main", "appzoo.cli.features")
    done = subprocess.run([sys.executable, "-c", program, *flags], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "HEAVY []" in done.stderr, done.stderr
    assert json.loads(done.stdout)["written"] == 40
    together = vectors(capfd, folder, table, tmp_path / "together", outputSchema="pool_output,mean_output")
    alone = read_npy(tmp_path / "alone")
    for name in ("pool_output", "mean_output"):
        assert np.array_equal(alone[name], together[name])


def test_a_server_answers_with_the_same_vectors(capfd, exported, table, tmp_path):
    pytest.importorskip("tensorflow_serving")
    from pathlib import Path

    from appzoo.jobs.litert_requests import raw_caller
    from easytransfer.serving.litert import LiteRtServable

    folder = exported.eighth["export"]
    wanted = vectors(capfd, folder, table, tmp_path / "table")
    signature = LiteRtServable("vectors", 1, Path(folder), raw_caller).signature("")
    found = signature.call({"text": np.array([text.encode() for text in table.texts], object)})
    for name in VECTORS:
        assert np.array_equal(found[name], wanted[name])
    width = found["all_hidden_outputs"].shape[1]
    assert np.array_equal(found["all_hidden_outputs"], wanted["all_hidden_outputs"][:, :width])


def test_variants_and_tables_that_vectors_do_not_have_are_refused(capfd, tiny_model, table, tmp_path):
    words = ["export", "--exportType=ez_bert_feat", f"--checkpointPath={tiny_model}", f"--exportDirBase={tmp_path}/x"]
    assert "float32, litert, litert-int8" in command(capfd, *words, "--exportVariants=xla", code=2).err
    unnamed = command(capfd, *words, "--exportVariants=litert", f"--inputTable={table.path}", code=2)
    assert "give --set data.first_sequence=COLUMN" in unnamed.err


def test_cosines_by_hand():
    from appzoo.jobs.export_vectors import cosines

    first = np.float32([[3, 4], [1, 0], [0, 0], [5, 5]])
    second = np.float32([[4, 3], [-2, 0], [1, 0], [0, 0]])
    # 24 / 25; opposite; a vector of zeros in place of another; nothing to compare.
    assert cosines(first, second).tolist() == [0.96, -1.0, 0.0]
    assert cosines(first[0], second[0]).tolist() == [0.96]
