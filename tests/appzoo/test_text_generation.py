"""Text to text: what is read and written, how it is taught, settings of the search, what is refused."""

import numpy as np
import pytest
import tensorflow as tf
from hub_stand_in import hub_stand_in

from appzoo.cli.main import main
from appzoo.jobs.tables import load_rows
from appzoo.text_generation.app import TextGeneration
from appzoo.text_generation.config import TextGenerationConfig
from appzoo.text_generation.inputs import with_end
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.encoded import Ragged
from easytransfer.errors import ConfigError, ModelError
from easytransfer.train.step import EVALUATION
from modelzoo.backbone import Backbone
from modelzoo.commands import make_tiny
from modelzoo.t5.tokenizer import T5Tokenizer

TINY = "examples/text_generation/tiny-t5"


@pytest.fixture
def make_app(repository, monkeypatch):
    """Function (settings of the model, of the data, of the training) -> application with a model."""
    monkeypatch.chdir(repository)

    def make(model=None, data=None, **train):
        sections = {
            "data": {"first_sequence": "text", "label_name": "answer", "sequence_length": 8, **(data or {})},
            "model": {"pretrain_model_name_or_path": TINY, "from_scratch": True, "target_length": 6, **(model or {})},
            "train": train,
        }
        app = TextGeneration(TextGenerationConfig(model_name="text_generation", **sections))
        app.load_assets(None)
        app.build_model()
        return app

    return make


def encoded(app, tmp_path, *rows):
    path = tmp_path / "table.tsv"
    path.write_text("".join(f"{text}\t{answer}\n" for text, answer in rows), encoding="utf-8")
    data = app.config.data.model_copy(update={"input_schema": "text:str:1,answer:str:1"})
    app.config = app.config.model_copy(update={"data": data})
    return load_rows(app, str(path), True, BadRows("skip"))


def test_pieces_have_an_end_and_are_cut(make_app, tmp_path):
    app = make_app({"prefix": "copy: "})
    table = encoded(app, tmp_path, ("red green", "green red"), ("red " * 20, "old"), ("blue", "red " * 20)).encoded
    tokenizer = app.tokenizer
    ids = tokenizer.encode(["copy: red green", "copy: " + "red " * 20])
    assert table.columns["input_ids"][0].tolist() == [*ids[0], tokenizer.eos_id]
    assert table.columns["input_ids"][1].tolist() == [*ids[1][:7], tokenizer.eos_id]
    assert [len(table.columns["target_ids"][row]) for row in range(3)] == [3, 2, 6]
    assert table.columns["target_ids"][2][-1] == tokenizer.eos_id
    # Metrics see the wanted text whole.
    assert table.columns["wanted"][2].split() == ["red"] * 20


def test_with_end_worked_by_hand():
    rows = Ragged.from_lists([[5, 6, 7], [], [8]])
    assert [row.tolist() for row in map(with_end(rows, 3, 1).__getitem__, range(3))] == [[5, 6, 1], [1], [8, 1]]


def test_empty_answers_and_long_texts_are_bad_rows(make_app, tmp_path):
    app = make_app(data={"no_truncate": True})
    found = encoded(app, tmp_path, ("red", "old"), ("red", " "), ("red " * 20, "old"))
    assert len(found.encoded) == 1
    assert found.reasons == {"empty text": 1, "too long": 1}


def test_tokenizers_on_the_host_and_in_the_graph_agree(repository):
    tokenizer = T5Tokenizer.from_folder(repository / TINY)
    texts = ["red  green", "", "unknown ÜÄ 质量", "copy: left right "]
    host, graph = tokenizer.encode(texts), tokenizer.in_graph().encode(tf.constant(texts))
    assert [host[row].tolist() for row in range(4)] == graph.to_list()
    assert tokenizer.decode([host[0], [], host[3]]) == ["red green", "", "copy: left right"]
    # Ids beyond the pieces, padding and the end have no text.
    assert tokenizer.decode([[0, 95, *host[0], 1, 0]]) == ["red green"]
    tf.random.set_seed(3)  # drops what the operators hold
    assert tokenizer.decode([tokenizer.encode(["red old"])[0]]) == ["red old"]


def test_ids_are_those_of_sentencepiece(repository):
    import sentencepiece

    oracle = sentencepiece.SentencePieceProcessor(model_file=str(repository / TINY / "spiece.model"))
    texts = [line.split("\t")[0] for line in (repository / "examples/text_generation/dev.tsv").read_text().splitlines()]
    found = T5Tokenizer.from_folder(repository / TINY).encode(texts)
    assert [row.tolist() for row in map(found.__getitem__, range(len(texts)))] == [oracle.encode(t) for t in texts]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_of_the_pieces(make_app, tmp_path, smoothing):
    app = make_app(label_smoothing=smoothing)
    table = encoded(app, tmp_path, ("red green", "green red"), ("old", "old old old")).encoded
    batch = table.batch(np.arange(2))
    arrays = {name: tf.constant(value) for name, value in app.evaluation_inputs(batch).items()}
    weight = np.array([1.0, 0.5], np.float32)
    logits = app.forward(arrays)["logits"].numpy().astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    total = count = 0.0
    for row in range(2):
        for place, piece in enumerate(table.columns["target_ids"][row]):
            sharp, flat = -logs[row, place, piece], -logs[row, place].mean()
            total += weight[row] * ((1 - smoothing) * sharp + smoothing * flat)
            count += weight[row]
    given = {**arrays, "example_weight": tf.constant(weight)}
    losses = app.losses(given, {"logits": tf.constant(logits, tf.float32)}, EVALUATION)
    assert float(losses["loss"].sum) == pytest.approx(total, rel=1e-5)
    assert float(losses["loss"].weight) == count


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, (1, False)),
        ({"decoding": "beam", "num_beams": 3}, (3, False)),
        ({"decoding": "sampling", "temperature": 0.5, "top_k": 5}, (1, True)),
    ],
)
def test_each_way_of_writing_gives_texts(make_app, settings, wanted):
    app = make_app(settings)
    assert (app.decoding.beams, app.decoding.is_drawn) == wanted
    ids = tf.constant([[5, 6, 1, 0], [7, 1, 0, 0]])
    found = app.predict_step({"input_ids": ids, "input_mask": tf.cast(ids > 0, tf.int32)})["ids"].numpy()
    assert found.shape == (2, 6)
    alone = app.predict_step({"input_ids": ids[1:, :2], "input_mask": tf.ones([1, 2], tf.int32)})["ids"].numpy()
    if not wanted[1]:
        np.testing.assert_array_equal(alone[0], found[1])


def test_what_does_not_fit_is_refused(make_app, tmp_path, tiny_model):
    with pytest.raises(ModelError, match="family bert, which writes no text"):
        make_app({"pretrain_model_name_or_path": str(tiny_model)})
    for settings, data, part in [
        ({"top_k": 3}, {}, "decoding=sampling"),
        ({}, {"second_sequence": "b"}, "second_sequence"),
        ({"num_beams": 1}, {}, "num_beams"),
    ]:
        with pytest.raises((ConfigError, ValueError), match=part):
            make_app(settings, data)
    for content, part in ((b"no model", "SentencePiece"), (None, "no spiece.model")):
        folder = tmp_path / part.replace(" ", "_")
        make_tiny(folder, "t5")
        (folder / "spiece.model").unlink()
        if content:
            (folder / "spiece.model").write_bytes(content)
        with pytest.raises(ModelError, match=part):
            make_app({"pretrain_model_name_or_path": str(folder)})


def test_weights_of_a_folder_are_taken(make_app, tmp_path):
    make_tiny(tmp_path / "tiny", "t5", seed=5)
    app = make_app({"pretrain_model_name_or_path": str(tmp_path / "tiny"), "from_scratch": False, "dropout_rate": 0.3})
    backbone = app.model.backbone
    assert backbone.config.dropout_rate == 0.3 and backbone.load_report.matched and not backbone.load_report.missing


@pytest.mark.slow
def test_search_may_be_changed_at_prediction(tmp_path, repository, monkeypatch, capfd):
    monkeypatch.chdir(repository)
    config = "--config=appzoo/text_generation/configs/smoke.yaml"
    words = [config, f"--checkpointDir={tmp_path / 'run'}", "--numEpochs=2", "--set=train.eval_every_steps=100"]
    assert main(["train", *words]) == 0
    found = []
    for number, further in enumerate(([], ["--set=model.decoding=beam", "--set=model.target_length=3"])):
        out = tmp_path / f"{number}.tsv"
        table = ["--inputTable=examples/text_generation/dev.tsv", f"--outputTable={out}"]
        assert main(["predict", f"--checkpointPath={tmp_path / 'run'}", *table, *further]) == 0
        found.append(out.read_text().splitlines())
    assert len(found[0]) == len(found[1]) == 200 and found[0] != found[1]
    assert max(len(line.split()) for line in found[1]) <= 3


def test_a_model_of_the_hub_is_downloaded_by_a_job_that_may(tmp_path, monkeypatch):
    """By its name in the list, which stands for a repository."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    make_tiny(tmp_path / "tiny", family="t5")
    sections = {"data": {"first_sequence": "text", "label_name": "answer"}, "train": {}}

    def started(offline):
        runtime = {"offline": offline, "model_zoo_base_path": str(tmp_path / "zoo")}
        model = {"pretrain_model_name_or_path": "flan-t5-small"}
        app = TextGeneration(
            TextGenerationConfig(model_name="text_generation", model=model, runtime=runtime, **sections)
        )
        app.load_assets(None)
        app.build_model()
        return app.model.backbone.export_weights()

    with hub_stand_in() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        hub.add("google/flan-t5-small", {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir()})
        with pytest.raises(ModelError, match="known but not on this machine.*zoo fetch flan-t5-small --offline=false"):
            started(True)
        assert not hub.asked
        online, asked = started(False), len(hub.asked)
        wanted = Backbone.from_preset(tmp_path / "tiny").export_weights()
        for values in (online, started(True)):
            assert all((values[name] == value).all() for name, value in wanted.items())
        assert len(hub.asked) == asked
