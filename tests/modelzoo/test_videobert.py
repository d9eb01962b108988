"""VideoBERT: outputs equal the formulas in NumPy; the original's names of weights and settings; refusals."""

import json

import numpy as np
import pytest
import vision_language_oracle as oracle

from easytransfer.errors import ModelError
from modelzoo import commands
from modelzoo.backbone import Backbone
from modelzoo.encoder_weights import initial_value
from modelzoo.loading import load_config
from modelzoo.videobert.backbone import VideoBertBackbone
from modelzoo.videobert.config import VideoBertConfig
from modelzoo.videobert.convert import VIDEOBERT
from modelzoo.videobert.formats import FILES
from modelzoo.videobert.heads import VideoBertHeads

# Of the original's checkpoint (alibaba/EasyTransfer, modeling_videobert.py), what BERT has not.
ORIGINAL = {
    "bert/video_embeddings/video_embeddings": (7, 16),
    "bert/video_embeddings/clip_position_embeddings": (5, 16),
    "bert/video_embeddings/clip_type_embeddings": (10, 16),
    "bert/video_embeddings/LayerNorm/gamma": (16,),
    "bert/video_embeddings/LayerNorm/beta": (16,),
    "cls/video_predictions/output_weights": (16, 7),
}
CONFIG = VideoBertConfig.from_dict(
    {
        **{"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4},
        **{"intermediate_size": 24, "max_position_embeddings": 12, "initializer_range": 0.3},
        **{"clip_feature_size": 7, "max_clip_position_embeddings": 5, "clip_size": 10},
    }
)


def test_equals_the_formulas_and_the_originals_files(tmp_path):
    table = VIDEOBERT.table(CONFIG)
    values = {row.name: initial_value(row, 3, CONFIG.initializer_range) for row in table}
    shapes = {row.name: row.shape for row in table}
    assert shapes.items() >= ORIGINAL.items()
    FILES.write_folder(tmp_path / "ez", "ez", CONFIG, values)
    stored = json.loads((tmp_path / "ez" / "config.json").read_text())
    assert (stored["clip_feature_size"], stored["max_clip_position_embeddings"], stored["clip_size"]) == (7, 5, 10)
    backbone = Backbone.from_preset(tmp_path / "ez")
    assert isinstance(backbone, VideoBertBackbone) and load_config(tmp_path / "ez").feature_size == 7
    batch = oracle.random_batch(CONFIG, labels=False)
    states, pooled, _ = oracle.single_stream(values, CONFIG, batch)
    found = backbone(batch)
    np.testing.assert_allclose(found["sequence_output"], states[:, :6], atol=1e-5)
    np.testing.assert_allclose(found["region_output"], states[:, 6:], atol=1e-5)
    np.testing.assert_allclose(found["pooled_output"], pooled, atol=1e-5)
    heads = VideoBertHeads.from_preset(tmp_path / "ez", CONFIG, ["features"])
    predicted = heads(found)["feature_predictions"]
    np.testing.assert_allclose(predicted, states[:, 6:] @ values["cls/video_predictions/output_weights"], atol=1e-5)


def test_defaults_of_the_original():
    config = VideoBertConfig(vocab_size=21128)
    assert (config.feature_size, config.max_regions, config.region_types) == (1536, 10, 10)


def test_clips_have_an_order_and_no_boxes():
    for settings in ({"region_positions": False}, {"box_size": 7}):
        with pytest.raises(ModelError, match=f"does not describe a VideoBERT: {next(iter(settings))}"):
            VideoBertConfig.from_dict({"vocab_size": 30, **settings})


def test_make_tiny(tmp_path):
    made = commands.make_tiny(tmp_path / "a", "videobert")
    verified = commands.verify(tmp_path / "a")
    assert verified["random"] == [] and made["parameters"] == verified["parameters"]
    commands.make_tiny(tmp_path / "bert", "bert")
    begun = VideoBertBackbone.from_preset(tmp_path / "bert", feature_size=24)
    assert isinstance(begun, VideoBertBackbone) and len(begun.load_report.allowed) == 5
