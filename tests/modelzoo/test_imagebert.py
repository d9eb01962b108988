"""ImageBERT: outputs equal formulas in NumPy and transformers' VisualBERT; masks, labels, files, starts, refusals."""

import re

import numpy as np
import pytest
import tensorflow as tf
import vision_language_oracle as oracle
from tiny_bert import hf_folder as bert_folder

from easytransfer.errors import ModelError
from modelzoo import commands
from modelzoo.backbone import Backbone
from modelzoo.imagebert.backbone import ImageBertBackbone
from modelzoo.imagebert.config import ImageBertConfig
from modelzoo.imagebert.convert import IMAGEBERT, parameters_in
from modelzoo.imagebert.formats import FILES
from modelzoo.imagebert.heads import ImageBertHeads
from modelzoo.importing import export_model, import_model
from modelzoo.loading import load_tokenizer
from modelzoo.vision_language.backbone import VisionLanguageBackbone
from modelzoo.vision_language.heads import label_vectors
from modelzoo.vision_language.inputs import region_inputs

SIZES = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "feature_size": 7,
    "max_regions": 8,
    "num_object_labels": 6,
    "num_attr_labels": 4,
    "initializer_range": 0.2,
}
REGIONS = {"region_positions": False, "box_size": 7, "label_slots": 3, "label_pieces": 4}
LABEL_KEYS = ("label_ids", "label_slot", "label_inner", "label_mask", "label_region")


def config_of(**settings):
    return ImageBertConfig.from_dict({**SIZES, **settings})


def noisy(table):
    """Random values of everything, LayerNorms and biases too, so that no wrong use can hide."""
    draw = np.random.default_rng(11)
    return {
        row.name: (draw.normal(size=row.shape) * 0.3 + (1 if row.name.endswith("gamma") else 0)).astype(np.float32)
        for row in table
    }


def network(**settings):
    config = config_of(**settings)
    backbone, values = ImageBertBackbone(config), noisy(IMAGEBERT.weights(config))
    backbone.import_weights(values, "the test")
    return backbone, values


def joined(outputs):
    parts = [outputs[name] for name in ("sequence_output", "label_output", "region_output") if name in outputs]
    return np.concatenate([part.numpy() for part in parts], axis=1)


def seen(batch):
    return oracle.looked_at(batch, False)[:, 0]


@pytest.mark.parametrize(
    ("settings", "labels", "visibility"),
    [
        ({}, False, "all"),
        ({**REGIONS, "hidden_act": "gelu"}, True, "all"),
        ({**REGIONS, "num_hidden_layers": 1}, True, "regions_only"),
        ({**REGIONS, "region_positions": True, "label_link": "box"}, True, "regions_only"),
    ],
    ids=["patches", "labels", "depth 1", "linked"],
)
def test_forward_equals_the_formulas(settings, labels, visibility):
    backbone, values = network(**settings)
    batch = oracle.random_batch(backbone.config, labels=labels)
    found = backbone(batch, label_visibility=visibility, with_attentions=True)
    states, pooled, attentions = oracle.single_stream(values, backbone.config, batch, visibility == "regions_only")
    np.testing.assert_allclose(joined(found), states, atol=1e-5)
    np.testing.assert_allclose(found["pooled_output"], pooled, atol=1e-5)
    np.testing.assert_allclose(np.stack(found["attentions"]), attentions, atol=1e-5)
    np.testing.assert_allclose(backbone(batch, label_visibility=visibility, pooled_only=True)["pooled_output"], pooled,
                               atol=1e-5)  # fmt: skip
    assert set(found) - {"attentions"} == {"sequence_output", "region_output", "pooled_output"} | (
        {"label_output"} if labels else set()
    )


def test_padding_changes_nothing():
    backbone, _ = network(**REGIONS)
    batch = oracle.random_batch(backbone.config)
    wide = dict(batch)
    for name in ("features", "boxes", "region_mask", *LABEL_KEYS[:4]):
        behind = [(0, 0), (0, 2), *[(0, 0)] * (batch[name].ndim - 2)]
        wide[name] = np.pad(batch[name], behind, constant_values=-1 if name == "label_slot" else 0)
    wide["features"][:, 5:] = 9.0  # What lies in padding is not read.
    short, long = backbone(batch), backbone(wide)
    for name, size in (("sequence_output", 6), ("label_output", 5), ("region_output", 5)):
        np.testing.assert_allclose(long[name][:, :size], short[name], atol=1e-5)
    np.testing.assert_allclose(long["pooled_output"], short["pooled_output"], atol=1e-5)


def test_order_of_regions_without_positions():
    backbone, _ = network(**REGIONS)
    batch, order = oracle.random_batch(backbone.config, labels=False), np.array([3, 0, 4, 1, 2])
    other = {**batch, **{name: batch[name][:, order] for name in ("features", "boxes", "region_mask")}}
    first, second = backbone(batch), backbone(other)
    np.testing.assert_allclose(second["region_output"], first["region_output"].numpy()[:, order], atol=1e-5)
    np.testing.assert_allclose(second["pooled_output"], first["pooled_output"], atol=1e-5)
    # With positions, as of patches, it counts.
    backbone, _ = network()
    assert np.abs(backbone(batch)["pooled_output"] - backbone(other)["pooled_output"]).max() > 1e-3


def test_words_do_not_see_labels_at_depth_1():
    backbone, _ = network(**REGIONS, num_hidden_layers=1)
    batch = oracle.random_batch(backbone.config)
    other = {**batch, "label_ids": 34 - batch["label_ids"], "label_inner": 1 - batch["label_inner"]}
    first, second = (backbone(rows, label_visibility="regions_only") for rows in (batch, other))
    np.testing.assert_array_equal(first["sequence_output"], second["sequence_output"])
    np.testing.assert_array_equal(first["pooled_output"], second["pooled_output"])
    for name in ("label_output", "region_output"):
        assert np.abs(first[name] - second[name]).max() > 1e-2
    first, second = backbone(batch), backbone(other)
    assert np.abs(first["sequence_output"] - second["sequence_output"]).max() > 1e-2


def test_equals_visual_bert_of_transformers():
    """It has one LayerNorm for words and regions, a bias of the projection and a visual position 0."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    torch.manual_seed(3)
    sizes = {name: SIZES[name] for name in list(SIZES)[:6]} | {"initializer_range": 0.2, "hidden_act": "gelu"}
    theirs = transformers.VisualBertModel(transformers.VisualBertConfig(**sizes, visual_embedding_dim=7)).eval()
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    backbone, values = network(region_positions=False, hidden_act="gelu")
    table = {row.hf: row for row in IMAGEBERT.weights(backbone.config)}
    for name, value in state.items():
        if name in table:
            values[table[name].name] = value.T if table[name].transposed else value
    e = "embeddings.visual_"
    region_type = state[f"{e}token_type_embeddings.weight"][1] + state[f"{e}position_embeddings.weight"][0]
    values |= {
        "bert/image_embeddings/image_projector": state[f"{e}projection.weight"].T,
        "bert/image_embeddings/patch_type_embeddings": np.tile(region_type + state[f"{e}projection.bias"], [2, 1]),
        "bert/image_embeddings/ImageEmbLayerNorm/gamma": state["embeddings.LayerNorm.weight"],
        "bert/image_embeddings/ImageEmbLayerNorm/beta": state["embeddings.LayerNorm.bias"],
    }
    backbone.import_weights(values, "transformers")
    batch = oracle.random_batch(backbone.config, labels=False)
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor(batch["input_ids"], dtype=torch.long),
            attention_mask=torch.tensor(batch["input_mask"], dtype=torch.long),
            token_type_ids=torch.tensor(batch["segment_ids"], dtype=torch.long),
            visual_embeds=torch.tensor(batch["features"]),
            visual_attention_mask=torch.tensor(batch["region_mask"], dtype=torch.long),
        )
    found, real = backbone(batch), seen(batch)
    np.testing.assert_allclose(joined(found)[real], expected.last_hidden_state.numpy()[real], atol=1e-5)
    np.testing.assert_allclose(found["pooled_output"], expected.pooler_output.numpy(), atol=1e-5)


def test_lengths_that_only_the_call_knows():
    """The same in a graph with open axes, where the checks are made when it runs."""
    backbone, _ = network(**REGIONS, num_hidden_layers=1)
    batch = oracle.random_batch(backbone.config)
    specs = {
        name: tf.TensorSpec([None, None, *value.shape[2:]], tf.as_dtype(value.dtype)) for name, value in batch.items()
    }
    traced = tf.function(
        lambda rows: backbone(rows, label_visibility="regions_only"), input_signature=[specs], autograph=False
    )
    expected = backbone(batch, label_visibility="regions_only")
    for name, value in traced(batch).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-6)
    for change, words in (
        ({"boxes": batch["boxes"] * 100}, "divided by width and height"),
        ({"region_mask": batch["region_mask"] * 2}, "region_mask must be 0 or 1"),
        ({"label_slot": batch["label_slot"] + 1}, r"label_slot must lie in \[-1, label_slots = 3\)"),
        ({"label_inner": batch["label_inner"] + 3}, r"label_inner must lie in \[0, label_pieces = 4\)"),
        ({"label_ids": batch["label_ids"] + 30}, r"label_ids must lie in \[0, vocab_size = 30\)"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=words):
            traced({**batch, **change})


def test_number_of_regions_that_only_the_call_knows():
    @tf.function(input_signature=[tf.TensorSpec([None, None, 7]), tf.TensorSpec([None, None], tf.int32)])
    def checked(features, region_mask):
        arrays, checks = region_inputs({"features": features, "region_mask": region_mask}, config_of())
        with tf.control_dependencies(checks):
            return tf.identity(arrays["features"])

    assert checked(tf.zeros([2, 8, 7]), tf.ones([2, 8], tf.int32)).shape == [2, 8, 7]
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most max_regions = 8 regions"):
        checked(tf.zeros([2, 9, 7]), tf.ones([2, 9], tf.int32))


def test_what_does_not_fit_is_refused():
    backbone, _ = network()
    batch = oracle.random_batch(backbone.config, labels=False)
    labelled = oracle.random_batch(backbone.config)
    for rows, words in (
        ({**batch, "features": batch["features"][..., :5]}, r"features has another shape.*count, 7 \(feature_size\)"),
        ({name: value for name, value in batch.items() if name != "region_mask"}, "the batch lacks region_mask"),
        ({name: np.repeat(value, 2, axis=1) for name, value in batch.items()}, "more regions than max_regions.*10"),
        (labelled, "built without labels"),
    ):
        with pytest.raises(ModelError, match=words):
            backbone(rows)
    backbone, _ = network(**REGIONS)
    with pytest.raises(ModelError, match="the batch lacks boxes"):
        backbone({name: value for name, value in batch.items() if name != "boxes"})
    with pytest.raises(ModelError, match="the batch lacks label_slot, label_mask"):
        backbone({name: value for name, value in labelled.items() if name not in ("label_slot", "label_mask")})
    linked, _ = network(**REGIONS, label_link="box", num_hidden_layers=1)
    for wrong in (labelled["label_region"] + 2, labelled["label_region"][:, :2]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="label_region must name a region of the image"):
            linked({**labelled, "label_region": wrong})
    with pytest.raises(ModelError, match="unknown label_visibility.*words.*all, regions_only"):
        backbone(labelled, label_visibility="words")
    with pytest.raises(ModelError, match="label_link box needs box_size 7"):
        config_of(label_link="box")
    with pytest.raises(ModelError, match="type_vocab_size is 1"):
        config_of(**REGIONS, type_vocab_size=1)
    with pytest.raises(ModelError, match="patch_feature_size and feature_size in .* differ"):
        config_of(patch_feature_size=8)


# Of the original's checkpoint (alibaba/EasyTransfer, modeling_imagebert.py and its layers), one layer of two.
ORIGINAL = """
bert/embeddings/word_embeddings bert/embeddings/position_embeddings bert/embeddings/token_type_embeddings
bert/embeddings/LayerNorm/gamma bert/embeddings/LayerNorm/beta bert/image_embeddings/image_projector
bert/image_embeddings/patch_position_embeddings bert/image_embeddings/patch_type_embeddings
bert/image_embeddings/ImageEmbLayerNorm/gamma bert/image_embeddings/ImageEmbLayerNorm/beta
bert/pooler/dense/kernel bert/pooler/dense/bias
cls/predictions/transform/dense/kernel cls/predictions/transform/dense/bias
cls/predictions/transform/LayerNorm/gamma cls/predictions/transform/LayerNorm/beta cls/predictions/output_bias
cls/seq_relationship/output_weights cls/seq_relationship/output_bias cls/img_predictions/output_weights
""".split()


def original_folder(folder):
    """A folder of EasyTransfer as it published them: its names, its keys of config.json, no heads of LAMP."""
    config = config_of()
    values = {
        name: value for name, value in noisy(IMAGEBERT.table(config)).items() if name in ORIGINAL or "/encoder/" in name
    }
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(25))]
    FILES.write_folder(folder, "ez", config, values, vocabulary=tokens)
    return config, values


def test_the_originals_checkpoint(tmp_path):
    config, values = original_folder(tmp_path / "ez")
    names = set(tf.train.load_checkpoint(str(tmp_path / "ez" / "model.ckpt")).get_variable_to_shape_map())
    layers = {name for name in names if "/encoder/layer_" in name}
    assert len(layers) == 32
    assert names - layers == {f"image_bert_pre_trained_model/{name}" for name in ORIGINAL}
    stored = (tmp_path / "ez" / "config.json").read_text()
    assert all(f'"{name}"' in stored for name in ImageBertConfig.FILE_NAMES) and "max_regions" not in stored
    backbone = Backbone.from_preset(tmp_path / "ez")
    assert isinstance(backbone, ImageBertBackbone) and not backbone.load_report.allowed
    for name, value in backbone.export_weights().items():
        np.testing.assert_array_equal(value, values[name])
    heads = ImageBertHeads.from_preset(tmp_path / "ez", config, ["mlm", "matching", "features"])
    for name, value in heads.export_weights().items():
        np.testing.assert_array_equal(value, values[name])
    # To our form and back again.
    import_model(tmp_path / "ez", tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "again", "ez")
    first, second = (tf.train.load_checkpoint(str(tmp_path / name / "model.ckpt")) for name in ("ez", "again"))
    for name in names:
        np.testing.assert_array_equal(second.get_tensor(name), first.get_tensor(name))


def test_what_a_network_gains_begins_from_random_values(tmp_path):
    original_folder(tmp_path / "ez")
    backbone = VisionLanguageBackbone.from_preset(tmp_path / "ez", **REGIONS)
    new = {f"bert/{name}" for name in ("image_embeddings/box_projector", "label_embeddings/slot",
                                       "label_embeddings/inner")}  # fmt: skip
    assert set(backbone.load_report.allowed) == new
    assert all(np.abs(backbone.export_weights()[name]).max() > 0.1 for name in new)
    # What the stored network had must be there.
    with pytest.raises(ModelError, match="1 with another shape"):
        VisionLanguageBackbone.from_preset(tmp_path / "ez", feature_size=9)
    backbone.save_to_preset(tmp_path / "saved", load_tokenizer(tmp_path / "ez"))
    again = VisionLanguageBackbone.from_preset(tmp_path / "saved")
    assert not again.load_report.allowed and again.config.label_slots == 3
    np.testing.assert_array_equal(again.example_outputs(), backbone.example_outputs())
    with pytest.raises(ModelError, match="2 with another shape"):
        VisionLanguageBackbone.from_preset(tmp_path / "saved", label_slots=5, label_pieces=2)


def test_a_bert_is_a_start(tmp_path):
    theirs = bert_folder(tmp_path, "BertForPreTraining")
    backbone = VisionLanguageBackbone.from_preset(tmp_path, feature_size=7, max_regions=8, **REGIONS)
    assert isinstance(backbone, ImageBertBackbone) and backbone.config.hidden_act == "gelu"
    assert {re.split("[/]", name)[1] for name in backbone.load_report.allowed} == {
        "image_embeddings",
        "label_embeddings",
    }
    bert = Backbone.from_preset(tmp_path)
    for name, value in bert.export_weights().items():
        np.testing.assert_array_equal(backbone.export_weights()[name], value)
    # A text whose regions are all padding gives what BERT gives.
    batch = oracle.random_batch(backbone.config, labels=False)
    alone = {**batch, "region_mask": np.zeros_like(batch["region_mask"])}
    text = {name: batch[name] for name in ("input_ids", "input_mask", "segment_ids")}
    np.testing.assert_allclose(backbone(alone)["sequence_output"], bert(text)["sequence_output"], atol=1e-5)
    heads = ImageBertHeads.from_preset(tmp_path, backbone.config, ["mlm", "matching"])
    np.testing.assert_array_equal(
        heads.export_weights()["cls/predictions/output_bias"], theirs.cls.predictions.bias.detach().numpy()
    )


def test_heads_equal_the_formulas():
    config = config_of(**REGIONS)
    backbone, heads = ImageBertBackbone(config, seed=3), ImageBertHeads(config, IMAGEBERT.heads)
    values = {name: value.astype(np.float64) for name, value in noisy(IMAGEBERT.weights(config, heads.parts)).items()}
    heads.import_weights({name: value.astype(np.float32) for name, value in values.items()})
    batch = oracle.random_batch(config)
    outputs, places = backbone(batch), np.array([[1, 3], [2, 0]], np.int32)
    found = heads(
        outputs, backbone.input_embeddings, positions=places, label_positions=places, label_slot=batch["label_slot"]
    )
    words = backbone.input_embeddings.numpy()
    regions, pooled = outputs["region_output"].numpy(), outputs["pooled_output"].numpy()

    def of_words(states):
        x = np.take_along_axis(states.numpy(), places[..., None], axis=1)
        x = oracle.ACTIVATIONS["gelu_tanh"](oracle.dense(x, values, "cls/predictions/transform/dense"))
        x = oracle.norm(x, values, "cls/predictions/transform/LayerNorm")
        return x @ words.T + values["cls/predictions/output_bias"]

    def classes(x, name):
        return x @ values[f"cls/{name}/output_weights"] + values[f"cls/{name}/output_bias"]

    labels = np.zeros([2, 3, 16])
    for row in range(2):
        for slot in range(3):
            pieces = outputs["label_output"].numpy()[row, batch["label_slot"][row] == slot]
            labels[row, slot] = pieces.mean(0) if len(pieces) else 0
    expected = {
        "mlm_logits": of_words(outputs["sequence_output"]),
        "label_mlm_logits": of_words(outputs["label_output"]),
        "matching_logits": pooled @ values["cls/seq_relationship/output_weights"].T
        + values["cls/seq_relationship/output_bias"],
        "feature_predictions": regions @ values["cls/img_predictions/output_weights"],
        "object_logits": classes(regions, "object_predictions"),
        "attribute_logits": classes(regions, "attribute_predictions"),
        "label_match_logits": classes(labels, "label_match"),
        "pointer_scores": (labels @ values["cls/label_pointer/query"])
        @ (regions @ values["cls/label_pointer/key"]).transpose(0, 2, 1)
        / 4,
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)
    with pytest.raises(ModelError, match="no such head.*nsp.*mlm, matching, features"):
        ImageBertHeads(config, ["nsp"])
    with pytest.raises(ModelError, match="no such head.*label_match"):
        ImageBertHeads(config_of(), ["label_match"])


def test_vectors_of_labels_by_hand():
    states = tf.constant([[[1.0, 2.0], [3.0, 6.0], [5.0, 5.0], [9.0, 9.0]]])
    found = label_vectors(states, tf.constant([[1, 1, 0, -1]]), 3)
    np.testing.assert_allclose(found, [[[5, 5], [2, 4], [0, 0]]])


def test_make_tiny(tmp_path):
    made = commands.make_tiny(tmp_path / "a", "imagebert", seed=4)
    commands.make_tiny(tmp_path / "b", "imagebert", seed=4)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt", "zoo.json"]
    for name in names[:-1]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    verified = commands.verify(tmp_path / "a")
    assert verified["random"] == [] and verified["forward"] == "finite"
    assert made["parameters"] == verified["parameters"] == parameters_in(tmp_path / "a")
    shown = commands.show(str(tmp_path / "a"))
    assert shown["type"] == "imagebert" and shown["config"]["patch_feature_size"] == 24
    backbone = ImageBertBackbone.from_preset(tmp_path / "a")
    groups = backbone.layer_groups()
    assert [len(group) for group in groups] == [11 - 1, 16, 16, 16, 2]
    grouped = {variable.ref() for group in groups for variable in group}
    assert grouped == {variable.ref() for variable in backbone.trainable_variables}
    assert type(backbone).from_config(backbone.get_config()).config == backbone.config
