"""What all networks on a text and regions do alike: gradients of every head reach every variable, reduced precision."""

import numpy as np
import pytest
import tensorflow as tf
import vision_language_oracle as oracle

from easytransfer.train.precision import compute_precision
from modelzoo.loading import family_module

SIZES = {
    **{"vocab_size": 30, "hidden_size": 16, "num_attention_heads": 4, "intermediate_size": 24},
    **{"max_position_embeddings": 12, "feature_size": 7, "num_object_labels": 6, "num_attr_labels": 4},
    **{"initializer_range": 0.2, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "label_slots": 3},
}
OWN = {
    "imagebert": {"num_hidden_layers": 1, "box_size": 7, "label_link": "box"},
    "videobert": {"num_hidden_layers": 1},
    "lxmert": {"l_layers": 1, "r_layers": 1, "x_layers": 1},
}
HEADS = ["mlm", "matching", "features", "objects", "attributes", "label_match", "label_pointer"]


@pytest.mark.parametrize("family", OWN)
def test_gradients_reach_every_variable_and_bfloat16_stays_close(family):
    config = family_module(family, "config").CONFIG_CLASS.from_dict({**SIZES, **OWN[family]})
    network, head = (family_module(family, part) for part in ("backbone", "heads"))
    batch = oracle.random_batch(config)

    def logits(backbone, heads):
        outputs = backbone(batch, training=True, label_visibility="regions_only")
        return heads(outputs, backbone.input_embeddings, label_slot=batch["label_slot"])

    backbone, heads = network.BACKBONE_CLASS(config, seed=1), head.HEAD_CLASS(config, HEADS, seed=1)
    with tf.GradientTape() as tape:
        expected = logits(backbone, heads)
        # No sum of them, which a softmax behind a shift would not change.
        loss = tf.add_n([tf.reduce_sum(tf.sin(value * (i + 1))) for i, value in enumerate(expected.values())])
    variables = [*backbone.trainable_variables, *heads.trainable_variables]
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        assert gradient is not None and np.abs(tf.convert_to_tensor(gradient)).max() > 0, variable.name
    assert len(expected) == 8
    with compute_precision("bfloat16"):
        backbone, heads = network.BACKBONE_CLASS(config, seed=1), head.HEAD_CLASS(config, HEADS, seed=1)
        found = logits(backbone, heads)
    assert {variable.dtype for variable in [*backbone.variables, *heads.variables]} == {tf.float32}
    for name, value in found.items():
        assert value.dtype == tf.float32
        np.testing.assert_allclose(value, expected[name], atol=0.15, err_msg=name)
