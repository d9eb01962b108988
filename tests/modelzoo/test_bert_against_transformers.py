"""Outputs equal those of transformers with the same weights, to 1e-4 in float32."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_bert import hf_folder, torch_batch

from easytransfer.errors import ModelError
from easytransfer.presets import resolve
from modelzoo.bert.backbone import BertBackbone
from modelzoo.bert.heads import BertMlmHead

TOLERANCE = 1e-4


def _reference(model, batch, **kwargs):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(**torch_batch(batch), **kwargs)


def _assert_same_encoder(backbone, model, batch):
    expected = _reference(model, batch, output_hidden_states=True)
    actual = backbone(batch)
    real = batch["input_mask"] == 1
    for ours, theirs in zip(actual["hidden_states"], expected.hidden_states, strict=True):
        np.testing.assert_allclose(ours.numpy()[real], theirs.numpy()[real], atol=TOLERANCE)
    np.testing.assert_allclose(
        actual["sequence_output"].numpy()[real], expected.last_hidden_state.numpy()[real], atol=TOLERANCE
    )
    np.testing.assert_allclose(actual["pooled_output"], expected.pooler_output.numpy(), atol=TOLERANCE)
    pooled = backbone(batch, pooled_only=True)
    assert set(pooled) == {"pooled_output"}
    np.testing.assert_allclose(pooled["pooled_output"], expected.pooler_output.numpy(), atol=TOLERANCE)


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("layer_norm_eps", [1e-12, 1e-2])
def test_encoder(tmp_path, batch, hidden_act, layer_norm_eps):
    model = hf_folder(tmp_path, hidden_act=hidden_act, layer_norm_eps=layer_norm_eps)
    _assert_same_encoder(BertBackbone.from_preset(tmp_path), model, batch)


def test_the_two_gelu_forms_differ_more_than_the_tolerance(tmp_path, batch):
    hf_folder(tmp_path, hidden_act="gelu", initializer_range=0.5)
    exact = BertBackbone.from_preset(tmp_path)(batch)["pooled_output"]
    approximate = BertBackbone.from_preset(tmp_path, hidden_act="gelu_tanh")(batch)["pooled_output"]
    assert np.abs(exact - approximate).max() > TOLERANCE


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new"])
def test_masked_lm_logits(tmp_path, batch, hidden_act):
    model = hf_folder(tmp_path, "BertForMaskedLM", hidden_act=hidden_act, layer_norm_eps=1e-3)
    backbone = BertBackbone.from_preset(tmp_path, allow_missing="pooler")
    head = BertMlmHead.from_preset(tmp_path)
    logits = head(backbone(batch)["sequence_output"], backbone.input_embeddings)["mlm_logits"].numpy()
    expected = _reference(model, batch).logits.numpy()
    real = batch["input_mask"] == 1
    np.testing.assert_allclose(logits[real], expected[real], atol=TOLERANCE)
    positions = np.array([[0, 3], [6, 1], [1, 1]])
    picked = head(backbone(batch)["sequence_output"], backbone.input_embeddings, positions=positions)["mlm_logits"]
    np.testing.assert_allclose(picked, np.take_along_axis(expected, positions[:, :, None], axis=1), atol=TOLERANCE)


def test_pretraining_heads(tmp_path, batch):
    model = hf_folder(tmp_path, "BertForPreTraining")
    backbone = BertBackbone.from_preset(tmp_path)
    head = BertMlmHead.from_preset(tmp_path, next_sentence=True)
    states = backbone(batch)
    outputs = head(states["sequence_output"], backbone.input_embeddings, pooled_output=states["pooled_output"])
    expected = _reference(model, batch)
    real = batch["input_mask"] == 1
    np.testing.assert_allclose(
        outputs["mlm_logits"].numpy()[real], expected.prediction_logits.numpy()[real], atol=TOLERANCE
    )
    np.testing.assert_allclose(outputs["nsp_logits"], expected.seq_relationship_logits.numpy(), atol=TOLERANCE)
    assert not head.load_report.missing and not head.load_report.mismatched


def test_head_missing_in_the_file_is_an_error(tmp_path):
    hf_folder(tmp_path)
    with pytest.raises(ModelError, match="cls/predictions/transform/dense/kernel"):
        BertMlmHead.from_preset(tmp_path)


def test_pooler_missing_must_be_allowed(tmp_path):
    hf_folder(tmp_path, "BertForMaskedLM")
    with pytest.raises(ModelError, match="bert/pooler/dense/kernel"):
        BertBackbone.from_preset(tmp_path)
    backbone = BertBackbone.from_preset(tmp_path, allow_missing="^bert/pooler/")
    assert backbone.load_report.allowed == ["bert/pooler/dense/kernel", "bert/pooler/dense/bias"]
    kernel = backbone.export_weights()["bert/pooler/dense/kernel"]
    np.testing.assert_array_equal(kernel, BertBackbone(backbone.config).export_weights()["bert/pooler/dense/kernel"])
    assert kernel.std() > 0.1


@pytest.mark.parametrize("hidden_act", [None, "gelu_new"])
def test_minilm(batch, hidden_act):
    transformers = pytest.importorskip("transformers")
    try:
        folder = resolve("minilm-l6-en").folder
    except ModelError as error:
        pytest.skip(str(error))
    settings = {"hidden_act": hidden_act} if hidden_act else {}
    model = transformers.BertModel.from_pretrained(str(folder), **settings).eval()
    batch["input_ids"] = batch["input_ids"] * 450 + 7
    _assert_same_encoder(BertBackbone.from_preset("minilm", **settings), model, batch)


def test_padding_never_leaks(tmp_path, batch):
    hf_folder(tmp_path)
    backbone = BertBackbone.from_preset(tmp_path)
    other = dict(batch, input_ids=np.where(batch["input_mask"] == 1, batch["input_ids"], 9))
    np.testing.assert_array_equal(backbone(batch)["pooled_output"], backbone(other)["pooled_output"])
    narrow = {key: value[2:3, :2] for key, value in batch.items()}
    np.testing.assert_allclose(backbone(narrow)["pooled_output"], backbone(batch)["pooled_output"][2:3], atol=1e-5)


def test_graph_and_xla_agree_with_eager(tmp_path, batch):
    hf_folder(tmp_path)
    backbone = BertBackbone.from_preset(tmp_path)
    expected = backbone(batch)["pooled_output"]
    spec = {key: tf.TensorSpec([None, None], tf.int32) for key in batch}
    for compiled in (False, True):
        function = tf.function(lambda x: backbone(x)["pooled_output"], input_signature=[spec], jit_compile=compiled)
        np.testing.assert_allclose(function({k: tf.constant(v) for k, v in batch.items()}), expected, atol=1e-5)
