"""One run exported in all variants, from the command line."""

import json
from pathlib import Path

import pytest

from appzoo.cli.main import main

CONFIG = "appzoo/text_classify/configs/smoke_cnn.yaml"
TABLE = "examples/text_classify/topics/dev.tsv"


def result(capfd, *words):
    assert main(list(words)) == 0
    return json.loads(capfd.readouterr().out)


@pytest.mark.every_check
def test_variants_are_exported_and_compared(repository, monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(repository)
    run, base = tmp_path / "run", tmp_path / "models"
    # Vectors of words that are large enough to be stored in fewer bytes.
    settings = [f"--set=checkpoint_dir={run}", "--set=train.num_epochs=3", "--set=model.embedding_size=256"]
    trained = result(capfd, "train", f"--config={CONFIG}", *settings)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert ">Results</h2>" in page and "data:image/png;base64," in page
    words = [f"--checkpointPath={run}", f"--exportDirBase={base}", f"--inputTable={TABLE}"]
    whole = result(capfd, "export", *words, "--exportVariants=float32,float16,int8,xla")
    half, eighth, xla = whole["others"]
    assert [found["variant"] for found in (whole, half, eighth, xla)] == ["float32", "float16", "int8", "xla"]
    assert whole["metrics"] == pytest.approx(trained["metrics"], abs=1e-6)
    assert half["metrics"]["loss"] == pytest.approx(whole["metrics"]["loss"], abs=1e-2)
    assert half["metrics"]["loss"] != whole["metrics"]["loss"] != eighth["metrics"]["loss"]
    assert xla["metrics"] == pytest.approx(whole["metrics"], abs=1e-6)
    assert whole["bytes"] > half["bytes"] > eighth["bytes"]
    for found, name in ((whole, ""), (half, "-float16"), (eighth, "-int8"), (xla, "-xla")):
        assert set(found["latency_ms"]) == {"1", "32"}
        assert found["export"] == str(base / f"text_classify_cnn{name}" / "1")
        graph = Path(found["export"], "saved_model.pb").read_bytes()
        assert (b"_XlaMustCompile" in graph) == (name == "-xla")
    assert main(["export", *words, "--exportVariants=xla", "--exportType=ez_bert_feat"]) == 2
    assert "vectors have no such variant; got 'xla'" in capfd.readouterr().err
    for wrong in ("int4", "int8,int8", ""):
        assert main(["export", *words, f"--exportVariants={wrong}"]) == 2
