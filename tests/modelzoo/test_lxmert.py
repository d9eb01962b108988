"""LXMERT: outputs equal those of transformers to 1e-4 in float32; its files in both directions; labels; refusals."""

import json

import numpy as np
import pytest
import vision_language_oracle as oracle
from safetensors.numpy import load_file, save_file
from tiny_bert import write_vocabulary

from easytransfer.errors import ConfigError, ModelError
from modelzoo import commands
from modelzoo.backbone import Backbone
from modelzoo.importing import import_model
from modelzoo.loading import load_config
from modelzoo.lxmert.backbone import LxmertBackbone
from modelzoo.lxmert.config import LxmertConfig
from modelzoo.lxmert.convert import LXMERT, parameters_in
from modelzoo.lxmert.formats import FILES
from modelzoo.lxmert.heads import LxmertHeads
from modelzoo.vision_language.backbone import VisionLanguageBackbone

TOLERANCE = 1e-4
SIZES = {
    "vocab_size": 63,
    "hidden_size": 16,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "l_layers": 3,
    "r_layers": 1,
    "x_layers": 2,
    "visual_feat_dim": 7,
    "num_object_labels": 6,
    "num_attr_labels": 4,
    "num_qa_labels": 5,
}


def hf_folder(folder, architecture="LxmertModel", **settings):
    """Saves a transformers model with noisy LayerNorms and biases, so that no wrong mapping can hide."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    torch.manual_seed(7)
    config = transformers.LxmertConfig(**{**SIZES, "initializer_range": 0.2, **settings})
    model = getattr(transformers, architecture)(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.2 * torch.randn_like(value))
    model.save_pretrained(folder, safe_serialization=True)
    write_vocabulary(folder)
    return model


def torch_batch(batch):
    torch = pytest.importorskip("torch")
    names = {"input_ids": "input_ids", "input_mask": "attention_mask", "segment_ids": "token_type_ids",
             "features": "visual_feats", "boxes": "visual_pos", "region_mask": "visual_attention_mask"}  # fmt: skip
    arrays = {theirs: torch.tensor(batch[ours]) for ours, theirs in names.items()}
    return {name: value.long() if value.dtype == torch.int32 else value for name, value in arrays.items()}


def batch_of(config, **options):
    return oracle.random_batch(config, **{"labels": False, **options})


def test_both_streams_equal_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    theirs = hf_folder(tmp_path)
    backbone = Backbone.from_preset(tmp_path)
    assert isinstance(backbone, LxmertBackbone) and not backbone.load_report.missing + backbone.load_report.unexpected
    batch = batch_of(backbone.config)
    with torch.no_grad():
        expected = theirs(**torch_batch(batch), output_attentions=True)
    found = backbone(batch, with_attentions=True)
    np.testing.assert_allclose(found["sequence_output"], expected.language_output.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(found["region_output"], expected.vision_output.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(found["pooled_output"], expected.pooled_output.numpy(), atol=TOLERANCE)
    np.testing.assert_array_equal(backbone(batch, pooled_only=True)["pooled_output"], found["pooled_output"])
    # Of the layers of both streams transformers gives what words look at.
    assert len(found["attentions"]) == len(expected.cross_encoder_attentions) == 2
    for ours, other in zip(found["attentions"], expected.cross_encoder_attentions, strict=True):
        np.testing.assert_allclose(ours[:, :, :6, 6:], other.numpy(), atol=TOLERANCE)
        np.testing.assert_allclose(np.sum(ours, axis=-1), 1, atol=1e-5)
        assert not np.any(ours[:, :, :6, :6]) and not np.any(ours[:, :, 6:, 6:])
        assert not np.any(ours[1, :, :6, 9:]) and not np.any(ours[1, :, 6:, 4:6])
    # What a masked region or word has is not read.
    other = {**batch, "features": batch["features"].copy(), "input_ids": batch["input_ids"].copy()}
    other["features"][1, 3:], other["input_ids"][1, 4:] = 9.0, 7
    again, real = backbone(other), batch["region_mask"] == 1
    np.testing.assert_array_equal(again["pooled_output"], found["pooled_output"])
    np.testing.assert_array_equal(again["region_output"].numpy()[real], found["region_output"].numpy()[real])


def test_heads_equal_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    theirs = hf_folder(tmp_path / "theirs", "LxmertForPreTraining", hidden_act="gelu_new")
    backbone, parts = (
        Backbone.from_preset(tmp_path / "theirs"),
        ["mlm", "matching", "features", "objects", "attributes"],
    )
    heads = LxmertHeads.from_preset(tmp_path / "theirs", backbone.config, parts)
    batch = batch_of(backbone.config)
    with torch.no_grad():
        expected = theirs(**torch_batch(batch))
        states = theirs.lxmert(**torch_batch(batch))
        regions = theirs.obj_predict_head(states.vision_output)
    found = heads(backbone(batch), backbone.input_embeddings)
    for ours, other in {
        "mlm_logits": expected.prediction_logits,
        "matching_logits": expected.cross_relationship_score,
        "feature_predictions": regions["feat"],
        "object_logits": regions["obj"],
        "attribute_logits": regions["attr"],
    }.items():
        np.testing.assert_allclose(found[ours], other.numpy(), atol=5 * TOLERANCE, err_msg=ours)
    # Imported: all but the head of answers, which no part of the platform reads, bit by bit and under the same names.
    import_model(tmp_path / "theirs", tmp_path / "ours")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    left = {name for name in first if name.startswith(("answer_head.", "cls.predictions.decoder"))}
    assert set(second) == set(first) - left
    for name, value in second.items():
        np.testing.assert_array_equal(value, first[name])
    # The layer that heads on regions share is theirs alone where only they are asked for.
    assert not any("obj_predict" in name for name in LxmertHeads(backbone.config, ["mlm"]).export_weights())


def test_what_we_write_transformers_reads(tmp_path):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    backbone = LxmertBackbone(LxmertConfig.from_dict({**SIZES, "hidden_act": "gelu", "initializer_range": 0.3}), seed=4)
    backbone.save_to_preset(tmp_path / "ours")
    theirs, report = transformers.LxmertModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    batch = batch_of(backbone.config)
    with torch.no_grad():
        expected = theirs.eval()(**torch_batch(batch))
    found = backbone(batch)
    np.testing.assert_allclose(found["region_output"], expected.vision_output.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(found["pooled_output"], expected.pooled_output.numpy(), atol=TOLERANCE)
    stored = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert stored["num_hidden_layers"] == {"language": 3, "vision": 1, "cross_encoder": 2}
    again = Backbone.from_preset(tmp_path / "ours")
    assert {**backbone.config.to_dict(), "architectures": ["LxmertModel"]} == again.config.to_dict()
    np.testing.assert_array_equal(again.example_outputs(), backbone.example_outputs())


def test_size_of_the_published_model():
    """207.9 million, counted from the table, and by transformers without memory for them."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    count = LXMERT.parameter_count(LxmertConfig(vocab_size=30522))
    assert round(count / 1e6, 1) == 207.9
    with torch.device("meta"):
        theirs = transformers.LxmertModel(transformers.LxmertConfig())
    assert count == sum(value.numel() for value in theirs.parameters())


def test_labels_stand_behind_words():
    config = LxmertConfig.from_dict({**SIZES, "initializer_range": 0.3, "label_slots": 3, "l_layers": 1, "x_layers": 1})
    backbone = LxmertBackbone(config, seed=2)
    batch = batch_of(config, labels=True)
    without = {name: value for name, value in batch.items() if not name.startswith("label")}
    found = backbone(batch, label_visibility="regions_only")
    assert found["label_output"].shape == [2, 5, 16]
    assert "label_output" not in backbone(without)
    # Kept apart, words learn of labels by regions alone, and with one layer of both streams not even so.
    other = {**batch, "label_ids": 67 - batch["label_ids"]}
    again = backbone(other, label_visibility="regions_only")
    np.testing.assert_allclose(found["sequence_output"], again["sequence_output"], atol=1e-6)
    for name in ("label_output", "region_output"):
        assert np.abs(found[name] - again[name]).max() > 1e-2
    assert np.abs(backbone(batch)["sequence_output"] - backbone(other)["sequence_output"]).max() > 1e-2
    # A row whose labels are all padding is one without labels.
    masked = backbone({**batch, "label_mask": np.zeros_like(batch["label_mask"])})
    np.testing.assert_allclose(masked["sequence_output"], backbone(without)["sequence_output"], atol=1e-5)
    np.testing.assert_allclose(masked["region_output"], backbone(without)["region_output"], atol=1e-5)


def test_labels_are_gained(tmp_path):
    hf_folder(tmp_path)
    backbone = VisionLanguageBackbone.from_preset(tmp_path, label_slots=3)
    assert sorted(backbone.load_report.allowed) == ["bert/label_embeddings/inner", "bert/label_embeddings/slot"]


def test_what_does_not_fit_is_refused(tmp_path):
    hf_folder(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["encoder.x_layers.1.visual_attention.att.key.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="1 weights missing.*\n.*x_layers_1/visual_attention/att/key/kernel"):
        Backbone.from_preset(tmp_path)
    config = load_config(tmp_path)
    with pytest.raises(ConfigError, match="layers of three kinds.*l_layers, r_layers, x_layers"):
        config.replace(num_hidden_layers=2)
    with pytest.raises(ModelError, match="box_size.*Input should be 4"):
        LxmertConfig.from_dict({**SIZES, "visual_pos_dim": 6})
    with pytest.raises(ModelError, match="num_hidden_layers in .* is not l_layers, r_layers, x_layers"):
        LxmertConfig.from_dict({**SIZES, "num_hidden_layers": {"language": 9, "vision": 1, "cross_encoder": 2}})
    commands.make_tiny(tmp_path / "bert", "bert")
    with pytest.raises(ModelError, match="family bert, which is no LxmertBackbone"):
        LxmertBackbone.from_preset(tmp_path / "bert")


def test_make_tiny_and_depths(tmp_path):
    made = commands.make_tiny(tmp_path / "a", "lxmert", seed=4)
    verified = commands.verify(tmp_path / "a")
    assert verified["random"] == [] and made["parameters"] == verified["parameters"] == parameters_in(tmp_path / "a")
    parts = commands.show(str(tmp_path / "a"))["parts"]
    assert parts == ["encoder", "pooler", "mlm", "matching", "features", "objects", "attributes", "region_transform"]
    backbone = LxmertBackbone.from_preset(tmp_path / "a")
    # Embeddings; two layers of words, the upper of them beside the only one of regions; one of both; the pooler.
    assert [len(group) for group in backbone.layer_groups()] == [5 + 8, 16, 32, 42, 2]
    grouped = {variable.ref() for group in backbone.layer_groups() for variable in group}
    assert grouped == {variable.ref() for variable in backbone.trainable_variables}
    assert type(backbone).from_config(backbone.get_config()).config == backbone.config
    assert FILES.family.forms == ("hf",)
