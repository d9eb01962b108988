"""Losses on the hidden image patches of FashionBERT-style pre-training (https://arxiv.org/abs/2005.09801)."""

from __future__ import annotations

import tensorflow as tf


def image_reconstruction_mse_loss(
    mpm_logits: tf.Tensor, target_raw_patch_features: tf.Tensor, masked_image_token_num: int, patch_feature_size: int
) -> tf.Tensor:
    """Returns the mean over patches and features of (log softmax(target) - log softmax(predicted))^2.

    Args:
        mpm_logits: Predicted features of hidden patches, [batch * patches, features] or [batch, patches, features].
        target_raw_patch_features: The true ones, of either shape.
        masked_image_token_num: Hidden patches per row.
        patch_feature_size: Features per patch.
    """
    target, predicted = _log_softmax(mpm_logits, target_raw_patch_features, masked_image_token_num, patch_feature_size)
    return tf.reduce_mean(tf.square(target - predicted))


def image_reconstruction_kld_loss(
    mpm_logits: tf.Tensor, target_raw_patch_features: tf.Tensor, masked_image_token_num: int, patch_feature_size: int
) -> tf.Tensor:
    """Returns the mean over patches of KL(softmax(target) || softmax(predicted)).

    Args:
        mpm_logits: Predicted features of hidden patches, [batch * patches, features] or [batch, patches, features].
        target_raw_patch_features: The true ones, of either shape.
        masked_image_token_num: Hidden patches per row.
        patch_feature_size: Features per patch.
    """
    target, predicted = _log_softmax(mpm_logits, target_raw_patch_features, masked_image_token_num, patch_feature_size)
    return tf.reduce_mean(tf.reduce_sum(tf.exp(target) * (target - predicted), axis=-1))


def _log_softmax(predicted: tf.Tensor, target: tf.Tensor, patches: int, features: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns log softmax of both over the features of a patch, float32 [batch, patches, features]."""
    sides = (tf.reshape(tf.cast(side, tf.float32), [-1, patches, features]) for side in (target, predicted))
    target, predicted = (tf.nn.log_softmax(side) for side in sides)
    return tf.stop_gradient(target), predicted
