"""A classifier with a head of its own: mean and maximum over the tokens of an encoder, one hidden layer."""

import tensorflow as tf

from easytransfer import base_model, layers, model_zoo, preprocessors
from easytransfer.evaluators import classification_eval_metrics
from easytransfer.losses import softmax_cross_entropy


class CustomHead(base_model):
    """Two dense layers on pooled token vectors."""

    def build_logits(self, features, mode=None):
        """Returns logits [batch, labels] and label ids [batch]."""
        preprocessor = preprocessors.get_preprocessor(self.pretrain_model_name_or_path)
        encoder = model_zoo.get_pretrained_model(self.pretrain_model_name_or_path)
        input_ids, input_mask, segment_ids, label_ids = preprocessor(features)
        tokens, _ = encoder([input_ids, input_mask, segment_ids], mode=mode)
        mask = tf.cast(input_mask, tf.float32)[:, :, None]
        mean = tf.reduce_sum(tokens * mask, axis=1) / tf.reduce_sum(mask, axis=1)
        largest = tf.reduce_max(tokens - 1e4 * (1 - mask), axis=1)
        hidden = layers.Dense(self.head_size, activation="tanh", name="hidden")(tf.concat([mean, largest], axis=1))
        hidden = layers.Dropout(self.dropout_rate)(hidden, training=mode == "train")
        return layers.Dense(self.num_labels, name="logits")(hidden), label_ids

    def build_loss(self, logits, labels):
        """Returns the mean cross entropy."""
        return softmax_cross_entropy(labels, self.num_labels, logits)

    def build_eval_metrics(self, logits, labels):
        """Returns accuracy and F1."""
        return classification_eval_metrics(logits, labels, self.num_labels)

    def build_predictions(self, predict_output):
        """Returns the class and its probability."""
        logits, _ = predict_output
        probabilities = tf.nn.softmax(logits)
        return {"predictions": tf.argmax(logits, axis=-1), "probabilities": probabilities}


if __name__ == "__main__":
    CustomHead().run()
