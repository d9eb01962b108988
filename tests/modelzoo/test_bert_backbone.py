"""Dropout, precision, variables and input checks of the BERT encoder."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_bert import SIZES

from easytransfer import keras
from easytransfer.errors import ConfigError, ModelError
from easytransfer.layers.dropout import Dropout, dropout_seed
from modelzoo.bert.backbone import BertBackbone
from modelzoo.bert.config import BertConfig
from modelzoo.bert.convert import BERT
from modelzoo.bert.heads import BertMlmHead
from modelzoo.encoder_weights import initial_value

CONFIG = BertConfig(**SIZES, initializer_range=0.2)


def _train(backbone, batch, seed):
    with dropout_seed(tf.constant(seed)):
        return backbone(batch, training=True)["pooled_output"].numpy()


def test_dropout_is_a_function_of_the_seed(batch):
    backbone = BertBackbone(CONFIG)
    first = _train(backbone, batch, [1, 2])
    backbone(batch, training=True)
    np.testing.assert_array_equal(first, _train(backbone, batch, [1, 2]))
    assert np.abs(first - _train(backbone, batch, [1, 3])).max() > 1e-3
    assert np.abs(first - backbone(batch)["pooled_output"]).max() > 1e-3


def test_dropout_agrees_between_eager_and_graph(batch):
    backbone = BertBackbone(CONFIG)

    @tf.function
    def step(inputs, seed):
        with dropout_seed(seed):
            return backbone(inputs, training=True)["pooled_output"]

    inputs = {key: tf.constant(value) for key, value in batch.items()}
    np.testing.assert_allclose(step(inputs, tf.constant([4, 5])), _train(backbone, batch, [4, 5]), atol=1e-5)


def test_every_dropout_layer_is_ours():
    layers = list(BertBackbone(CONFIG)._flatten_layers())
    assert not [layer for layer in layers if isinstance(layer, keras.layers.Dropout)]
    assert sum(isinstance(layer, Dropout) for layer in layers) == 1 + 4 * CONFIG.num_hidden_layers


@pytest.mark.parametrize("rate", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_each_rate_acts_alone(batch, rate):
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    dry = BertBackbone(CONFIG.replace(**off))
    np.testing.assert_array_equal(_train(dry, batch, [1, 2]), dry(batch)["pooled_output"])
    backbone = BertBackbone(CONFIG.replace(**{**off, rate: 0.5}))
    assert np.abs(_train(backbone, batch, [1, 2]) - backbone(batch)["pooled_output"]).max() > 1e-3


def test_layer_groups_cover_every_variable_once():
    backbone = BertBackbone(CONFIG)
    groups = backbone.layer_groups()
    assert [len(group) for group in groups] == [5, 16, 16, 2]
    refs = [variable.ref() for group in groups for variable in group]
    assert len(refs) == len(set(refs))
    assert set(refs) == {variable.ref() for variable in backbone.trainable_variables}
    assert groups[0][0] is backbone.input_embeddings
    assert all("layer_1/" in variable.name for variable in groups[2])


def test_parameter_count_is_the_formula():
    v, h, n, i, p, t = 63, 32, 2, 48, 24, 2
    layer = 4 * (h * h + h) + 2 * h + h * i + i + i * h + h + 2 * h
    expected = (v + p + t) * h + 2 * h + n * layer + h * h + h
    assert BERT.parameter_count(CONFIG) == expected == BertBackbone(CONFIG).count_params()
    assert BERT.parameter_count(CONFIG, ["mlm", "nsp"]) == h * h + h + 2 * h + v + 2 * h + 2


def test_fresh_weights_depend_only_on_seed_and_name():
    first, second, other = BertBackbone(CONFIG, 1), BertBackbone(CONFIG, 1), BertBackbone(CONFIG, 2)
    for name, value in first.export_weights().items():
        np.testing.assert_array_equal(value, second.export_weights()[name])
    kernel = "bert/encoder/layer_0/attention/self/query/kernel"
    assert np.abs(first.export_weights()[kernel] - other.export_weights()[kernel]).max() > 0.1
    sibling = kernel.replace("layer_0", "layer_1")
    assert np.abs(first.export_weights()[kernel] - first.export_weights()[sibling]).max() > 0.1


def test_fresh_kernels_are_truncated_normal():
    row = next(r for r in BERT.weights(BertConfig(vocab_size=20000, hidden_size=32, num_attention_heads=4)))
    values = initial_value(row, 0, 0.02)
    assert np.abs(values).max() <= 0.04
    # Standard deviation of a normal distribution cut at two deviations: 0.87963.
    np.testing.assert_allclose(values.std() / 0.02, 0.87963, rtol=5e-3)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_reduced_precision_masks_padding_and_stays_close(batch, policy):
    expected = BertBackbone(CONFIG)(batch)["sequence_output"].numpy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        backbone = BertBackbone(CONFIG)
        head = BertMlmHead(CONFIG)
        outputs = backbone(batch)
        logits = head(outputs["sequence_output"], backbone.input_embeddings)["mlm_logits"]
        other = backbone(dict(batch, input_ids=np.where(batch["input_mask"] == 1, batch["input_ids"], 9)))
        assert all(variable.dtype == tf.float32 for variable in backbone.trainable_variables)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert {outputs["sequence_output"].dtype, outputs["pooled_output"].dtype, logits.dtype} == {tf.float32}
    real = batch["input_mask"] == 1
    np.testing.assert_allclose(outputs["sequence_output"].numpy()[real], expected[real], atol=0.1)
    np.testing.assert_array_equal(outputs["pooled_output"], other["pooled_output"])
    assert np.isfinite(logits).all()


def test_gradients_reach_every_variable(batch):
    backbone = BertBackbone(CONFIG)
    with tf.GradientTape() as tape:
        outputs = backbone(batch, training=True)
        loss = tf.reduce_sum(outputs["sequence_output"][:, :3] ** 3) + tf.reduce_sum(outputs["pooled_output"])
    gradients = tape.gradient(loss, backbone.trainable_variables)
    assert all(g is not None and np.abs(tf.convert_to_tensor(g)).max() > 0 for g in gradients)


def test_pooled_only_has_the_same_gradients_and_does_not_stick(batch):
    backbone = BertBackbone(CONFIG)
    gradients = []
    for pooled_only in (True, False):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(backbone(batch, pooled_only=pooled_only)["pooled_output"] ** 2)
        gradients.append(tape.gradient(loss, backbone.trainable_variables))
    for first, second in zip(*gradients, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(first), tf.convert_to_tensor(second), atol=1e-4)
    assert backbone(batch)["sequence_output"].shape == (3, 11, 32)


def test_the_head_shares_the_embeddings(batch):
    backbone, head = BertBackbone(CONFIG), BertMlmHead(CONFIG)
    assert len(head.trainable_variables) == len(BERT.weights(CONFIG, ["mlm"]))
    with tf.GradientTape() as tape:
        logits = head(tf.stop_gradient(backbone(batch)["sequence_output"]), backbone.input_embeddings)["mlm_logits"]
        loss = tf.reduce_sum(logits**2)
    assert np.abs(tape.gradient(loss, backbone.input_embeddings)).max() > 0


def test_segments_default_to_zero(batch):
    backbone = BertBackbone(CONFIG)
    zeros = backbone(dict(batch, segment_ids=np.zeros_like(batch["segment_ids"])))["pooled_output"]
    without = {key: batch[key] for key in ("input_ids", "input_mask")}
    np.testing.assert_array_equal(backbone(without)["pooled_output"], zeros)


def test_too_long_text_names_the_limit():
    backbone = BertBackbone(CONFIG)
    ids = tf.ones([1, 25], tf.int32)
    with pytest.raises(ModelError, match="got 25; accepted: up to 24 tokens"):
        backbone({"input_ids": ids, "input_mask": ids})
    spec = tf.TensorSpec([None, None], tf.int32)
    function = tf.function(lambda x: backbone({"input_ids": x, "input_mask": x}), input_signature=[spec])
    with pytest.raises(tf.errors.InvalidArgumentError, match="max_position_embeddings = 24"):
        function(ids)


@pytest.mark.parametrize("bad", [-1, 63])
def test_unknown_token_id_names_the_vocabulary(bad):
    backbone = BertBackbone(CONFIG)
    ids = tf.constant([[2, bad]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="vocab_size = 63"):
        backbone({"input_ids": ids, "input_mask": tf.ones_like(ids)})


def test_unknown_override_is_refused():
    with pytest.raises(ConfigError, match="hidden_droput_prob; did you mean hidden_dropout_prob"):
        CONFIG.replace(hidden_droput_prob=0.2)


def test_configuration_survives_keras_serialisation():
    backbone = BertBackbone(CONFIG)
    assert BertBackbone.from_config(backbone.get_config()).config == CONFIG
    head = BertMlmHead(CONFIG, next_sentence=True)
    assert len(BertMlmHead.from_config(head.get_config()).trainable_variables) == len(head.trainable_variables)


def test_table_has_no_name_twice():
    for column in ("name", "hf"):
        names = [getattr(row, column) for row in BERT.weights(CONFIG, BERT.parts)]
        assert len(names) == len(set(names))
