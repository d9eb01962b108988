"""What all pre-trained bodies share: found by name, loaded strictly, with the tokenizer that the preset names."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from tiny_bert import SIZES
from tiny_cnn import TINY

from easytransfer import keras
from easytransfer.errors import ConfigError, ModelError
from easytransfer.presets import resolve
from easytransfer.presets.folder import write_json
from easytransfer.presets.safetensors_file import WEIGHTS, read_safetensors_folder, write_safetensors
from easytransfer.text.wordpiece import WordPiece
from modelzoo import backbone as module
from modelzoo import loading
from modelzoo.backbone import Backbone
from modelzoo.bert.backbone import BertBackbone
from modelzoo.bert.config import BertConfig
from modelzoo.cnn.backbone import CnnBackbone
from modelzoo.loading import load_backbone, load_tokenizer

CONFIG = BertConfig(**SIZES, initializer_range=0.2)


class Line(Backbone):
    """The smallest family: a dense layer, its width the only setting."""

    def __init__(self, width: int, seed: int = 0):
        super().__init__()
        self.config, self.seed = SimpleNamespace(width=width), seed
        self.dense = keras.layers.Dense(width, kernel_initializer=keras.initializers.RandomNormal(seed=seed))
        self.dense.build([None, 3])

    def call(self, inputs, training=False):
        return {"features": self.dense(inputs)}

    @classmethod
    def from_folder(cls, folder, *, seed, fresh, width=None):
        return cls(width or json.loads((folder / "config.json").read_text())["width"], seed)

    def read_weights(self, preset):
        values = read_safetensors_folder(preset.folder)
        return values, self.matched(values, str(preset.folder))

    def write_files(self, folder, tokenizer):
        write_json(folder / "config.json", {"model_type": "line", "width": self.config.width})
        write_safetensors(folder / WEIGHTS, self.export_weights())

    def facts(self):
        return {"type": "line"}

    def weight_specs(self):
        return {name: tf.TensorSpec(v.shape, v.dtype) for name, v in self._named().items()}

    def export_weights(self):
        return {name: v.numpy() for name, v in self._named().items()}

    def assign_weights(self, values):
        for name, value in values.items():
            self._named()[name].assign(value)

    def _named(self):
        return {"kernel": self.dense.kernel, "bias": self.dense.bias}


@pytest.fixture
def line(tmp_path, monkeypatch):
    """A folder of the family `line`, which is made known as other families are."""
    monkeypatch.setattr(module, "family_of", lambda preset: "line")
    monkeypatch.setattr(module, "family_module", lambda family, part: SimpleNamespace(BACKBONE_CLASS=Line))
    saved = Line(4, seed=1)
    saved.dense.bias.assign([1.0, 2.0, 3.0, 4.0])
    saved.save_to_preset(tmp_path / "line", facts={"licence": "MIT"})
    return saved, tmp_path / "line"


def test_a_family_of_one_dense_layer_is_saved_and_loaded(line):
    saved, folder = line
    loaded = Backbone.from_preset(folder)
    assert type(loaded) is Line and loaded.config.width == 4
    for name, value in saved.export_weights().items():
        np.testing.assert_array_equal(loaded.export_weights()[name], value)
    assert [name for name, *_ in loaded.load_report.matched] == ["kernel", "bias"]
    manifest = json.loads((folder / "zoo.json").read_text())
    assert manifest["name"] == "line" and manifest["type"] == "line" and manifest["licence"] == "MIT"
    assert set(manifest["files"]) == {"config.json", WEIGHTS}
    fresh = Backbone.from_preset(folder, weights=False, seed=7)
    assert fresh.load_report is None and not np.array_equal(fresh.dense.kernel, saved.dense.kernel)
    with pytest.raises(ModelError, match="already exists"):
        saved.save_to_preset(folder)
    saved.save_to_preset(folder, overwrite=True)


def test_weights_that_do_not_fit_are_errors_unless_allowed(line, capsys):
    saved, folder = line
    with pytest.raises(ModelError, match="0 weights missing, 2 with another shape"):
        Backbone.from_preset(folder, width=5)
    write_safetensors(folder / WEIGHTS, {"kernel": saved.dense.kernel.numpy(), "extra": np.ones(2, np.float32)})
    with pytest.raises(ModelError, match="(?s)1 weights missing.*bias"):
        Backbone.from_preset(folder)
    loaded = Backbone.from_preset(folder, allow_missing="^bias$")
    assert loaded.load_report.allowed == ["bias"] and loaded.load_report.unexpected == ["extra"]
    told = capsys.readouterr().err
    assert "random start values for: bias" in told and "1 weights are not used, the first is extra" in told
    np.testing.assert_array_equal(loaded.dense.kernel, saved.dense.kernel)
    assert not loaded.dense.bias.numpy().any()
    kernel = saved.dense.kernel.numpy()
    kernel[1, 2] = np.nan
    with pytest.raises(ModelError, match="kernel"):
        saved.import_weights({"kernel": kernel, "bias": np.ones(4, np.float32)}, "an array")
    with pytest.raises(ModelError, match="int8"):
        saved.import_weights({"kernel": np.ones([3, 4], np.int8), "bias": np.ones(4, np.float32)}, "an array")


def test_what_a_family_lacks_is_refused_in_one_line(line):
    saved, folder = line
    for call, message in (
        (lambda: saved.feature_maps(tf.zeros([1, 8, 8, 3])), "Line gives no feature maps"),
        (lambda: saved.input_embeddings, "Line has no word embeddings"),
        (lambda: Backbone.from_preset(folder, tensor=object()), "networks of the family line cannot be split"),
        (lambda: Backbone.from_preset(folder, stage=object()), "networks of the family line cannot be split"),
    ):
        with pytest.raises((ModelError, ConfigError), match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert Backbone.from_preset(folder, tensor=None, stage=None).config.width == 4


def test_the_family_decides_the_class(tmp_path):
    BertBackbone(CONFIG).save_to_preset(tmp_path / "text")
    CnnBackbone(TINY["resnet"], 5).save_to_preset(tmp_path / "image")
    assert type(Backbone.from_preset(tmp_path / "text")) is type(load_backbone(tmp_path / "text")) is BertBackbone
    assert type(Backbone.from_preset(tmp_path / "image")) is type(load_backbone(tmp_path / "image")) is CnnBackbone
    with pytest.raises(ModelError, match="holds a model of the family cnn, which is no BertBackbone"):
        BertBackbone.from_preset(tmp_path / "image")
    with pytest.raises(ModelError, match="holds a model of the family bert, which is no CnnBackbone"):
        CnnBackbone.from_preset(tmp_path / "text")


def test_the_preset_names_the_tokenizer(tiny_model, tmp_path, monkeypatch):
    assert isinstance(load_tokenizer(tiny_model), WordPiece)
    manifest = tiny_model / "zoo.json"
    facts = json.loads(manifest.read_text())
    assert facts["tokenizer"] == "WordPiece"
    CnnBackbone(TINY["resnet"], 5).save_to_preset(tmp_path / "image")
    with pytest.raises(ModelError, match="models of the family cnn have no tokenizer"):
        load_tokenizer(tmp_path / "image")
    load_backbone(tiny_model).save_to_preset(tmp_path / "copy", load_tokenizer(tiny_model))
    for kind in ("Unigram", ["WordPiece"]):
        write_json(tmp_path / "copy" / "zoo.json", {**facts, "tokenizer": kind})
        with pytest.raises(
            ModelError,
            match="names an unknown tokenizer.*accepted: ByteLevelBpe, SentencePiece, WordPiece, "
            "XlmRobertaSentencePiece, XlnetSentencePiece",
        ):
            load_tokenizer(tmp_path / "copy")
    opened = []
    other = SimpleNamespace(from_folder=lambda folder, lower_case: opened.append((folder, lower_case)) or "a tokenizer")
    monkeypatch.setitem(loading.TOKENIZERS, "Unigram", lambda: other)
    write_json(tmp_path / "copy" / "zoo.json", {**facts, "tokenizer": "Unigram"})
    assert load_tokenizer(tmp_path / "copy", lower_case=False) == "a tokenizer"
    assert opened == [(tmp_path / "copy", False)]
    # A folder without a manifest, such as a run: the family says it.
    (tmp_path / "copy" / "zoo.json").unlink()
    assert isinstance(load_tokenizer(tmp_path / "copy"), WordPiece)


def test_models_of_the_hugging_face_hub_are_found_where_they_were_downloaded(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    with pytest.raises(
        ModelError, match="unknown model someone/tiny.*`easy_transfer_app zoo fetch hf://someone/tiny --offline=false`"
    ):
        Backbone.from_preset("someone/tiny")
    store, commit = tmp_path / "hub" / "models--someone--tiny", "0123456789" * 4
    (store / "refs").mkdir(parents=True)
    (store / "refs" / "main").write_text(commit)
    (store / "blobs").mkdir()
    (store / "snapshots" / commit).mkdir(parents=True)
    for file in ("config.json", "vocab.txt", "model.safetensors", "tokenizer_config.json"):
        # Snapshots are links into the store beside them.
        (store / "blobs" / file).write_bytes((tiny_model / file).read_bytes())
        (store / "snapshots" / commit / file).symlink_to(f"../../blobs/{file}")
    assert resolve("someone/tiny").name == "someone/tiny"
    found, expected = Backbone.from_preset("someone/tiny"), load_backbone(tiny_model)
    np.testing.assert_array_equal(found.example_outputs(), expected.example_outputs())
    assert load_tokenizer("someone/tiny").vocab == load_tokenizer(tiny_model).vocab
    (store / "refs" / "main").write_text("../../../../etc")
    with pytest.raises(ModelError, match="unknown model someone/tiny"):
        resolve("someone/tiny")


def test_embeddings_take_the_place_of_ids(batch):
    encoder = BertBackbone(CONFIG, seed=1)
    expected = encoder(batch)
    embeddings = encoder.embedded(batch)
    weights = encoder.export_weights()
    table = [weights[f"bert/embeddings/{name}_embeddings"] for name in ("word", "position", "token_type")]
    by_hand = table[0][batch["input_ids"]] + table[1][:11] + table[2][batch["segment_ids"]]
    np.testing.assert_allclose(embeddings, by_hand, atol=1e-6)
    found = encoder({"embeddings": embeddings, "input_mask": batch["input_mask"]})
    for name in ("sequence_output", "pooled_output"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6)
    with pytest.raises(ModelError, match="input_ids and embeddings both"):
        encoder({**batch, "embeddings": embeddings})


def test_a_mask_of_pairs_says_which_tokens_see_which(batch):
    encoder = BertBackbone(CONFIG, seed=1)
    everyone = np.repeat(batch["input_mask"][:, None], 11, axis=1)
    np.testing.assert_array_equal(
        encoder({**batch, "input_mask": everyone})["sequence_output"], encoder(batch)["sequence_output"]
    )
    # Tokens 0 to 4 see only each other, so they come out as they do alone.
    apart = np.ones([3, 11, 11], np.int32)
    apart[:, :5, 5:] = 0
    short = {name: values[:, :5] for name, values in batch.items()}
    alone = encoder({**short, "input_mask": np.ones([3, 5], np.int32)})
    together = encoder({**batch, "input_mask": apart})
    np.testing.assert_allclose(together["sequence_output"][:, :5], alone["sequence_output"], atol=1e-5)
    pooled = encoder({**batch, "input_mask": apart}, pooled_only=True)["pooled_output"]
    np.testing.assert_allclose(pooled, alone["pooled_output"], atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="input_mask must be 0 or 1"):
        encoder({**batch, "input_mask": 2 * apart})
    with pytest.raises(ModelError, match="input_mask has another shape"):
        encoder({**batch, "input_mask": np.ones([3], np.int32)})


def test_only_one_module_knows_how_model_garden_is_written(repository):
    private = ("_attention_layer", "_embedding_layer", "_transformer_layers", "_output_range", "_norm_epsilon")
    users = {
        str(path.relative_to(repository))
        for package in ("modelzoo", "appzoo", "easytransfer")
        for path in (repository / package).rglob("*.py")
        if re.search(rf"\b({'|'.join(private)})", path.read_text(encoding="utf-8"))
    }
    assert users == {"modelzoo/encoder_network.py"}
