"""Matching of texts and images: ranks and recall against hand-worked cases, labels, network and start values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from appzoo import jobs
from appzoo.cli.reader import JobReader
from appzoo.encoder import token_batch
from appzoo.multimodal_match.app import MultimodalMatch
from appzoo.multimodal_match.config import MultimodalMatchConfig
from appzoo.multimodal_match.gallery import measured
from appzoo.multimodal_match.metrics import MatchEvaluator, gallery_recall, list_ranks
from appzoo.multimodal_match.pages import write_retrieval
from appzoo.multimodal_match.target import list_id
from easytransfer.app.inputs.regions import NpzRegions, RecordRegions, TableRegions
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.encoded import EncodedTable, HostColumn, Ragged
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import open_table
from easytransfer.errors import ConfigError
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.cnn.names import named
from modelzoo.commands import make_tiny
from modelzoo.imagebert.heads import ImageBertHeads
from modelzoo.loading import load_backbone, load_tokenizer

TINY_BERT = "examples/multimodal_match/tiny-bert"


# Ranks -----------------------------------------------------------------------------------------------------------


def test_ranks_of_lists_by_hand():
    rows = [
        # list, row, match, score
        (7, 5, True, 0.5),
        (7, 1, False, 0.9),
        (7, 2, False, 0.1),  # second of three
        (3, 4, True, 0.2),
        (3, 3, False, 0.2),  # the other one stands first in the table
        (9, 6, True, 0.2),
        (9, 8, False, 0.2),  # and here behind
        (4, 9, False, 1.0),  # no match
        (5, 10, True, 1.0),  # no other row
        (6, 11, True, 1.0),
        (6, 12, True, 1.0),  # two matches
    ]
    ranks, left_out, tied = list_ranks(*(np.array(each) for each in zip(*rows, strict=True)))
    # In the order of the lists: 3, 7, 9.
    assert ranks.tolist() == [2, 2, 1] and left_out == 3 and tied == 2
    none = np.zeros(0, np.int64)
    assert list_ranks(none, none, none.astype(bool), none.astype(float))[0].tolist() == []


def test_ranks_like_brute_force():
    random = np.random.default_rng(1)
    lists, rows = random.integers(0, 30, 400), random.permutation(400)
    score, match = random.integers(0, 9, 400) / 8, random.random(400) < 0.1
    wanted = []
    for name in range(30):
        members = np.flatnonzero(lists == name)
        own = members[match[members]]
        if len(own) == 1 and len(members) > 1:
            ahead = [k for k in members if (-score[k], rows[k]) < (-score[own[0]], rows[own[0]])]
            wanted.append(len(ahead) + 1)
    assert list_ranks(lists, rows, match, score)[0].tolist() == wanted and len(wanted) > 5


def listed(rows: int = 40) -> tuple[dict, dict]:
    random = np.random.default_rng(2)
    label = np.tile([1, 0, 0, 0], rows // 4).astype(np.int32)
    batch = {"label_id": label, "list_id": np.repeat(np.arange(rows // 4), 4), "row_number": np.arange(rows)}
    return batch, {"logits": random.normal(size=[rows, 2]).astype(np.float32)}


def test_an_evaluation_in_parts_and_another_order_is_that_of_the_whole():
    batch, outputs = listed()
    whole, order = MatchEvaluator(["no", "yes"], listed=True), np.random.default_rng(3).permutation(40)
    whole.update(batch, outputs)
    first, second = MatchEvaluator(["no", "yes"], listed=True), MatchEvaluator(["no", "yes"], listed=True)
    for part, rows in ((first, order[:15]), (second, order[15:])):
        part.update({name: value[rows] for name, value in batch.items()}, {"logits": outputs["logits"][rows]})
    first.merge(second.state())
    assert first.result() == whole.result()
    score = (outputs["logits"][:, 1] - outputs["logits"][:, 0]).reshape(10, 4)
    ranks = 1 + (score > score[:, :1]).sum(axis=1)
    for k in (1, 5, 10, 100):
        assert whole.result()[f"rank_at_{k}"] == np.mean(ranks <= k)
    assert whole.result()["auc"] > 0 and whole.report()["candidate_lists"] == {
        "lists": 10, "lists_left_out": 0, "tied_lists": 0,
    }  # fmt: skip
    assert not any("rank" in name for name in MatchEvaluator(["no", "yes"], listed=False).names)


def test_recall_among_all_by_hand():
    # Text 0 has the images 0 and 1, text 1 has image 2, text 2 none, text 3 has image 2.
    relevant = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 1]], bool)
    score = np.float32([[0.1, 0.5, 0.9], [0.7, 0.2, 0.7], [0.9, 0.9, 0.9], [0.1, 0.2, 0.3]])
    found = gallery_recall(score, relevant, at=(1, 2, 3))
    # Best place of an own image: text 0: second; text 1: second, since image 0 stands before it; text 3: first.
    assert [found[f"image_recall_at_{k}"] for k in (1, 2, 3)] == [pytest.approx(1 / 3), 1, 1]
    # Texts by score: image 0: 2, 1, 0 (then 3, equal, behind); image 1: 2, 0; image 2: 0, 2, then 1.
    assert [found[f"text_recall_at_{k}"] for k in (1, 2, 3)] == [0, pytest.approx(1 / 3), 1]
    assert np.isnan(gallery_recall(score, np.zeros_like(relevant))["image_recall_at_1"])


def test_texts_and_images_of_a_table_are_scored_once_each():
    """Texts 5, 6, 5 and images a, a, b of matching rows; the network scores by the first piece and a feature."""
    ids = Ragged.from_lists([[5], [6, 1], [5], [9]])
    columns = {
        "input_ids": ids,
        "segment_ids": Ragged.from_lists([[0], [0, 0], [0], [0]]),
        "features": np.float32([5, 5, 6, 0]).reshape(4, 1, 1),
        "image_id": HostColumn.of(["a", "a", "b", "c"]),
        "label_id": np.int32([1, 1, 1, 0]),
    }
    table = EncodedTable(columns, {"input_mask": "input_ids"})
    specs = {name: tf.TensorSpec([None, None], tf.int32) for name in ("input_ids", "segment_ids", "input_mask")}
    specs["features"] = tf.TensorSpec([None, 1, 1], tf.float32)
    seen = []

    def network(batch):
        seen.append(batch["input_mask"].shape)
        apart = -tf.abs(tf.cast(batch["input_ids"][:, 0], tf.float32) - batch["features"][:, 0, 0])
        return {"logits": tf.stack([tf.zeros_like(apart), apart], axis=1)}

    found = measured(network, table, specs, 4, batch_size=3)["gallery"]
    assert len(seen) == 1 and found["texts"] == found["images"] == 2
    # Text 5 is of both images and nearest to a; text 6 is of image a, but nearest to b, as b is to it.
    assert found["image_recall_at_1"] == 0.5 and found["text_recall_at_1"] == 0.5 and found["image_recall_at_5"] == 1
    assert measured(network, table, specs, 3, batch_size=3) == measured(network, table, specs, 0, batch_size=3) == {}


def test_a_page_of_texts_with_their_images(tmp_path, repository):
    tokenizer = load_tokenizer(repository / TINY_BERT)
    star, moon = (
        [tokenizer.cls_id, *tokenizer.pieces([word])[0].tolist(), tokenizer.sep_id] for word in ("star", "moon")
    )
    columns = {
        "input_ids": Ragged.from_lists([star, star, moon, star, moon]),
        "image_id": HostColumn.of(["a", "<b>", "c", "d", "e"]),
        "label_id": np.int32([0, 1, 1, 0, 1]),
    }
    logits = np.float32([[0, 0], [0, 1], [0, 0], [0, 2], [0, 0]])
    assert write_retrieval(tmp_path, EncodedTable(columns), logits, tokenizer) == ["retrieval.html"]
    page = (tmp_path / "retrieval.html").read_text()
    # 1 / (1 + e^-2) and 1 / (1 + e^-1).
    shown = '<td>star</td><td>2 of 3</td><td>d 0.88, <mark class="hue-2">&lt;b&gt; 0.73</mark>, a 0.50</td>'
    assert shown in page and "<td>moon</td><td>1 of 2</td>" in page
    # Two lists of one text each are two, and a list of one row is none.
    columns["list_id"] = np.array([1, 2, 3, 1, 4])
    write_retrieval(tmp_path, EncodedTable(columns), logits, tokenizer)
    page = (tmp_path / "retrieval.html").read_text()
    assert "<td>none</td><td>d 0.88, a 0.50</td>" in page and "moon" not in page
    assert write_retrieval(tmp_path, EncodedTable(columns).take([0, 1, 2]), logits, tokenizer) == []


# The application ---------------------------------------------------------------------------------------------------


def config_of(model: dict, **data) -> MultimodalMatchConfig:
    settings = {"max_regions": 3, "feature_size": 6, "dropout_rate": 0.0, **model}
    data = {"sequence_length": 8, "label_enumerate_values": "no,yes", **data}
    return MultimodalMatchConfig(model_name="multimodal_match", data=data, model=settings)


@pytest.fixture(scope="module")
def imagebert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo") / "tiny-imagebert"
    make_tiny(folder, family="imagebert")
    return str(folder)


def prepared(config, folder=None) -> MultimodalMatch:
    app = MultimodalMatch(config)
    app.load_assets(folder)
    return app


@pytest.mark.parametrize(
    ("data", "model", "kind", "boxes", "positions"),
    [
        ({}, {}, TableRegions, 0, True),
        ({"box_column": "boxes"}, {}, TableRegions, 7, False),
        ({}, {"region_source": "npz"}, NpzRegions, 7, False),
        ({"region_file": "a.tsv"}, {"region_source": "records", "read_boxes": False}, RecordRegions, 0, True),
        ({"box_column": "boxes"}, {"region_positions": True}, TableRegions, 7, True),
    ],
)
def test_a_bert_becomes_a_network_for_the_regions_there_are(
    data, model, kind, boxes, positions, repository, monkeypatch
):
    monkeypatch.chdir(repository)
    app = prepared(config_of({"pretrain_model_name_or_path": TINY_BERT, **model}, **data))
    found = app.encoder.config
    assert type(app.inputs[1]) is kind and app.inputs[1].has_boxes == bool(boxes)
    assert (found.box_size, found.region_positions, found.feature_size, found.max_regions) == (boxes, positions, 6, 3)


def test_rows_become_words_regions_labels_and_lists(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(repository)
    data = {"box_column": "boxes", "list_column": "list", "label_enumerate_values": "0,1"}
    app = prepared(config_of({"pretrain_model_name_or_path": TINY_BERT}, **data))
    schema = parse_schema("text:str:1,image_feature:float:*,boxes:float:*,label:int:1,list:str:1")
    bad = BadRows("skip")
    table = open_table("examples/multimodal_match/dev.tsv", schema=schema, bad_rows=bad, texts=app.text_columns())
    (chunk,) = table.chunks(size=200)
    encoded = app.encode(chunk, with_labels=True)
    batch = encoded.batch(np.arange(20))
    assert len(encoded) == 120 and batch["features"].shape == (20, 3, 6) and batch["region_mask"].all()
    assert batch["label_id"].sum() == 2 and batch["row_number"].tolist() == list(range(20))
    assert batch["list_id"].tolist() == [list_id("q0")] * 10 + [list_id("q1")] * 10
    assert app.label_columns == ("label_id", "list_id", "row_number")
    assert "image_id" not in app.model_inputs(batch)
    pieces = app.encoder.tokenizer.vocab
    assert [pieces[k] for k in batch["input_ids"][0][:6]][:4] == ["[CLS]", "there", "is", "a"]


def test_the_head_of_a_pre_training_goes_on(imagebert):
    app = prepared(config_of({"pretrain_model_name_or_path": imagebert, "feature_size": 24}))
    assert app.encoder.count == 3 and app.encoder.config.max_regions == 16
    app.build_model()
    heads = ImageBertHeads.from_preset(imagebert, app.encoder.config, ["matching"])
    stored = heads.export_weights()
    for name, value in app.model.head.export_weights().items():
        np.testing.assert_array_equal(value, stored[name])
    batch = {**token_batch(), "features": tf.ones([1, 3, 24]), "region_mask": tf.ones([1, 3], tf.int32)}
    batch |= {"boxes": tf.tile(tf.constant([[[0.0, 0.0, 0.5, 1.0]]]), [1, 3, 1])}
    pooled = load_backbone(imagebert)(batch)["pooled_output"].numpy()
    kernel, bias = (next(v for n, v in stored.items() if n.endswith(end)) for end in ("output_weights", "output_bias"))
    np.testing.assert_allclose(app.model(batch)["logits"].numpy(), pooled @ kernel.T + bias, atol=1e-5)
    answer = app.target.answer(app.model(batch))
    np.testing.assert_allclose(answer["match"], answer["probabilities"][:, 1])
    assert len(app.layer_groups()) == app.encoder.config.num_hidden_layers + 2


def test_a_run_is_built_again_from_its_folder(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(repository)
    config = config_of({"pretrain_model_name_or_path": TINY_BERT, "from_scratch": True}, box_column="boxes")
    app = prepared(config)
    app.save_assets(tmp_path)
    again = prepared(config_of({"pretrain_model_name_or_path": "gone"}, box_column="boxes"), tmp_path)
    assert again.encoder.config == app.encoder.config and again.labels == ["no", "yes"]
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "imagebert"
    shapes = [
        [tuple(v.shape) for v in each.build_model(folder).weights] for each, folder in ((app, None), (again, tmp_path))
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"label_enumerate_values": "cat,dog,bird"}, "two labels"),
        ({"label_enumerate_values": "1,0"}, "match first"),
        ({"label_enumerate_values": None}, "two labels"),
        ({"input_schema": "input_ids:int:8,image_feature:float:18,label:int:1"}, "token ids"),
    ],
)
def test_labels_and_tables_that_do_not_fit_are_refused(data, told, repository, monkeypatch):
    monkeypatch.chdir(repository)
    with pytest.raises(ConfigError, match=told):
        prepared(config_of({"pretrain_model_name_or_path": TINY_BERT}, **data))


@pytest.mark.parametrize(
    ("data", "model", "told"),
    [
        ({"second_sequence": "b"}, {}, "second_sequence does not apply"),
        ({"box_column": "b"}, {"region_source": "npz"}, "box_column is not read"),
        ({}, {"region_source": "boxes", "region_network": "n"}, "needs data.box_column"),
        ({"region_file": "a.tsv"}, {}, "set it to records"),
        ({}, {"region_source": "grid"}, "model.region_network computes"),
        ({}, {"region_network": "n"}, "model.region_network computes"),
        ({}, {"region_source": "grid", "region_network": "n", "max_regions": 3}, "makes 64 regions"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(data, model, told):
    with pytest.raises(ValueError, match=told):
        config_of({"max_regions": None, **model}, **data)


def test_regions_and_positions(imagebert):
    """The tiny ImageBERT has 16 positions, and reads no boxes."""
    sizes = {"pretrain_model_name_or_path": imagebert, "feature_size": 24}
    app = prepared(config_of({**sizes, "max_regions": None}))
    assert app.encoder.count == app.encoder.config.max_regions == 16
    with pytest.raises(ConfigError, match="max_regions=17.*up to 16"):
        prepared(config_of({**sizes, "max_regions": 17}))
    app = prepared(config_of({**sizes, "max_regions": 17, "region_positions": False}))
    assert app.inputs[1].specs()["features"].shape.as_list() == [None, 17, 24]
    with pytest.raises(ConfigError, match="reads boxes, and the table has none"):
        prepared(config_of({**sizes, "read_boxes": True}))


def job(mode: str, *words: str):
    return JobReader(mode, list(words), []).read().config


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """Twelve pictures of one colour each, a table of texts that name a colour or do not, and an image network."""
    folder, random = tmp_path_factory.mktemp("shop"), np.random.default_rng(0)
    colours = {"circle": (200, 30, 30), "square": (30, 200, 30), "star": (30, 30, 200)}
    lines = []
    for number in range(12):
        shape = list(colours)[number % 3]
        pixels = np.clip(np.array(colours[shape]) + random.normal(0, 20, [40, 30 + number, 3]), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        for text in colours:
            lines.append(f"there is a {text}\t{number}.png\t{int(text == shape)}")
    (folder / "rows.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    body = CnnBackbone(named("resnet8_cifar").scaled(0.25), seed=3)
    body.save_to_preset(folder / "network", facts={"input": {"channel_mean": [0.5] * 3, "channel_std": [0.25] * 3}})
    return folder


@pytest.mark.slow
def test_pictures_are_read_in_the_graph_of_an_export(shop, repository, monkeypatch, tmp_path):
    """From a table of files to an export that takes texts and encoded pictures; both loaders check it."""
    monkeypatch.chdir(repository)
    words = ["--modelName=multimodal_match", f"--inputTable={shop}/rows.tsv,{shop}/rows.tsv", "--batchSize=12"]
    words += ["--inputSchema=text:str:1,image:image:1,label:int:1", "--sequenceLength=8", "--numEpochs=2"]
    settings = {
        "data.image_column": "image",
        "data.region_cache": tmp_path / "kept",
        "model.region_source": "grid",
        "model.region_network": shop / "network",
        "model.region_grid": 2,
        "model.region_image_size": 32,
        "model.pretrain_model_name_or_path": TINY_BERT,
        "model.from_scratch": "true",
        "checkpoint_dir": tmp_path / "run",
    }
    result = jobs.train(job("train", *words, *(f"--set={name}={value}" for name, value in settings.items())))
    assert result["data"]["train"]["accepted"] == 36 and len(list((tmp_path / "kept").rglob("*.npy"))) == 12
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["gallery"]["texts"] == 3 and report["gallery"]["images"] == 12
    found = {}
    for name, source in (("run", tmp_path / "run"), ("export", result["export"])):
        words = [
            f"--checkpointPath={source}",
            f"--inputTable={shop}/rows.tsv",
            f"--outputTable={tmp_path}/{name}.jsonl",
        ]
        assert jobs.predict(job("predict", *words))["written"] == 36
        lines = (tmp_path / f"{name}.jsonl").read_text().splitlines()
        found[name] = np.array([json.loads(line)["logits"] for line in lines])
    np.testing.assert_allclose(found["run"], found["export"], atol=2e-5)
    assert not Path("kept").exists()  # an export knows the name of that folder alone
    export = tf.saved_model.load(str(result["export"]))
    pictures = [(shop / f"{number}.png").read_bytes() for number in (0, 5)]
    raw = {"text": tf.constant(["there is a circle", "there is a star"]), "image_bytes": tf.constant(pictures)}
    answer = export.signatures["serving_default"](**raw)
    # Rows 0 and 17: picture 0 with the first text, picture 5 with the third.
    wanted = np.exp(found["run"][[0, 17]])
    np.testing.assert_allclose(answer["match"], wanted[:, 1] / wanted.sum(axis=1), atol=2e-5)
    # The network of the zoo is needed no more.
    assert {"region_network.json", "region_network.safetensors"} <= {
        p.name for p in (Path(result["export"]) / "assets").iterdir()
    }


@pytest.mark.parametrize("family", ["lxmert", "videobert"])
def test_other_networks_on_regions(family, tmp_path):
    folder = tmp_path / family
    make_tiny(folder, family=family)
    boxes = {"box_column": "boxes"} if family == "lxmert" else {}
    app = prepared(
        config_of({"pretrain_model_name_or_path": str(folder), "feature_size": None, "max_regions": 2}, **boxes)
    )
    app.build_model()
    samples = {name: tf.constant(value) for name, value in app.inputs[1].samples().items()}
    batch = {**{name: tf.repeat(value, 5, axis=0) for name, value in token_batch().items()}}
    batch |= app.inputs[1].from_request(samples)
    assert app.model(batch)["logits"].shape == [5, 2] and app.inputs[1].count == 2
