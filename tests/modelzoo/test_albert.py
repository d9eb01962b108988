"""ALBERT: outputs equal those of transformers to 1e-4 in float32; files of every form; what is refused."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file
from tiny_albert import SIZES, hf_folder
from tiny_bert import torch_batch

from easytransfer.errors import ConfigError, ModelError
from easytransfer.layers.dropout import dropout_seed
from easytransfer.text.sentence_piece import SentencePiece
from easytransfer.text.wordpiece import WordPiece
from modelzoo import commands
from modelzoo.albert.backbone import AlbertBackbone
from modelzoo.albert.config import AlbertConfig
from modelzoo.albert.convert import ALBERT
from modelzoo.albert.formats import write_folder
from modelzoo.albert.heads import AlbertMlmHead
from modelzoo.backbone import Backbone
from modelzoo.checkpoint import write_checkpoint
from modelzoo.encoder_weights import initial_value
from modelzoo.importing import export_model, import_model
from modelzoo.loading import load_backbone, load_config, load_tokenizer

TOLERANCE = 1e-4
LAYER = "bert/encoder/transformer/group_0/inner_group_0"


def reference(model, batch, **options):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(**torch_batch(batch), **options)


def values_of(config, seed=5):
    return {row.name: initial_value(row, seed, 0.1) for row in ALBERT.table(config)}


@pytest.mark.parametrize("settings", [{}, {"hidden_act": "gelu", "layer_norm_eps": 1e-2}], ids=["usual", "exact gelu"])
def test_hidden_states_and_pooled_output(tmp_path, batch, settings):
    model = hf_folder(tmp_path, **settings)
    backbone = Backbone.from_preset(tmp_path)
    assert isinstance(backbone, AlbertBackbone)
    expected, actual = reference(model, batch, output_hidden_states=True), backbone(batch)
    real = batch["input_mask"] == 1
    assert len(actual["hidden_states"]) == SIZES["num_hidden_layers"] + 1
    for ours, theirs in zip(actual["hidden_states"], expected.hidden_states, strict=True):
        np.testing.assert_allclose(ours.numpy()[real], theirs.numpy()[real], atol=TOLERANCE)
    np.testing.assert_allclose(
        actual["sequence_output"].numpy()[real], expected.last_hidden_state.numpy()[real], atol=TOLERANCE
    )
    for outputs in (actual, backbone(batch, pooled_only=True)):
        np.testing.assert_allclose(outputs["pooled_output"], expected.pooler_output.numpy(), atol=TOLERANCE)


def test_pretraining_heads(tmp_path, batch):
    model = hf_folder(tmp_path, "AlbertForPreTraining")
    backbone, head = Backbone.from_preset(tmp_path), AlbertMlmHead.from_preset(tmp_path, sentence_order=True)
    states, expected = backbone(batch), reference(model, batch)
    outputs = head(states["sequence_output"], backbone.input_embeddings, pooled_output=states["pooled_output"])
    real = batch["input_mask"] == 1
    np.testing.assert_allclose(
        outputs["mlm_logits"].numpy()[real], expected.prediction_logits.numpy()[real], atol=TOLERANCE
    )
    np.testing.assert_allclose(outputs["sop_logits"], expected.sop_logits.numpy(), atol=TOLERANCE)
    assert not head.load_report.missing


def test_masked_lm_model_has_no_pooler(tmp_path, batch):
    model = hf_folder(tmp_path, "AlbertForMaskedLM")
    with pytest.raises(ModelError, match="missing +bert/pooler/dense/kernel"):
        Backbone.from_preset(tmp_path)
    backbone, head = Backbone.from_preset(tmp_path, allow_missing="pooler"), AlbertMlmHead.from_preset(tmp_path)
    logits = head(backbone(batch)["sequence_output"], backbone.input_embeddings)["mlm_logits"].numpy()
    real = batch["input_mask"] == 1
    np.testing.assert_allclose(logits[real], reference(model, batch).logits.numpy()[real], atol=TOLERANCE)


def test_round_trip_through_every_form_is_bit_identical(tmp_path):
    model = hf_folder(tmp_path / "hf", "AlbertForPreTraining", hidden_act="gelu")
    original = load_file(tmp_path / "hf" / "model.safetensors")
    import_model(tmp_path / "hf", tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "google", "google")
    import_model(tmp_path / "google", tmp_path / "ours2", "google")
    export_model(tmp_path / "ours2", tmp_path / "ez", "ez")
    import_model(tmp_path / "ez", tmp_path / "ours3")
    export_model(tmp_path / "ours3", tmp_path / "hf2", "hf")
    final = load_file(tmp_path / "hf2" / "model.safetensors")
    assert set(final) == set(original)
    for name, value in original.items():
        np.testing.assert_array_equal(final[name], value)
    reread, info = type(model).from_pretrained(tmp_path / "hf2", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert {load_config(tmp_path / name).hidden_act for name in ("hf", "google", "ez", "hf2")} == {"gelu"}
    assert len({load_tokenizer(tmp_path / name).digest for name in ("hf", "google", "ez", "hf2")}) == 1


def test_checkpoints_have_exactly_the_original_names(tmp_path):
    config = AlbertConfig(**SIZES)
    write_folder(tmp_path / "google", "google", config, values_of(config))
    write_folder(tmp_path / "ez", "ez", config, values_of(config))
    google = dict(tf.train.list_variables(str(tmp_path / "google" / "model.ckpt-best")))
    ez = dict(tf.train.list_variables(str(tmp_path / "ez" / "model.ckpt")))
    assert {f"albert_pre_trained_model/{name}": shape for name, shape in google.items()} == ez
    assert google["bert/embeddings/word_embeddings"] == [63, 16]
    assert google["bert/encoder/embedding_hidden_mapping_in/kernel"] == [16, 32]
    assert google[f"{LAYER}/attention_1/self/query/kernel"] == [32, 32]
    assert google[f"{LAYER}/attention_1/output/dense/bias"] == [32]
    assert google[f"{LAYER}/ffn_1/intermediate/dense/kernel"] == [32, 48]
    assert google[f"{LAYER}/ffn_1/intermediate/output/dense/kernel"] == [48, 32]
    assert google[f"{LAYER}/LayerNorm/gamma"] == google[f"{LAYER}/LayerNorm_1/beta"] == [32]
    assert google["cls/predictions/transform/dense/kernel"] == [32, 16]
    # 5 embedding, 2 projection, 16 layer, 2 pooler, 5 masked-LM and 2 sentence-order variables.
    assert len(google) == 5 + 2 + 16 + 2 + 5 + 2
    assert {"albert_config.json", "model.ckpt-best.index"} <= {path.name for path in (tmp_path / "google").iterdir()}


def test_google_folder_with_optimizer_state_and_its_own_file_names(tmp_path):
    config = AlbertConfig(**SIZES)
    values = values_of(config)
    kernel = f"{LAYER}/attention_1/self/query/kernel"
    slots = {f"{kernel}/{slot}": np.ones([32, 32], np.float32) for slot in ("adam_m", "adam_v")}
    write_checkpoint(tmp_path / "model.ckpt-best", {**values, **slots, "global_step": np.array(7)})
    data = {**SIZES, "hidden_act": "gelu", "net_structure_type": 0, "gap_size": 0, "num_memory_blocks": 0}
    (tmp_path / "albert_config.json").write_text(json.dumps(data))
    hf_folder(tmp_path / "hf")
    shutil.copyfile(tmp_path / "hf" / "spiece.model", tmp_path / "30k-clean.model")
    backbone = load_backbone(tmp_path)
    # Google's code calls the tanh form gelu.
    assert isinstance(backbone, AlbertBackbone) and backbone.config.hidden_act == "gelu_tanh"
    assert len(backbone.load_report.ignored) == 3 and not backbone.load_report.missing
    for name, value in backbone.export_weights().items():
        np.testing.assert_array_equal(value, values[name])
    assert isinstance(load_tokenizer(tmp_path), SentencePiece)


def test_saved_and_sharded_folders_load_again(tmp_path, batch):
    model = hf_folder(tmp_path / "a", "AlbertForPreTraining")
    backbone = load_backbone(tmp_path / "a")
    backbone.save_to_preset(tmp_path / "b", load_tokenizer(tmp_path / "a"))
    again = load_backbone(tmp_path / "b")
    np.testing.assert_array_equal(again(batch)["pooled_output"], backbone(batch)["pooled_output"])
    assert load_tokenizer(tmp_path / "b").digest == load_tokenizer(tmp_path / "a").digest
    # Without a head the names have no prefix.
    assert "embeddings.word_embeddings.weight" in load_file(tmp_path / "b" / "model.safetensors")
    model.save_pretrained(tmp_path / "c", safe_serialization=True, max_shard_size="4KB")
    assert len(list((tmp_path / "c").glob("*.safetensors"))) > 1
    sharded = load_backbone(tmp_path / "c")
    np.testing.assert_array_equal(sharded(batch)["pooled_output"], backbone(batch)["pooled_output"])


def test_a_chinese_model_has_word_pieces(tmp_path):
    config = AlbertConfig(**SIZES)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(58))]
    write_folder(tmp_path / "zh", "ez", config, values_of(config), vocabulary=tokens)
    assert isinstance(load_tokenizer(tmp_path / "zh"), WordPiece)
    import_model(tmp_path / "zh", tmp_path / "ours")
    assert isinstance(load_tokenizer(tmp_path / "ours"), WordPiece)
    assert load_backbone(tmp_path / "ours").config.model_type == "albert"


def test_one_layer_is_shared_and_trained_once(batch):
    config = AlbertConfig(**SIZES, hidden_dropout_prob=0.3)
    backbone = AlbertBackbone(config)
    assert [len(group) for group in backbone.layer_groups()] == [7, 16, 2]
    variables = {id(variable) for group in backbone.layer_groups() for variable in group}
    assert variables == {id(variable) for variable in backbone.trainable_variables}
    assert backbone.count_params() == ALBERT.parameter_count(config)
    assert ALBERT.parameter_count(config) == ALBERT.parameter_count(config.replace(num_hidden_layers=12))
    # Every call of the layer has masks of its own, the same for one seed.
    with dropout_seed(tf.constant([1, 2])):
        first = backbone(batch, training=True)["hidden_states"]
    with dropout_seed(tf.constant([1, 2])):
        second = backbone(batch, training=True)["hidden_states"]
    np.testing.assert_array_equal(first[-1], second[-1])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(backbone(batch)["pooled_output"] ** 2)
    gradients = tape.gradient(loss, backbone.trainable_variables)
    assert all(gradient is not None for gradient in gradients)


def test_what_is_no_albert_is_refused(tmp_path):
    for key, value in (("num_hidden_groups", 2), ("inner_group_num", 2), ("net_structure_type", 1)):
        with pytest.raises(ModelError, match=f"{key} in .* is not supported"):
            AlbertConfig.from_dict({**SIZES, key: value})
    with pytest.raises(ModelError, match="embedding_size 32 equal to hidden_size is not supported"):
        AlbertConfig.from_dict({**SIZES, "embedding_size": 32})
    with pytest.raises(ModelError, match="is not an ALBERT; got 'bert'"):
        AlbertConfig.from_dict({**SIZES, "model_type": "bert"})
    commands.make_tiny(tmp_path / "tiny", "albert")
    for name in ("tensor", "stage"):
        with pytest.raises(ConfigError, match="networks of the family albert cannot be split over workers"):
            Backbone.from_preset(tmp_path / "tiny", **{name: object()})
    (tmp_path / "tiny" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights in"):
        load_backbone(tmp_path / "tiny")


def test_the_weights_of_another_family_are_not_taken(tmp_path):
    hf_folder(tmp_path / "albert")
    commands.make_tiny(tmp_path / "bert")
    for folder, other in (("albert", "bert"), ("bert", "albert")):
        path = tmp_path / folder / "config.json"
        data = {key: value for key, value in json.loads(path.read_text()).items() if key != "architectures"}
        path.write_text(json.dumps({**data, "model_type": other}))
        with pytest.raises(ModelError, match="weights missing|embedding_size"):
            load_backbone(tmp_path / folder)


def test_make_tiny_is_seeded_and_usable(tmp_path):
    found = [commands.make_tiny(tmp_path / name, "albert", seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2] and found[0]["vocab"] == load_config(tmp_path / "a").vocab_size
    tokenizer = load_tokenizer(tmp_path / "a")
    assert tokenizer.tokenize("The movie was GOOD") == ["▁the", "▁movie", "▁was", "▁good"]
    commands.make_tiny(tmp_path / "d", "albert", vocab=str(tmp_path / "a" / "spiece.model"))
    assert load_tokenizer(tmp_path / "d").digest == tokenizer.digest
    with pytest.raises(ModelError, match="no SentencePiece model at"):
        commands.make_tiny(tmp_path / "e", "albert", vocab=str(tmp_path / "none.model"))
    assert commands.verify(str(tmp_path / "a"))["forward"] == "finite"
    assert commands.show(str(tmp_path / "a"))["family"] == "albert"
